//! The head of a line of a local topic, read without reading its value: a restart reads millions of them.

use std::borrow::Cow;

/// What a line says before its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) epoch: i64,
    /// Of keyed lines.
    pub(super) key: Option<Cow<'a, str>>,
    /// The key ends with it.
    pub(super) ends: bool,
}

/// Reads `{"epoch":5,"key":"d1","value":…}` (keyed) or `{"epoch":5,…}`, as the writer writes them; `None` for anything
/// else.
pub(super) fn head(line: &[u8], keyed: bool) -> Option<Head<'_>> {
    let rest = line.strip_prefix(b"{\"epoch\":")?;
    let digits = rest.iter().position(|b| *b == b',')?;
    let epoch = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let rest = rest[digits + 1..].strip_suffix(b"}")?;
    if !keyed {
        return Some(Head { epoch, key: None, ends: false });
    }
    let rest = rest.strip_prefix(b"\"key\":\"")?;
    let mut escaped = false;
    let mut end = 0;
    while *rest.get(end)? != b'"' {
        let backslash = rest[end] == b'\\';
        escaped |= backslash;
        end += if backslash { 2 } else { 1 };
    }
    let (key, rest) = rest.split_at(end);
    let key = if escaped {
        let quoted = [b"\"", key, b"\""].concat();
        Cow::Owned(serde_json::from_slice::<String>(&quoted).ok()?)
    } else {
        Cow::Borrowed(std::str::from_utf8(key).ok()?)
    };
    let value = rest.strip_prefix(b"\",\"value\":")?;
    let whole = value == b"null" || (value.starts_with(b"{") && value.ends_with(b"}"));
    whole.then_some(Head { epoch, key: Some(key), ends: value == b"null" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_lines_and_of_what_is_none() {
        let of = |line: &str| head(line.as_bytes(), true).map(|h| (h.epoch, h.key.unwrap().into_owned(), h.ends));
        let is = |epoch, key: &str, ends| Some((epoch, key.to_string(), ends));
        assert_eq!(of(r#"{"epoch":5,"key":"d1","value":{"a":"}"}}"#), is(5, "d1", false));
        assert_eq!(of(r#"{"epoch":-1,"key":"","value":null}"#), is(-1, "", true));
        assert_eq!(of(r#"{"epoch":5,"key":"a\"\\\u00e9\\","value":{}}"#), is(5, "a\"\\é\\", false));
        let line = r#"{"epoch":5,"key":"d\"1","value":{"a":1}}"#;
        assert!((0..line.len()).all(|n| of(&line[..n]).is_none()), "no beginning of a line is one");
        for line in ["", "{}", r#"{"epoch":x,"key":"a","value":null}"#, r#"{"epoch":5,"headers":{}}"#] {
            assert_eq!(of(line), None, "{line}");
        }
        let letter = head(br#"{"epoch":7,"headers":{"key":"x"},"payload_base64":null}"#, false);
        assert_eq!(letter, Some(Head { epoch: 7, key: None, ends: false }));
    }
}
