//! A strict RFC 8259 scanner: it validates while it walks and hands out spans of the text, so that a plain string or
//! a number costs no allocation. Nesting is limited to [`MAX_DEPTH`]; a number keeps its text; an unpaired surrogate
//! escape is an error, as it has no UTF-8 form. Duplicate keys are left to the caller.

use crate::scan;
use std::borrow::Cow;
use thiserror::Error;

/// Containers that may be open at once.
pub const MAX_DEPTH: u32 = 128;

/// Where and why a text is no JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not JSON at byte {offset}: {problem}")]
pub struct JsonError {
    /// Bytes from the start of the text.
    pub offset: usize,
    pub problem: &'static str,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    Number,
    /// A string without escapes: its span is its value.
    Text,
    /// A string with escapes; see [`unescape`].
    Escaped,
    Object,
    Array,
}

/// A value's kind and span in bytes; of strings without the quotes, of containers with the brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// Walks over one text.
///
/// ```
/// # use drivetrain_schemas::json::{Kind, Scanner};
/// let text = r#"{"a": 1.50}"#;
/// let mut s = Scanner::new(text);
/// assert!(s.open(b'{', b'}')?);
/// let key = s.member()?;
/// assert_eq!(&text[key.start..key.end], "a");
/// let value = s.value(1)?;
/// assert_eq!((value.kind, &text[value.start..value.end]), (Kind::Number, "1.50"));
/// assert!(!s.next(b'}')?);
/// s.finish()?;
/// # Ok::<(), drivetrain_schemas::json::JsonError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), pos: 0 }
    }

    /// Starts at byte `pos`, where a value begins.
    pub fn at(text: &'a str, pos: usize) -> Self {
        Self { bytes: text.as_bytes(), pos }
    }

    pub fn position(&self) -> usize {
        self.pos
    }

    /// Goes on at byte `pos`; what stands before it has been read otherwise.
    #[inline]
    pub(crate) fn jump(&mut self, pos: usize) {
        self.pos = pos;
    }

    fn error<T>(&self, problem: &'static str) -> Result<T, JsonError> {
        Err(JsonError { offset: self.pos, problem })
    }

    /// The byte at which the scanner stands; 0 at the end (which is no byte of JSON outside strings).
    #[inline]
    fn byte(&self) -> u8 {
        self.bytes.get(self.pos).copied().unwrap_or(0)
    }

    /// Skips white space; the byte at which it then stands, 0 at the end.
    #[inline]
    pub fn peek(&mut self) -> u8 {
        loop {
            match self.byte() {
                b' ' | b'\t' | b'\n' | b'\r' => self.pos += 1,
                b => return b,
            }
        }
    }

    /// Succeeds when only white space is left.
    pub fn finish(&mut self) -> Result<(), JsonError> {
        self.peek();
        if self.pos < self.bytes.len() { self.error("something follows the value") } else { Ok(()) }
    }

    /// Steps into a container at its opening bracket. False: it is empty and has been left again.
    #[inline]
    pub fn open(&mut self, open: u8, close: u8) -> Result<bool, JsonError> {
        if self.peek() != open {
            return self.error(if open == b'{' { "expected {" } else { "expected [" });
        }
        self.pos += 1;
        if self.peek() == close {
            self.pos += 1;
            return Ok(false);
        }
        Ok(true)
    }

    /// After a member or element: true at a comma, false behind the closing bracket.
    #[inline]
    pub fn next(&mut self, close: u8) -> Result<bool, JsonError> {
        let b = self.peek();
        if b == b',' {
            self.pos += 1;
            Ok(true)
        } else if b == close {
            self.pos += 1;
            Ok(false)
        } else if self.pos >= self.bytes.len() {
            self.error("it ends inside an object or array")
        } else {
            self.error(if close == b'}' { "expected , or }" } else { "expected , or ]" })
        }
    }

    /// A member's key and the colon behind it.
    #[inline]
    pub fn member(&mut self) -> Result<Token, JsonError> {
        if self.peek() != b'"' {
            return self.error("expected a key in double quotes");
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return self.error("expected : behind the key");
        }
        self.pos += 1;
        Ok(key)
    }

    /// Steps over a member's key and colon when the key is exactly `key`, which must contain nothing that JSON escapes.
    /// False: it is another, and nothing has been read but white space.
    #[inline]
    pub fn skip_member(&mut self, key: &str) -> bool {
        if self.peek() != b'"' {
            return false;
        }
        let end = self.pos + 1 + key.len();
        if self.bytes.get(self.pos + 1..end) != Some(key.as_bytes()) || self.bytes.get(end) != Some(&b'"') {
            return false;
        }
        let start = std::mem::replace(&mut self.pos, end + 1);
        if self.peek() != b':' {
            self.pos = start;
            return false;
        }
        self.pos += 1;
        true
    }

    /// One whole value, validated; `depth` containers are open around it.
    #[inline]
    pub fn value(&mut self, depth: u32) -> Result<Token, JsonError> {
        match self.peek() {
            b'{' | b'[' => self.container(depth),
            b => self.scalar(b),
        }
    }

    #[inline]
    fn scalar(&mut self, first: u8) -> Result<Token, JsonError> {
        match first {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true", Kind::True),
            b'f' => self.literal(b"false", Kind::False),
            b'n' => self.literal(b"null", Kind::Null),
            _ if self.pos >= self.bytes.len() => self.error("it ends where a value is expected"),
            _ => self.error("expected a value"),
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Token, JsonError> {
        let start = self.pos;
        let end = start + word.len();
        if self.bytes.get(start..end) != Some(word) {
            return self.error("expected a value");
        }
        self.pos = end;
        Ok(Token { kind, start, end })
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.pos;
        while self.byte().is_ascii_digit() {
            self.pos += 1;
        }
        self.pos - start
    }

    #[inline]
    fn number(&mut self) -> Result<Token, JsonError> {
        let start = self.pos;
        if self.byte() == b'-' {
            self.pos += 1;
        }
        let zero = self.byte() == b'0';
        match self.digits() {
            0 => return self.error("expected a digit"),
            1 => {}
            _ if zero => return self.error("a number has no leading zeros"),
            _ => {}
        }
        if self.byte() == b'.' {
            self.pos += 1;
            if self.digits() == 0 {
                return self.error("expected a digit behind the point");
            }
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.pos += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.pos += 1;
            }
            if self.digits() == 0 {
                return self.error("expected a digit in the exponent");
            }
        }
        Ok(Token { kind: Kind::Number, start, end: self.pos })
    }

    /// The scanner stands at the opening quote.
    #[inline]
    fn string(&mut self) -> Result<Token, JsonError> {
        self.pos += 1;
        let start = self.pos;
        let mut kind = Kind::Text;
        loop {
            self.pos = plain(self.bytes, self.pos);
            match self.bytes.get(self.pos) {
                Some(b'"') => {
                    let end = self.pos;
                    self.pos += 1;
                    return Ok(Token { kind, start, end });
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.escape()?;
                }
                Some(_) => return self.error("a control character in a string must be escaped"),
                None => return self.error("it ends inside a string"),
            }
        }
    }

    /// Checks one escape; the scanner stands at the backslash.
    #[cold]
    fn escape(&mut self) -> Result<(), JsonError> {
        match self.bytes.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 2,
            Some(b'u') => {
                let unit = self.hex(self.pos + 2)?;
                self.pos += 6;
                match unit {
                    0xD800..=0xDBFF => {
                        let pair =
                            self.bytes.get(self.pos) == Some(&b'\\') && self.bytes.get(self.pos + 1) == Some(&b'u');
                        if !pair || !matches!(self.hex(self.pos + 2)?, 0xDC00..=0xDFFF) {
                            return self.error("an unpaired surrogate is no character");
                        }
                        self.pos += 6;
                    }
                    0xDC00..=0xDFFF => return self.error("an unpaired surrogate is no character"),
                    _ => {}
                }
            }
            _ => return self.error("no such escape"),
        }
        Ok(())
    }

    fn hex(&self, at: usize) -> Result<u32, JsonError> {
        let digits = self.bytes.get(at..at + 4).and_then(hex4);
        digits.ok_or(JsonError { offset: self.pos, problem: "\\u needs four hexadecimal digits" })
    }

    /// A container as a whole, without recursion: one bit a level says whether it is an object.
    fn container(&mut self, depth: u32) -> Result<Token, JsonError> {
        let start = self.pos;
        let (mut level, mut objects) = (0u32, 0u128);
        loop {
            let b = self.peek();
            if b == b'{' || b == b'[' {
                let object = b == b'{';
                level += 1;
                if depth + level > MAX_DEPTH {
                    return self.error("nested deeper than 128");
                }
                objects = objects << 1 | u128::from(object);
                if self.open(b, if object { b'}' } else { b']' })? {
                    if object {
                        self.member()?;
                    }
                    continue;
                }
                objects >>= 1;
                level -= 1;
            } else {
                self.scalar(b)?;
            }
            loop {
                if level == 0 {
                    let kind = if self.bytes.get(start) == Some(&b'{') { Kind::Object } else { Kind::Array };
                    return Ok(Token { kind, start, end: self.pos });
                }
                let object = objects & 1 == 1;
                if self.next(if object { b'}' } else { b']' })? {
                    if object {
                        self.member()?;
                    }
                    break;
                }
                objects >>= 1;
                level -= 1;
            }
        }
    }
}

/// The next quote, backslash or control character from `at` on, or the end; eight bytes at a time.
#[inline(always)]
pub(crate) fn plain(text: &[u8], mut at: usize) -> usize {
    while let Some(bytes) = text.get(at..).and_then(|rest| rest.first_chunk::<{ scan::WIDE }>()) {
        let found = scan::ends(bytes);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += scan::WIDE;
    }
    while text.get(at).is_some_and(|b| !matches!(b, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |n, b| Some(n << 4 | (*b as char).to_digit(16)?))
}

/// The characters of a string that the scanner has validated (span without quotes).
pub fn unescape(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find('\\') else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut slash = Some(first);
    while let Some(at) = slash {
        let (plain, escape) = rest.split_at(at);
        out.push_str(plain);
        let (c, used) = one_escape(escape.as_bytes());
        out.push(c);
        rest = escape.get(used..).unwrap_or("");
        slash = rest.find('\\');
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The character of an escape and the bytes it takes.
fn one_escape(escape: &[u8]) -> (char, usize) {
    let unit = |at: usize| escape.get(at..at + 4).and_then(hex4).unwrap_or(0xFFFD);
    match escape.get(1) {
        Some(b'b') => ('\u{8}', 2),
        Some(b'f') => ('\u{c}', 2),
        Some(b'n') => ('\n', 2),
        Some(b'r') => ('\r', 2),
        Some(b't') => ('\t', 2),
        Some(b'u') => {
            let high = unit(2);
            if (0xD800..0xDC00).contains(&high) {
                let code = 0x10000 + ((high - 0xD800) << 10) + (unit(8).wrapping_sub(0xDC00) & 0x3FF);
                return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
            }
            (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
        }
        Some(b) => (*b as char, 2),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// Appends `text` as a JSON string with its quotes.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (i, b) in text.bytes().enumerate() {
        let short = match b {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x8 => "\\b",
            0xC => "\\f",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(text.get(from..i).unwrap_or(""));
        if short.is_empty() {
            out.push_str("\\u00");
            out.extend([b >> 4, b & 15].map(|d| char::from_digit(u32::from(d), 16).unwrap_or('0')));
        } else {
            out.push_str(short);
        }
        from = i + 1;
    }
    out.push_str(text.get(from..).unwrap_or(""));
    out.push('"');
}

/// Appends a validated JSON value without the white space between its tokens.
pub fn compact(value: &str, out: &mut String) {
    let (mut inside, mut escaped, mut from) = (false, false, 0);
    for (i, b) in value.bytes().enumerate() {
        if inside {
            inside = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
        } else if b == b'"' {
            inside = true;
        } else if matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
            out.push_str(value.get(from..i).unwrap_or(""));
            from = i + 1;
        }
    }
    out.push_str(value.get(from..).unwrap_or(""));
}

/// Validates bytes as one JSON value; its token in the text.
///
/// # Errors
/// [`JsonError`], also for bytes that are not UTF-8.
pub fn validate(bytes: &[u8]) -> Result<(&str, Token), JsonError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| JsonError { offset: e.valid_up_to(), problem: "the bytes are not UTF-8" })?;
    let mut scanner = Scanner::new(text);
    let token = scanner.value(0)?;
    scanner.finish()?;
    Ok((text, token))
}
