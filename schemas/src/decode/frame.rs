//! What one pass over a record leaves behind: a span for each mapped path, and the fields that nothing maps.
//!
//! ```text
//!  JSON ──scan by trie──┐
//!  CSV line ──cells─────┼──► Frame { slots, tags }: spans into the record (or into a scratch text)
//!  Arrow row ──columns──┘
//! ```
//!
//! Spans are numbers, not references, so that one frame serves every record without allocating.

use crate::json::{self, Kind as Json, Token};

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Missing,
    Null,
    True,
    False,
    Number,
    /// The span is the text itself.
    Text,
    /// A JSON string with escapes.
    Escaped,
    Object,
    Array,
    /// A cell of delimited text: number, boolean or text, whatever is asked for.
    Cell,
    /// A time of a columnar file as µs, in digits.
    Micros,
    /// The same of a wall clock without a zone.
    LocalMicros,
    /// A number at the decimals of the one signal that is to have it ([`Slot::fixed`]); it has no span.
    Fixed,
}

/// A value. (Two numbers of the processor, so that it need not go through memory.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    /// Where it ends, and in the lower half where it begins.
    bits: u64,
}

impl Slot {
    pub(crate) const MISSING: Slot = Slot { kind: Kind::Missing, bits: 0 };

    #[inline]
    pub(crate) fn new(kind: Kind, start: usize, end: usize) -> Self {
        Slot { kind, bits: (end as u64) << 32 | start as u64 & 0xffff_ffff }
    }

    /// A number that has been read: its bits stand where others have their span.
    #[inline]
    pub(crate) fn of_fixed(value: i64) -> Self {
        Slot { kind: Kind::Fixed, bits: value as u64 }
    }

    /// What [`Slot::of_fixed`] was given.
    #[inline]
    pub(crate) fn fixed(self) -> i64 {
        self.bits as i64
    }

    /// Where its span in the frame's text begins.
    #[inline]
    pub(crate) fn start(self) -> usize {
        self.bits as u32 as usize
    }

    /// Where it ends.
    #[inline]
    pub(crate) fn end(self) -> usize {
        (self.bits >> 32) as usize
    }

    /// Bytes of its span.
    #[inline]
    pub(crate) fn len(self) -> usize {
        self.end().saturating_sub(self.start())
    }

    /// Its span in the frame's text.
    #[inline]
    pub(crate) fn text(self, data: &str) -> &str {
        data.get(self.start()..self.end()).unwrap_or("")
    }

    /// Appends the value as compact JSON, its text as in the record.
    pub(crate) fn write_json(self, data: &str, out: &mut String) {
        let text = self.text(data);
        match self.kind {
            // What has been read is a signal's, and no tag.
            Kind::Missing | Kind::Null | Kind::Fixed => out.push_str("null"),
            Kind::True => out.push_str("true"),
            Kind::False => out.push_str("false"),
            Kind::Number => out.push_str(text),
            Kind::Text => json::quote(text, out),
            Kind::Escaped => {
                out.push('"');
                out.push_str(text);
                out.push('"');
            }
            Kind::Object | Kind::Array => json::compact(text, out),
            Kind::Cell => match json::validate(text.as_bytes()) {
                Ok((_, Token { kind: Json::Number | Json::True | Json::False, start, end }))
                    if end - start == text.len() =>
                {
                    out.push_str(text);
                }
                _ => json::quote(text, out),
            },
            Kind::Micros | Kind::LocalMicros => {
                let time = text.parse().map_or_else(|_| text.to_string(), crate::time::format_rfc3339);
                json::quote(&time, out);
            }
        }
    }
}

impl From<Token> for Slot {
    #[inline]
    fn from(t: Token) -> Self {
        let kind = match t.kind {
            Json::Null => Kind::Null,
            Json::True => Kind::True,
            Json::False => Kind::False,
            Json::Number => Kind::Number,
            Json::Text => Kind::Text,
            Json::Escaped => Kind::Escaped,
            Json::Object => Kind::Object,
            Json::Array => Kind::Array,
        };
        Slot::new(kind, t.start, t.end)
    }
}

/// A field that no mapping names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    /// The trie's node below which it stands.
    pub(crate) node: u16,
    name: (u32, u32),
    pub(crate) value: Slot,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) slots: Vec<Slot>,
    pub(crate) tags: Vec<Tag>,
    names: String,
}

impl Frame {
    pub(crate) fn new(slots: usize) -> Self {
        Frame { slots: vec![Slot::MISSING; slots], ..Frame::default() }
    }

    #[inline]
    pub(crate) fn reset(&mut self) {
        self.slots.fill(Slot::MISSING);
        self.tags.clear();
        self.names.clear();
    }

    #[inline]
    pub(crate) fn set(&mut self, slot: u16, value: Slot) {
        if let Some(s) = self.slots.get_mut(slot as usize) {
            *s = value;
        }
    }

    #[inline]
    pub(crate) fn get(&self, slot: u16) -> Slot {
        self.slots.get(slot as usize).copied().unwrap_or(Slot::MISSING)
    }

    /// Notes a field that nothing maps; its full name is the concatenation of `name`.
    pub(crate) fn tag(&mut self, node: u16, name: &[&str], value: Slot) {
        let start = self.names.len() as u32;
        name.iter().for_each(|part| self.names.push_str(part));
        self.tags.push(Tag { node, name: (start, self.names.len() as u32), value });
    }

    /// Takes back the tags that are `gone` by their node and full name.
    pub(crate) fn untag(&mut self, gone: impl Fn(u16, &str) -> bool) {
        let Frame { tags, names, .. } = self;
        tags.retain(|t| !gone(t.node, names.get(t.name.0 as usize..t.name.1 as usize).unwrap_or("")));
    }

    pub(crate) fn name(&self, tag: &Tag) -> &str {
        self.names.get(tag.name.0 as usize..tag.name.1 as usize).unwrap_or("")
    }
}
