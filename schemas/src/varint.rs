//! Whole numbers in as few bytes as they need: seven bits a byte, the lowest first, the high bit on all but the last
//! (LEB128); signed ones by zigzag, so that small ones of either sign are short.

/// Appends a number: 1 to 10 bytes.
#[inline]
pub fn put(bytes: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        bytes.push(v as u8 | 0x80);
        v >>= 7;
    }
    bytes.push(v as u8);
}

/// Takes the number at the front; of bytes that end too early, what is there.
#[inline]
pub fn take(bytes: &mut &[u8]) -> u64 {
    let (mut v, mut shift) = (0u64, 0u32);
    while let Some((b, rest)) = bytes.split_first() {
        *bytes = rest;
        v |= u64::from(b & 0x7f).checked_shl(shift).unwrap_or(0);
        if b & 0x80 == 0 {
            break;
        }
        shift += 7;
    }
    v
}

/// 0, -1, 1, -2 … become 0, 1, 2, 3 …
#[inline]
pub fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_return(v in any::<u64>(), small in 0u64..300, signed in any::<i64>()) {
            let mut bytes = Vec::new();
            let numbers = [v, small, zigzag(signed)];
            numbers.iter().for_each(|v| put(&mut bytes, *v));
            let mut rest = bytes.as_slice();
            prop_assert_eq!(numbers.map(|_| take(&mut rest)), numbers);
            prop_assert!(rest.is_empty());
            prop_assert_eq!(unzigzag(zigzag(signed)), signed);
        }
    }

    #[test]
    fn small_numbers_are_short_and_torn_ones_end() {
        let length = |v| {
            let mut bytes = Vec::new();
            put(&mut bytes, v);
            bytes.len()
        };
        assert_eq!([0, 127, 128, u64::MAX].map(length), [1, 1, 2, 10]);
        assert_eq!([0, -1, 1, i64::MIN].map(zigzag), [0, 1, 2, u64::MAX]);
        assert_eq!((take(&mut [0x81].as_slice()), take(&mut [].as_slice())), (1, 0));
        assert_eq!(take(&mut [0xff; 40].as_slice()), u64::MAX);
    }
}
