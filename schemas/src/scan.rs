//! Sixteen bytes at a time: where a plain text ends, how far a number goes, and its digits.
//!
//! On x86-64 the comparisons are SSE2, which each such processor has; elsewhere they are written out, and mean the same.

/// So many bytes are looked at together.
pub(crate) const WIDE: usize = 16;

/// Of each byte, whether it is a quote, a backslash or a control character; the first byte is the lowest bit.
#[inline(always)]
pub(crate) fn ends(bytes: &[u8; WIDE]) -> u32 {
    wide::ends(bytes)
}

/// Of each byte, whether it is a digit, and whether it is a point.
#[inline(always)]
pub(crate) fn digits_and_points(bytes: &[u8; WIDE]) -> (u32, u32) {
    wide::digits_and_points(bytes)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the intrinsics' loads take pointers")]
mod wide {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
        _mm_sub_epi8,
    };

    #[inline(always)]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: SSE2 is part of x86-64; the load takes 16 bytes from anywhere, and there are 16.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    pub(super) fn ends(bytes: &[u8; 16]) -> u32 {
        let x = load(bytes);
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let quote = _mm_cmpeq_epi8(x, _mm_set1_epi8(b'"' as i8));
            let slash = _mm_cmpeq_epi8(x, _mm_set1_epi8(b'\\' as i8));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control)) as u32
        }
    }

    #[inline(always)]
    pub(super) fn digits_and_points(bytes: &[u8; 16]) -> (u32, u32) {
        let x = load(bytes);
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let value = _mm_sub_epi8(x, _mm_set1_epi8(b'0' as i8));
            let digit = _mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value);
            let point = _mm_cmpeq_epi8(x, _mm_set1_epi8(b'.' as i8));
            (_mm_movemask_epi8(digit) as u32, _mm_movemask_epi8(point) as u32)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use plainly as wide;

/// The same, byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod plainly {
    #[inline(always)]
    fn mask(bytes: &[u8; 16], is: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().enumerate().fold(0, |mask, (i, b)| mask | u32::from(is(*b)) << i)
    }

    #[inline(always)]
    pub(super) fn ends(bytes: &[u8; 16]) -> u32 {
        mask(bytes, |b| matches!(b, b'"' | b'\\' | 0..0x20))
    }

    #[inline(always)]
    pub(super) fn digits_and_points(bytes: &[u8; 16]) -> (u32, u32) {
        (mask(bytes, |b| b.is_ascii_digit()), mask(bytes, |b| b == b'.'))
    }
}

/// The number that the first `digits` bytes are, which are digits; at most 16.
#[inline(always)]
pub(crate) fn number(bytes: u128, digits: u32) -> u64 {
    if digits == 0 {
        return 0;
    }
    const ZEROS: u128 = u128::from_le_bytes([b'0'; WIDE]);
    // Zeros before it, so that there are 16.
    let all = (bytes ^ ZEROS) << (8 * (WIDE as u32 - digits));
    eight(all as u64) * 100_000_000 + eight((all >> 64) as u64)
}

/// The number of eight digits, the first in the lowest byte, each as its value: pairs, then fours, then all are put together.
#[inline(always)]
fn eight(digits: u64) -> u64 {
    const EACH_FOURTH: u64 = 0x0000_00ff_0000_00ff;
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let first = (pairs & EACH_FOURTH).wrapping_mul(100 + (1_000_000 << 32));
    let second = ((pairs >> 16) & EACH_FOURTH).wrapping_mul(1 + (10_000 << 32));
    first.wrapping_add(second) >> 32
}

/// As text, when all of it is ASCII.
#[inline(always)]
#[allow(unsafe_code, reason = "checked in the line before")]
pub(crate) fn ascii(bytes: &[u8]) -> Option<&str> {
    // SAFETY: ASCII is UTF-8.
    bytes.is_ascii().then(|| unsafe { std::str::from_utf8_unchecked(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some() -> impl Strategy<Value = [u8; WIDE]> {
        let near = prop::sample::select(b"0123456789.\"\\-+/:; \x1f\x20\x00\x7f\x80\xff".to_vec());
        prop::array::uniform16(prop_oneof![near, any::<u8>()])
    }

    proptest! {
        #[test]
        fn all_at_once_is_one_by_one(bytes in some()) {
            prop_assert_eq!(ends(&bytes), plainly::ends(&bytes));
            prop_assert_eq!(digits_and_points(&bytes), plainly::digits_and_points(&bytes));
            prop_assert_eq!(ascii(&bytes), std::str::from_utf8(&bytes).ok().filter(|text| text.is_ascii()));
        }

        #[test]
        fn digits_are_their_number(text in "[0-9]{0,16}", behind in some()) {
            let bytes: [u8; WIDE] = [text.as_bytes(), &behind[text.len()..]].concat().try_into().unwrap();
            prop_assert_eq!(number(u128::from_le_bytes(bytes), text.len() as u32), text.parse().unwrap_or(0));
        }
    }
}
