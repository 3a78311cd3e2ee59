//! Where a part of a record stands, and what stands there.

use super::tree::Node;
use drivetrain_schemas::decode::Record;
use std::borrow::Cow;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Path(Vec<Step>),
    Const(String),
    Key,
    Header(String),
    Topic,
    Partition,
    Timestamp,
    File,
}

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
    Container,
}

/// `gps.coords[0]`, `["key.with.dots"]`.
pub(crate) fn steps(text: &str) -> Option<Vec<Step>> {
    let (mut out, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let (key, after) = quoted.split_once("\"]")?;
            out.push(Step::Key(key.to_string()));
            rest = after;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            out.push(Step::Index(index.parse().ok()?));
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let (key, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            out.push(Step::Key(key.to_string()));
            rest = after;
        }
    }
    Some(out)
}

/// The name of a path as a tag bears it.
pub(crate) fn display(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) if out.is_empty() => out = key.clone(),
            Step::Key(key) => out += &format!(".{key}"),
            Step::Index(i) => out += &format!("[{i}]"),
        }
    }
    out
}

pub(crate) fn find<'n, 'a>(node: &'n Node<'a>, path: &[Step]) -> Option<&'n Node<'a>> {
    path.iter().try_fold(node, |node, step| match step {
        Step::Key(key) => node.get(key),
        Step::Index(i) => node.item(*i),
    })
}

impl Place {
    pub(crate) fn parse(text: &str) -> Option<Place> {
        Some(match text {
            "$key" => Place::Key,
            "$topic" => Place::Topic,
            "$partition" => Place::Partition,
            "$timestamp" => Place::Timestamp,
            "$file" => Place::File,
            _ => match (text.strip_prefix('='), text.strip_prefix("$header.")) {
                (Some(constant), _) => Place::Const(constant.to_string()),
                (_, Some(name)) => Place::Header(name.to_string()),
                _ => Place::Path(steps(text)?),
            },
        })
    }

    /// Whether it is part of what was sent.
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self, Place::Timestamp | Place::Const(_))
    }
}

/// A record, or an element of it over the record.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) record: &'a Record<'a>,
    pub(crate) outer: &'a Node<'a>,
    pub(crate) inner: Option<&'a Node<'a>>,
}

impl<'a> View<'a> {
    /// The element's own value comes first, even where it is null.
    pub(crate) fn node(&self, path: &[Step]) -> Option<&'a Node<'a>> {
        self.inner.and_then(|inner| find(inner, path)).or_else(|| find(self.outer, path))
    }

    pub(crate) fn raw(&self, place: &'a Place) -> Raw<'a> {
        let bytes = |b: Option<&'a [u8]>| b.map_or(Raw::Missing, |b| Raw::Text(String::from_utf8_lossy(b)));
        match place {
            Place::Path(path) => match self.node(path) {
                None => Raw::Missing,
                Some(Node::Null) => Raw::Null,
                Some(Node::Bool(b)) => Raw::Bool(*b),
                Some(Node::Number(text)) => Raw::Number(text),
                Some(Node::Text(_, text)) => Raw::Text(Cow::Borrowed(text)),
                Some(Node::Object(..) | Node::Array(..)) => Raw::Container,
            },
            Place::Const(text) => Raw::Cell(text),
            Place::Key => bytes(self.record.key),
            Place::Header(name) => {
                let mut of_name = self.record.headers.iter().filter(|(n, _)| n == name);
                of_name.next_back().map_or(Raw::Missing, |(_, value)| bytes(*value))
            }
            Place::Topic => Raw::Text(Cow::Borrowed(&self.record.origin.name)),
            Place::Partition => Raw::Text(Cow::Owned(self.record.origin.partition.to_string())),
            Place::Timestamp => self.record.timestamp.map_or(Raw::Missing, Raw::Micros),
            // The one name of these tests: see `FILE`.
            Place::File => Raw::Text(Cow::Borrowed("readings")),
        }
    }

    /// An id: a text or a number as its text, not empty, of at most 256 bytes. Err: something else stands there.
    pub(crate) fn id(&self, place: &'a Place) -> Result<Option<String>, ()> {
        let text = match self.raw(place) {
            Raw::Missing | Raw::Null => return Ok(None),
            Raw::Text(text) => text.into_owned(),
            Raw::Number(text) | Raw::Cell(text) => text.to_string(),
            Raw::Bool(_) | Raw::Micros(_) | Raw::Container => return Err(()),
        };
        if text.len() > 256 { Err(()) } else { Ok(Some(text).filter(|t| !t.is_empty())) }
    }
}
