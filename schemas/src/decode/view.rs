//! A record as the rules see it: the element first, then its parent, and the record's circumstances.

use super::Record;
use super::frame::{Frame, Kind, Slot};
use super::path::Where;
use crate::json;
use std::borrow::Cow;

/// Longest id in bytes.
pub(crate) const MAX_ID: usize = 256;

/// A value, not yet interpreted.
#[derive(Clone, Debug)]
pub(crate) enum Raw<'a> {
    Missing,
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    /// Number, boolean or text, whatever is asked for.
    Cell(&'a str),
    Micros(i64),
    /// µs of a wall clock.
    LocalMicros(i64),
    Container(&'a str),
}

impl Raw<'_> {
    /// For messages: what stood there.
    pub(crate) fn show(&self) -> String {
        match self {
            Raw::Missing => "nothing".into(),
            Raw::Null => "null".into(),
            Raw::Bool(b) => b.to_string(),
            Raw::Number(n) => clip(n).into(),
            Raw::Text(t) => format!("{:?}", clip(t)),
            Raw::Cell(t) => format!("{:?}", clip(t)),
            Raw::Micros(t) | Raw::LocalMicros(t) => crate::time::format_rfc3339(*t),
            Raw::Container(t) => clip(t).into(),
        }
    }
}

/// At most 80 bytes of a text.
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(80);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) record: &'a Record<'a>,
    /// The text that the frames' spans refer to.
    pub(crate) data: &'a str,
    pub(crate) outer: &'a Frame,
    pub(crate) inner: Option<&'a Frame>,
}

impl<'a> View<'a> {
    #[inline]
    pub(crate) fn slot(&self, slot: u16) -> Slot {
        match self.inner.map(|f| f.get(slot)) {
            Some(found) if found.kind != Kind::Missing => found,
            _ => self.outer.get(slot),
        }
    }

    #[inline]
    pub(crate) fn raw(&self, place: &'a Where) -> Raw<'a> {
        match place {
            Where::Slot(slot) => self.raw_slot(self.slot(*slot)),
            other => self.circumstance(other),
        }
    }

    #[inline]
    pub(crate) fn raw_slot(&self, slot: Slot) -> Raw<'a> {
        let text = slot.text(self.data);
        match slot.kind {
            // What has been read is taken by its signal, and nobody else asks for it.
            Kind::Missing | Kind::Fixed => Raw::Missing,
            Kind::Null => Raw::Null,
            Kind::True => Raw::Bool(true),
            Kind::False => Raw::Bool(false),
            Kind::Number => Raw::Number(text),
            Kind::Text => Raw::Text(Cow::Borrowed(text)),
            Kind::Escaped => Raw::Text(json::unescape(text)),
            Kind::Object | Kind::Array => Raw::Container(text),
            Kind::Cell => Raw::Cell(text),
            Kind::Micros => text.parse().map_or(Raw::Null, Raw::Micros),
            Kind::LocalMicros => text.parse().map_or(Raw::Null, Raw::LocalMicros),
        }
    }

    fn circumstance(&self, place: &'a Where) -> Raw<'a> {
        let bytes = |b: Option<&'a [u8]>| match b {
            None => Raw::Missing,
            Some(b) => Raw::Text(String::from_utf8_lossy(b)),
        };
        match place {
            Where::Slot(_) => Raw::Missing,
            Where::Const(text) => Raw::Cell(text),
            Where::Key => bytes(self.record.key),
            // Of headers with the same name Kafka's readers take the last.
            Where::Header(name) => match self.record.headers.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => bytes(*value),
                None => Raw::Missing,
            },
            Where::Topic => Raw::Text(Cow::Borrowed(&self.record.origin.name)),
            Where::Partition => Raw::Text(Cow::Owned(self.record.origin.partition.to_string())),
            Where::Timestamp => self.record.timestamp.map_or(Raw::Missing, Raw::Micros),
            Where::File => Raw::Text(Cow::Borrowed(file_stem(&self.record.origin.name))),
        }
    }

    /// An id: a text, or a number as its text. Ok(None): missing, null or empty.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub(crate) fn id(&self, place: &'a Where) -> Result<Option<Cow<'a, str>>, &'static str> {
        // Most are texts without escapes, or not there.
        if let Where::Slot(slot) = place {
            match self.slot(*slot) {
                Slot { kind: Kind::Missing, .. } => return Ok(None),
                text if text.kind == Kind::Text => return judged(Cow::Borrowed(text.text(self.data))),
                _ => {}
            }
        }
        let text = match self.raw(place) {
            Raw::Missing | Raw::Null => return Ok(None),
            Raw::Text(text) => text,
            Raw::Number(text) | Raw::Cell(text) => Cow::Borrowed(text),
            Raw::Bool(_) | Raw::Micros(_) | Raw::LocalMicros(_) | Raw::Container(_) => {
                return Err("an id is a text or a number");
            }
        };
        judged(text)
    }
}

#[inline]
fn judged(id: Cow<'_, str>) -> Result<Option<Cow<'_, str>>, &'static str> {
    if id.len() > MAX_ID {
        return Err("an id has at most 256 bytes");
    }
    Ok((!id.is_empty()).then_some(id))
}

/// A file's name without its directories, its packing and its type, so that a result does not depend on where it lies.
fn file_stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    let name = [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let types = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet"];
    types.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}
