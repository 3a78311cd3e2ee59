//! The scanner against serde_json: the same verdict and the same values.

use drivetrain_schemas::json::{self, JsonError, Kind, MAX_DEPTH, Scanner, Token};
use proptest::prelude::*;
use serde_json::{Map, Value};

/// Builds a value with the scanner's pulling interface; duplicate keys: the last one wins.
fn build(text: &str) -> Result<Value, JsonError> {
    fn value(s: &mut Scanner<'_>, text: &str, depth: u32) -> Result<Value, JsonError> {
        match s.peek() {
            b'{' => {
                let mut map = Map::new();
                let mut more = s.open(b'{', b'}')?;
                while more {
                    let key = s.member()?;
                    map.insert(json::unescape(&text[key.start..key.end]).into_owned(), value(s, text, depth + 1)?);
                    more = s.next(b'}')?;
                }
                Ok(Value::Object(map))
            }
            b'[' => {
                let mut list = Vec::new();
                let mut more = s.open(b'[', b']')?;
                while more {
                    list.push(value(s, text, depth + 1)?);
                    more = s.next(b']')?;
                }
                Ok(Value::Array(list))
            }
            _ => s.value(depth).map(|t| scalar(t, text)),
        }
    }
    let mut s = Scanner::new(text);
    let built = value(&mut s, text, 0)?;
    s.finish()?;
    Ok(built)
}

fn scalar(t: Token, text: &str) -> Value {
    let span = &text[t.start..t.end];
    match t.kind {
        Kind::Null => Value::Null,
        Kind::True => true.into(),
        Kind::False => false.into(),
        Kind::Text => {
            assert!(!span.contains('\\'));
            span.into()
        }
        Kind::Escaped => json::unescape(span).into(),
        Kind::Number => serde_json::from_str(span).unwrap_or_else(|_| Value::String(format!("number {span}"))),
        Kind::Object | Kind::Array => unreachable!("read by steps"),
    }
}

/// serde_json calls numbers beyond the doubles wrong; RFC 8259 does not.
fn agree(text: &str) -> Result<(), TestCaseError> {
    let ours = build(text);
    let whole = json::validate(text.as_bytes());
    prop_assert_eq!(whole.is_ok(), ours.is_ok(), "{:?}: {:?} {:?}", text, &ours, whole);
    match (serde_json::from_str::<Value>(text), ours) {
        (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
        (Err(a), Ok(_)) => prop_assert!(a.to_string().contains("out of range"), "{text:?}: only serde_json fails: {a}"),
        (Ok(_), Err(b)) => prop_assert!(false, "{:?}: only we fail: {}", text, b),
        (Err(_), Err(b)) => prop_assert!(b.offset <= text.len()),
    }
    Ok(())
}

fn documents() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "[a-z]{0,12}",
        "\\PC{0,9}",
        r#"([a-z"]|\\n|\\"|\\\\|\\/|\\u00e9|\\u0000|\\ud83d\\ude00|\\ud83d|\\ude00|\\u12|\\x|[\x00-\x1f]){0,10}"#
    ]
    .prop_map(|s| format!("\"{s}\""));
    let number = "-?(0|[1-9][0-9]{0,20}|0[0-9])(\\.[0-9]{0,4})?([eE][+-]?[0-9]{0,3})?";
    let leaf = prop_oneof![string.clone(), number, "null|true|false|nul|True|NaN| |"];
    let space = "[ \t\n\r]{0,2}";
    leaf.prop_recursive(5, 40, 5, move |inner| {
        let pair = (string.clone(), space, inner.clone()).prop_map(|(k, s, v)| format!("{s}{k}{s}:{s}{v}"));
        prop_oneof![
            (proptest::collection::vec(inner, 0..5), space).prop_map(|(v, s)| format!("[{s}{}{s}]", v.join(","))),
            proptest::collection::vec(pair, 0..5).prop_map(|v| format!("{{{}}}", v.join(", "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn documents_agree(text in documents()) {
        agree(&text)?;
    }

    /// One character removed, doubled or replaced.
    #[test]
    fn damaged_documents_agree(text in documents(), at in any::<prop::sample::Index>(), with in "[\\[\\]{},:\"\\\\0-9a-f .\u{e9}]?") {
        let mut chars: Vec<char> = text.chars().collect();
        if !chars.is_empty() {
            let i = at.index(chars.len());
            match with.chars().next() {
                Some(c) => chars[i] = c,
                None => { chars.remove(i); }
            }
        }
        agree(&chars.into_iter().collect::<String>())?;
    }

    #[test]
    fn quoting_is_undone_by_unescaping(text in "\\PC{0,12}|[\\x00-\\x7f]{0,20}") {
        let mut quoted = String::new();
        json::quote(&text, &mut quoted);
        prop_assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text.clone());
        prop_assert_eq!(json::unescape(&quoted[1..quoted.len() - 1]), text);
    }

    #[test]
    fn compacting_keeps_the_value(text in documents()) {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let mut compact = String::new();
            json::compact(&text, &mut compact);
            prop_assert_eq!(serde_json::from_str::<Value>(&compact).unwrap(), value);
        }
    }
}

#[test]
fn nesting_is_limited() {
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(json::validate(nested(MAX_DEPTH as usize).as_bytes()).is_ok());
    let error = json::validate(nested(MAX_DEPTH as usize + 1).as_bytes()).unwrap_err();
    assert_eq!((error.offset, error.problem), (MAX_DEPTH as usize, "nested deeper than 128"));
    let mixed = format!("{}1{}", "{\"a\":[".repeat(60), "]}".repeat(60));
    assert!(json::validate(mixed.as_bytes()).is_ok());
    assert!(json::validate("{\"a\":[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn bytes_that_are_not_utf8() {
    assert_eq!(json::validate(b"\"a\xff\"").unwrap_err().offset, 2);
    assert_eq!(json::validate(b"\"\xed\xa0\x80\"").unwrap_err().offset, 1);
}
