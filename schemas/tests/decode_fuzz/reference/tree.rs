//! A document as serde_json reads it. Numbers keep their text, objects all their members in order.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Containers that may be open at once. (serde_json has 127 by default; the limit is ours.)
const MAX_DEPTH: u32 = 128;

#[derive(Clone, Debug)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// As it stands in the record.
    Number(&'a str),
    /// As it stands in the record, with its quotes; and what it means.
    Text(&'a str, String),
    /// The whole text of it, and its members.
    Object(&'a str, Vec<Member<'a>>),
    Array(Vec<Node<'a>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    raw: &'a str,
    pub(crate) key: String,
    pub(crate) value: Node<'a>,
}

/// The members of an object, unread.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(key) = map.next_key()? {
                    members.push((key, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// Reads a whole document; None where it is no JSON.
pub(crate) fn parse(text: &str) -> Option<Node<'_>> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    node(raw.get(), 0)
}

/// Whether the tree is what serde_json's own `Value` is, and there is none where that is none.
pub(crate) fn is_faithful(text: &str) -> bool {
    match (serde_json::from_str::<Value>(text), parse(text)) {
        (Ok(value), Some(node)) => node.value() == Some(value),
        (Ok(_), None) => false,
        (Err(_), None) => true,
        (Err(e), Some(_)) => {
            let problem = e.to_string();
            problem.contains("number out of range") || problem.contains("recursion limit exceeded")
        }
    }
}

/// `depth` containers are open around it.
fn node(raw: &str, depth: u32) -> Option<Node<'_>> {
    let opens = matches!(raw.as_bytes().first(), Some(b'{' | b'['));
    if opens && depth >= MAX_DEPTH {
        return None;
    }
    Some(match raw.as_bytes().first()? {
        b'n' => Node::Null,
        b't' => Node::Bool(true),
        b'f' => Node::Bool(false),
        b'"' => Node::Text(raw, serde_json::from_str(raw).ok()?),
        b'{' => {
            let Members(members) = serde_json::from_str(raw).ok()?;
            let mut read = Vec::with_capacity(members.len());
            for (key, value) in members {
                let (raw, key) = (key.get(), serde_json::from_str(key.get()).ok()?);
                read.push(Member { raw, key, value: node(value.get(), depth + 1)? });
            }
            Node::Object(raw, read)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            Node::Array(items.into_iter().map(|item| node(item.get(), depth + 1)).collect::<Option<_>>()?)
        }
        _ => Node::Number(raw),
    })
}

impl Node<'_> {
    /// The value below a key: of equal keys the last one's.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Node::Object(_, members) => members.iter().rev().find(|m| m.key == key).map(|m| &m.value),
            _ => None,
        }
    }

    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        match self {
            Node::Array(items) => items.get(index),
            _ => None,
        }
    }

    /// None: a number beyond the doubles.
    fn value(&self) -> Option<Value> {
        Some(match self {
            Node::Null => Value::Null,
            Node::Bool(b) => Value::Bool(*b),
            Node::Number(raw) => serde_json::from_str(raw).ok()?,
            Node::Text(_, text) => Value::String(text.clone()),
            Node::Object(_, members) => {
                let member = |m: &Member<'_>| Some((m.key.clone(), m.value.value()?));
                Value::Object(members.iter().map(member).collect::<Option<_>>()?)
            }
            Node::Array(items) => Value::Array(items.iter().map(Node::value).collect::<Option<_>>()?),
        })
    }

    /// Appends it as it stands in the record, without the white space between its tokens.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Node::Null => out.push_str("null"),
            Node::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Node::Number(raw) | Node::Text(raw, _) => out.push_str(raw),
            Node::Object(_, members) => {
                out.push('{');
                for (i, member) in members.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    out.push_str(member.raw);
                    out.push(':');
                    member.value.write(out);
                }
                out.push('}');
            }
            Node::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
        }
    }
}
