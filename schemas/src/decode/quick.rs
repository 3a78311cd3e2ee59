//! The short way through a record: a key that was expected, and behind it a plain value, with at most one space before each.
//!
//! Whatever is unusual (more white space, escapes, containers, an error) is left to the scanner, which sees it from its
//! beginning. So there is nothing here that decides what is JSON: what is taken here, the scanner would take as well.
//!
//! Wherever one stands in a record, a [`Window`] of bytes can be looked at without asking how many there are ([`Reach`]): behind
//! its end are zeros, which end whatever runs over it. What matters is how long one has to wait for the next member's place, since
//! all else can be done meanwhile: so nothing that is known before is made to depend on bytes that are still to be read.

use super::frame::{Kind, Slot};
use crate::fixed;
use crate::json::plain;
use crate::scan::{self, WIDE};
use std::num::NonZeroUsize;

/// Bytes of a key that are compared at once: the longest that is looked for in this way, with its quotes and colon.
const KEY: usize = 32;
/// Bytes that can be looked at from any place of a record: a key, a space before it and behind it, and the beginning of a
/// value.
const WINDOW: usize = 96;

pub(crate) type Window = [u8; WINDOW];

/// A record of JSON, and its last bytes once more with zeros behind them.
#[derive(Clone, Debug)]
pub(crate) struct Reach<'a> {
    text: &'a [u8],
    /// From here on, [`Reach::tail`] is to be read.
    near_end: usize,
    tail: [u8; 2 * WINDOW],
}

impl<'a> Reach<'a> {
    #[inline]
    pub(crate) fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        let mut tail = [0; 2 * WINDOW];
        match text.last_chunk::<WINDOW>() {
            Some(last) => tail[..WINDOW].copy_from_slice(last),
            None => tail[..text.len()].copy_from_slice(text),
        }
        Reach { text, near_end: text.len().saturating_sub(WINDOW), tail }
    }

    /// The bytes from `at` on. None: it is not in the record.
    #[inline(always)]
    fn window(&self, at: usize) -> Option<&Window> {
        if at < self.near_end {
            self.text.get(at..)?.first_chunk()
        } else {
            self.tail.get(at - self.near_end..)?.first_chunk()
        }
    }
}

/// `"key":`, to be compared with a place of a record without a loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Token {
    /// Its bytes, and which of them count.
    bytes: [u8; KEY],
    mask: [u8; KEY],
    /// One less than they are.
    less: u8,
}

impl Token {
    /// `plain`: the key stands in JSON as it is. Else, and if it is too long, it is found nowhere.
    pub(crate) fn new(key: &str, plain: bool) -> Self {
        let text = format!("\"{key}\":");
        let (mut bytes, mut mask) = ([0u8; KEY], [0u8; KEY]);
        if !plain || text.len() > KEY {
            // What does not count is never 1.
            return Token { bytes: [1; KEY], mask, less: 0 };
        }
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        mask[..text.len()].fill(0xff);
        Token { bytes, mask, less: text.len() as u8 - 1 }
    }

    /// Whether the key stands in the window, first.
    #[inline(always)]
    fn is_in(&self, window: &Window) -> bool {
        window.first_chunk().is_some_and(|there| scan::is(there, &self.mask, &self.bytes))
    }

    /// Its bytes; at most [`KEY`], which the compiler is told in this way.
    #[inline(always)]
    fn len(&self) -> usize {
        usize::from(self.less & 0x1f) + 1
    }
}

/// The form of an object: how many spaces stand behind each colon and comma, 0 or 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spaces(usize);

impl Spaces {
    /// By the first member that is read quickly, which has this key. None: it stands elsewhere.
    #[inline(always)]
    pub(crate) fn seen(reach: &Reach<'_>, at: usize, token: &Token) -> Option<(Self, usize)> {
        let window = reach.window(at)?;
        let before = usize::from(window[0] == b' ');
        Some((Spaces(usize::from(window[before + token.len()] == b' ')), at + before))
    }
}

/// A member's value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    pub(crate) slot: Slot,
    /// Where in the record the next member is expected, and whether there is none.
    pub(crate) next: usize,
    pub(crate) last: bool,
}

/// A member, which begins at `at`: its key is to be `token`, its value is a text without escapes, a number (read at so many
/// decimals, if they are given and it fits), or a word. None: it is something else.
#[inline(always)]
pub(crate) fn member(
    reach: &Reach<'_>,
    at: usize,
    Spaces(spaces): Spaces,
    token: &Token,
    decimals: Option<u32>,
) -> Option<Value> {
    let window = reach.window(at)?;
    if !token.is_in(window) {
        return None;
    }
    let from = token.len() + (spaces & 1);
    if spaces != 0 && window[from - 1] != b' ' {
        return None;
    }
    // `-./0123456789`; what begins with one of the first three and is no number is none to `number`, either. (Ends and not
    // whole values are handed on, because those would go through memory, and everything after would wait for them.)
    let (slot, end) = match window[from] {
        b'"' => {
            let end = end_of_text(reach, at, window, from + 1)?.get();
            (Slot::new(Kind::Text, at + from + 1, end), end + 1)
        }
        b'-'..=b'9' => {
            let number = number(reach, at, window, from, decimals)?;
            let end = number.end.get();
            match number.value {
                Some(value) => (Slot::of_fixed(value), end),
                None => (Slot::new(Kind::Number, at + from, end), end),
            }
        }
        first => {
            let (kind, word) = match first {
                b't' => (Kind::True, &b"true"[..]),
                b'f' => (Kind::False, &b"false"[..]),
                _ => (Kind::Null, &b"null"[..]),
            };
            let end = at + from + word.len();
            (Slot::new(kind, at + from, end), if window[from..].starts_with(word) { end } else { return None })
        }
    };
    let follows = match end.checked_sub(at).and_then(|behind| window.get(behind)) {
        Some(follows) => *follows,
        None => *reach.text.get(end)?,
    };
    match follows {
        b'}' => Some(Value { slot, next: end + 1, last: true }),
        b',' if spaces == 0 => Some(Value { slot, next: end + 1, last: false }),
        b',' => (reach.text.get(end + 1) == Some(&b' ')).then_some(Value { slot, next: end + 2, last: false }),
        _ => None,
    }
}

/// Where the quote stands that ends the text from `from` on. None: there is an escape, or what may not be there.
#[inline(always)]
fn end_of_text(reach: &Reach<'_>, at: usize, window: &Window, from: usize) -> Option<NonZeroUsize> {
    for step in [0, WIDE] {
        let ends = scan::ends(window[from + step..].first_chunk()?);
        if ends != 0 {
            let end = from + step + ends.trailing_zeros() as usize;
            return NonZeroUsize::new(at + end).filter(|_| window[end] == b'"');
        }
    }
    end_of_long_text(reach.text, at + from)
}

#[inline(never)]
fn end_of_long_text(record: &[u8], start: usize) -> Option<NonZeroUsize> {
    let end = plain(record, start);
    NonZeroUsize::new(end).filter(|_| record.get(end) == Some(&b'"'))
}

/// A number, read or not, and the byte behind it.
struct Number {
    value: Option<i64>,
    end: NonZeroUsize,
}

/// A number without an exponent.
#[inline(always)]
fn number(reach: &Reach<'_>, at: usize, window: &Window, from: usize, decimals: Option<u32>) -> Option<Number> {
    let negative = window[from] == b'-';
    let (digits, points) = scan::digits_and_points(window[from..].first_chunk()?);
    let whole = (!(digits | points | u32::from(negative))).trailing_zeros();
    if whole >= WIDE as u32 {
        return Some(Number { value: None, end: end_of_long_number(reach.text, at + from)? });
    }
    // Of what is behind the sign: a digit first and last, and at most one point.
    let (digits, points) = (digits >> u32::from(negative), points >> u32::from(negative));
    let length = whole - u32::from(negative);
    let points = points & ((1 << length) - 1);
    let first = from + usize::from(negative);
    let leading_zero = window[first] == b'0' && digits & 2 != 0;
    // (Shifted by one more, so that no length is a case of its own.)
    if digits & 1 == 0 || (digits << 1) >> length & 1 == 0 || points & points.wrapping_sub(1) != 0 || leading_zero {
        return None;
    }
    let read = match decimals {
        Some(decimals) => fixed::short(window[first..].first_chunk()?, length, points, decimals),
        None => None,
    };
    let value = read.map(|value| if negative { -value } else { value });
    Some(Number { value, end: NonZeroUsize::new(at + from + whole as usize)? })
}

/// The same of one that is long, digit by digit.
#[inline(never)]
fn end_of_long_number(record: &[u8], start: usize) -> Option<NonZeroUsize> {
    let first = start + usize::from(record.get(start) == Some(&b'-'));
    let mut end = digits(record, first);
    let leading = record.get(first) == Some(&b'0') && end > first + 1;
    if end == first || leading {
        return None;
    }
    if record.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits(record, fraction);
        if end == fraction {
            return None;
        }
    }
    NonZeroUsize::new(end)
}

/// Behind the digits from `at` on.
fn digits(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
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

    fn taken(key: &str, spaces: usize, text: &str, decimals: Option<u32>) -> Option<Value> {
        member(&Reach::new(text), 0, Spaces(spaces), &Token::new(key, true), decimals)
    }

    proptest! {
        /// From each place of a record its bytes can be looked at, and zeros behind them.
        #[test]
        fn a_window_is_what_stands_there(text in "[a-z]{0,300}") {
            let reach = Reach::new(&text);
            for at in 0..=text.len() {
                let expected: Vec<u8> = text.bytes().skip(at).chain([0; WINDOW]).take(WINDOW).collect();
                prop_assert_eq!(reach.window(at).map(|window| window.as_slice()), Some(expected.as_slice()));
            }
            prop_assert_eq!(reach.window(text.len() + WINDOW + 1), None);
        }

        /// What is taken here the scanner takes as well, as the same value and to the same end.
        #[test]
        fn what_is_taken_is_what_the_scanner_takes(value in near_json(), end in "(, |,|})?", spaces in 0usize..2) {
            let text = format!("{{\"k\":{}{value}{end}", " ".repeat(spaces));
            if let Some(found) = member(&Reach::new(&text), 1, Spaces(spaces), &Token::new("k", true), None) {
                let mut scanner = Scanner::at(&text, 5 + spaces);
                let token = scanner.value(1).unwrap();
                prop_assert_eq!(Slot::from(token), found.slot);
                prop_assert_eq!(scanner.next(b'}'), Ok(!found.last));
                prop_assert_eq!(scanner.position() + if found.last { 0 } else { spaces }, found.next);
            }
        }

        /// Plain values are taken.
        #[test]
        fn plain_values_are_taken(text in "[a-zä ]{0,90}", number in any::<i32>(), fraction in "[0-9]{1,19}", spaces in 0usize..2) {
            for value in [format!("\"{text}\""), format!("{number}"), format!("{number}.{fraction}"), "null".into()] {
                let space = " ".repeat(spaces);
                let json = format!("\"key\":{space}{value},{space}");
                prop_assert_eq!(taken("key", spaces, &json, None).map(|v| (v.next, v.last)), Some((json.len(), false)));
                let json = format!("\"key\":{space}{value}}}");
                prop_assert_eq!(taken("key", spaces, &json, None).map(|v| (v.next, v.last)), Some((json.len(), true)));
            }
        }

        /// What is read at once is what the scanner's number is read as.
        #[test]
        fn what_is_read_at_once_is_the_number(text in near_json(), number in "-?[0-9]{1,9}(\\.[0-9]{1,9})?[,e} ]{1,20}") {
            for (text, decimals) in [(&text, 3), (&number, 0), (&number, 2), (&number, 9)] {
                let text = format!("\"\":{text}");
                let found = taken("", 0, &text, Some(decimals)).filter(|found| found.slot.kind == Kind::Fixed);
                let Some(found) = found else { continue };
                let value = taken("", 0, &text, None).unwrap();
                prop_assert_eq!((value.slot.kind, value.next), (Kind::Number, found.next));
                let read = crate::fixed::parse_decimal(value.slot.text(&text).as_bytes(), decimals);
                prop_assert_eq!(Ok(found.slot.fixed()), read);
            }
        }

        /// So is most of it.
        #[test]
        fn numbers_are_read_at_once(number in -99_999_999i32..99_999_999, fraction in "[0-9]{1,5}") {
            for text in [format!("\"\":{number},\"key\":\"value\""), format!("\"\":{number}.{fraction}}}")] {
                let found = taken("", 0, &text, Some(3)).map(|found| found.slot.kind);
                prop_assert_eq!(found, Some(Kind::Fixed), "{}", text);
            }
        }

        /// A key is found where it stands, and nowhere else; and what is between it and its value is seen.
        #[test]
        fn a_token_is_its_key(key in "[a-z_]{0,31}", other in "[a-z_]{0,31}", before in " ?", spaces in 0usize..2, rest in "[0-9]{0,40}") {
            let text = format!("{before}\"{other}\":{}{rest}", " ".repeat(spaces));
            let (reach, token) = (Reach::new(&text), Token::new(&key, true));
            let is_it = key == other && key.len() + 3 <= KEY;
            prop_assert_eq!(token.is_in(reach.window(before.len()).unwrap()), is_it);
            if is_it {
                prop_assert_eq!(token.len(), key.len() + 3);
                let (Spaces(seen), at) = Spaces::seen(&reach, 0, &token).unwrap();
                prop_assert_eq!((seen, at), (spaces, before.len()));
            }
        }
    }
}
