//! Sixteen bytes at a time: where a plain text ends, how far a number goes, and its digits; and whether a key is there.
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

/// Whether the bytes that `mask` has ones for are those of `expected`, which has zeros elsewhere.
#[inline(always)]
pub(crate) fn is(bytes: &[u8; 32], mask: &[u8; 32], expected: &[u8; 32]) -> bool {
    wide::is(bytes, mask, expected)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the intrinsics' loads take pointers")]
mod wide {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8, _mm_sub_epi8,
    };

    #[inline(always)]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: SSE2 is part of x86-64; the load takes 16 bytes from anywhere, and there are 16.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn halves(bytes: &[u8; 32]) -> [__m128i; 2] {
        let (halves, _) = bytes.as_chunks::<16>();
        [load(&halves[0]), load(&halves[1])]
    }

    #[inline(always)]
    pub(super) fn is(bytes: &[u8; 32], mask: &[u8; 32], expected: &[u8; 32]) -> bool {
        let ([a, b], [mask_a, mask_b], [is_a, is_b]) = (halves(bytes), halves(mask), halves(expected));
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let a = _mm_cmpeq_epi8(_mm_and_si128(a, mask_a), is_a);
            let b = _mm_cmpeq_epi8(_mm_and_si128(b, mask_b), is_b);
            _mm_movemask_epi8(_mm_and_si128(a, b)) == 0xffff
        }
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
    pub(super) fn is(bytes: &[u8; 32], mask: &[u8; 32], expected: &[u8; 32]) -> bool {
        (0..32).all(|i| bytes[i] & mask[i] == expected[i])
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

/// The same of at most 8.
#[inline(always)]
pub(crate) fn short_number(bytes: u64, digits: u32) -> u64 {
    if digits == 0 {
        return 0;
    }
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    eight((bytes ^ ZEROS) << (8 * (8 - digits)))
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
    const STEP: usize = 32;
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let mut last = [0u8; STEP];
    // Of a long text the last step, too, is read where it stands; a part of it is read twice.
    match bytes.last_chunk() {
        Some(end) => last = *end,
        None => last[..rest.len()].copy_from_slice(rest),
    }
    let bits = steps.iter().fold(last, |bits, step| std::array::from_fn(|i| bits[i] | step[i]));
    // SAFETY: ASCII is UTF-8.
    (bits.iter().fold(0, |all, bits| all | bits) < 0x80).then(|| unsafe { std::str::from_utf8_unchecked(bytes) })
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
        }

        #[test]
        fn ascii_is_what_std_says(mut bytes in prop::collection::vec(0u8..128, 0..150), other in prop::option::of((any::<prop::sample::Index>(), any::<u8>()))) {
            if let Some((place, byte)) = other.filter(|_| !bytes.is_empty()) {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            prop_assert_eq!(ascii(&bytes), std::str::from_utf8(&bytes).ok().filter(|text| text.is_ascii()));
        }

        #[test]
        fn what_counts_is_compared(bytes in prop::array::uniform32(0u8..3), mask in prop::array::uniform32(0u8..2), same in any::<bool>()) {
            let mask = mask.map(|one| one * 0xff);
            let mut expected: [u8; 32] = std::array::from_fn(|i| bytes[i] & mask[i]);
            prop_assert!(is(&bytes, &mask, &expected));
            if !same {
                expected[usize::from(bytes[0]) * 15] ^= 1;
                prop_assert!(!is(&bytes, &mask, &expected));
            }
            prop_assert_eq!(is(&bytes, &mask, &expected), plainly::is(&bytes, &mask, &expected));
        }

        #[test]
        fn digits_are_their_number(text in "[0-9]{0,16}", behind in some()) {
            let bytes: [u8; WIDE] = [text.as_bytes(), &behind[text.len()..]].concat().try_into().unwrap();
            let value = text.parse().unwrap_or(0);
            prop_assert_eq!(number(u128::from_le_bytes(bytes), text.len() as u32), value);
            if text.len() <= 8 {
                prop_assert_eq!(short_number(u128::from_le_bytes(bytes) as u64, text.len() as u32), value);
            }
        }
    }
}
