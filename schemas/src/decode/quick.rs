//! The short way through a record: a key that was expected, and behind it a plain value, both without white space.
//!
//! Whatever is unusual (white space, escapes, containers, an error) is left to the scanner, which sees it from its beginning.
//! So there is nothing here that decides what is JSON: what is taken here, the scanner would take as well.

use super::frame::{Kind, Slot};
use crate::fixed;
use crate::json::plain;
use crate::scan;

/// Bytes that are compared at once.
const WIDTH: usize = 32;

/// `"key":`, to be compared with a place of a record without a loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    /// Its bytes, and which of them count; in words of 8.
    words: [u64; WIDTH / 8],
    mask: [u64; WIDTH / 8],
    /// 0: it is too long or needs escapes, and matches nothing.
    len: usize,
}

impl Token {
    /// `plain`: the key stands in JSON as it is.
    pub(crate) fn new(key: &str, plain: bool) -> Self {
        let text = format!("\"{key}\":");
        let fits = plain && text.len() <= WIDTH;
        let (mut bytes, mut mask) = ([0u8; WIDTH], [0u8; WIDTH]);
        if fits {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            mask[..text.len()].fill(0xff);
        }
        Token { words: words(&bytes), mask: words(&mask), len: if fits { text.len() } else { 0 } }
    }

    /// Where its value begins, when it stands at `at`.
    #[inline(always)]
    pub(crate) fn behind(&self, text: &[u8], at: usize) -> Option<usize> {
        let rest = text.get(at..)?;
        let there = match rest.first_chunk::<WIDTH>() {
            Some(there) => words(there),
            None => {
                let mut padded = [0u8; WIDTH];
                padded[..rest.len()].copy_from_slice(rest);
                words(&padded)
            }
        };
        let differs = (0..WIDTH / 8).fold(0, |differs, i| differs | ((there[i] ^ self.words[i]) & self.mask[i]));
        (differs == 0 && self.len > 0).then_some(at + self.len)
    }
}

#[inline(always)]
fn words(bytes: &[u8; WIDTH]) -> [u64; WIDTH / 8] {
    let (chunks, _) = bytes.as_chunks::<8>();
    [0, 1, 2, 3].map(|i| u64::from_le_bytes(chunks[i]))
}

/// A value, and where the byte behind it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) slot: Slot,
    pub(crate) next: usize,
}

/// The value that begins at `at`: a text without escapes, a number, or a word. None: it is something else, or not whole.
#[inline(always)]
pub(crate) fn value(text: &[u8], at: usize) -> Option<Value> {
    match *text.get(at)? {
        b'"' => {
            let end = plain(text, at + 1);
            (text.get(end) == Some(&b'"')).then(|| Value { slot: Slot::new(Kind::Text, at + 1, end), next: end + 1 })
        }
        b'-' | b'0'..=b'9' => {
            let end = number(text, at)?;
            Some(Value { slot: Slot::new(Kind::Number, at, end), next: end })
        }
        b't' => word(text, at, b"true", Kind::True),
        b'f' => word(text, at, b"false", Kind::False),
        b'n' => word(text, at, b"null", Kind::Null),
        _ => None,
    }
}

fn word(text: &[u8], at: usize, word: &[u8], kind: Kind) -> Option<Value> {
    let end = at + word.len();
    (text.get(at..end) == Some(word)).then(|| Value { slot: Slot::new(kind, at, end), next: end })
}

/// Behind the digits from `at` on.
#[inline(always)]
fn digits(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The end of a number without an exponent that begins at `at`.
#[inline(always)]
fn number(text: &[u8], at: usize) -> Option<usize> {
    let first = at + usize::from(text.get(at) == Some(&b'-'));
    match short_number(text, first) {
        Some(Short { length, is_it: true, .. }) => Some(first + length as usize),
        Some(_) => None,
        None => long_number(text, first),
    }
}

/// The number that begins at `at`, read at so many decimals. None: it is something else, or takes a longer way.
#[inline(always)]
pub(crate) fn fixed(text: &[u8], at: usize, decimals: u32) -> Option<Value> {
    let negative = text.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let Short { bytes, length, points, is_it: true } = short_number(text, first)? else { return None };
    let value = fixed::short(bytes, length, points, decimals)?;
    let value = if negative { -value } else { value };
    Some(Value { slot: Slot::of_fixed(value), next: first + length as usize })
}

/// What stands where a number is expected behind its sign, up to the first byte that is neither a digit nor a point.
struct Short<'a> {
    bytes: &'a [u8; scan::WIDE],
    /// Below [`scan::WIDE`].
    length: u32,
    points: u32,
    /// A number without an exponent.
    is_it: bool,
}

/// None: it is long, or stands at the end of the text.
#[inline(always)]
fn short_number(text: &[u8], first: usize) -> Option<Short<'_>> {
    let bytes = text.get(first..)?.first_chunk::<{ scan::WIDE }>()?;
    let (digits, points) = scan::digits_and_points(bytes);
    let length = (!(digits | points)).trailing_zeros();
    let behind = bytes.get(length as usize)?;
    let points = points & ((1 << length) - 1);
    let leading_zero = bytes[0] == b'0' && digits & 2 != 0;
    // A digit first and last, and at most one point. (Shifted by one more, so that no length is a case of its own.)
    let is_it = digits & 1 != 0
        && (digits << 1) >> length & 1 != 0
        && points & points.wrapping_sub(1) == 0
        && !leading_zero
        && !matches!(behind, b'e' | b'E');
    Some(Short { bytes, length, points, is_it })
}

/// The same, digit by digit, of one that is long or stands at the end of the text, as many a record's last value does;
/// `first` is behind its sign.
fn long_number(text: &[u8], first: usize) -> Option<usize> {
    let mut end = digits(text, first);
    let leading = text.get(first) == Some(&b'0') && end > first + 1;
    if end == first || leading {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(text, fraction);
        if end == fraction {
            return None;
        }
    }
    (!matches!(text.get(end), Some(b'e' | b'E'))).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Scanner;
    use proptest::prelude::*;

    fn near_json() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "\"", "a", "ä", "\\n", "\\", "\u{1}", "0", "12", "-", ".", "e", "E+1", "true", "null", "false", "nul", ",",
            "}", " ", "[", "{",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// What is taken here the scanner takes as well, as the same value and to the same end.
        #[test]
        fn what_is_taken_is_what_the_scanner_takes(text in near_json()) {
            if let Some(found) = value(text.as_bytes(), 0) {
                let mut scanner = Scanner::new(&text);
                let token = scanner.value(1).unwrap();
                prop_assert_eq!(Slot::from(token), found.slot);
                prop_assert_eq!(scanner.position(), found.next);
            }
        }

        /// Plain values are taken.
        #[test]
        fn plain_values_are_taken(text in "[a-zä ]{0,40}", number in any::<i32>(), fraction in "[0-9]{1,9}") {
            for json in [format!("\"{text}\","), format!("{number},"), format!("{number}.{fraction},"), "null,".into()] {
                prop_assert_eq!(value(json.as_bytes(), 0).map(|v| v.next), Some(json.len() - 1));
            }
        }

        /// What is read at once is what the scanner's number is read as.
        #[test]
        fn what_is_read_at_once_is_the_number(text in near_json(), number in "-?[0-9]{1,9}(\\.[0-9]{1,9})?[,e} ]{1,20}") {
            for (text, decimals) in [(&text, 3), (&number, 0), (&number, 2), (&number, 9)] {
                let Some(found) = fixed(text.as_bytes(), 0, decimals) else { continue };
                let value = value(text.as_bytes(), 0).unwrap();
                prop_assert_eq!((value.slot.kind, value.next), (Kind::Number, found.next));
                let read = crate::fixed::parse_decimal(value.slot.text(text).as_bytes(), decimals);
                prop_assert_eq!(Ok(found.slot.fixed()), read);
            }
        }

        /// So is most of it.
        #[test]
        fn numbers_are_read_at_once(number in -99_999_999i32..99_999_999, fraction in "[0-9]{1,5}") {
            for text in [format!("{number},\"key\":\"value\""), format!("{number}.{fraction},\"key\":\"value\"")] {
                prop_assert!(fixed(text.as_bytes(), 0, 3).is_some(), "{}", text);
            }
        }

        /// A key is found where it stands, and nowhere else.
        #[test]
        fn a_token_is_its_key(key in "[a-z_]{0,31}", other in "[a-z_]{0,31}", before in "[a-z]{0,3}", rest in "[0-9]{0,40}") {
            let token = Token::new(&key, true);
            let text = format!("{before}\"{other}\":{rest}");
            let found = token.behind(text.as_bytes(), before.len());
            let is_it = key == other && key.len() + 3 <= WIDTH;
            prop_assert_eq!(found, is_it.then(|| before.len() + other.len() + 3));
        }
    }
}
