//! Kafka messages outside librdkafka's memory, so that they can be sent to another process.
//!
//! ```text
//!  messages ──copy──► bytes:    key value key value …     one block
//!                     messages: offset, timestamp, headers, where its key and value stand
//! ```

use drivetrain_schemas::decode::{Body, CsvHeader, Record};
use drivetrain_schemas::reading::Origin;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Consecutive messages of one partition, with all that a decoder may ask of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    #[serde(with = "drivetrain_schemas::bytes")]
    bytes: Vec<u8>,
    messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Message {
    offset: i64,
    /// µs.
    timestamp: Option<i64>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    /// Where the key begins; the value stands behind it.
    start: usize,
    /// Lengths; `None`: there is none.
    key: Option<usize>,
    value: Option<usize>,
}

impl Copied {
    /// Copies one more message. Its body is text or a tombstone; a row of columns is not a message, and is left out.
    pub(crate) fn push(&mut self, record: &Record<'_>) {
        let value = match record.body {
            Body::Tombstone => None,
            Body::Json(bytes) => Some(bytes),
            Body::Csv { line, .. } => Some(line),
            Body::Columns { .. } => return,
        };
        let headers = record.headers.iter().map(|(name, value)| ((*name).to_string(), value.map(<[u8]>::to_vec)));
        self.messages.push(Message {
            offset: record.position,
            timestamp: record.timestamp,
            headers: headers.collect(),
            start: self.bytes.len(),
            key: record.key.map(<[u8]>::len),
            value: value.map(<[u8]>::len),
        });
        self.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Offset of message `i`.
    pub fn position(&self, i: usize) -> Option<i64> {
        self.messages.get(i).map(|m| m.offset)
    }

    /// Keeps the first `n` messages and returns the others.
    pub(crate) fn split_off(&mut self, n: usize) -> Self {
        let messages = self.messages.split_off(n.min(self.messages.len()));
        Self { bytes: self.bytes.clone(), messages }
    }

    pub(crate) fn visit(
        &self,
        range: Range<usize>,
        origin: &Arc<Origin>,
        csv: Option<&Arc<CsvHeader>>,
        f: &mut impl FnMut(Record<'_>),
    ) {
        for m in self.messages.get(range.start..range.end.min(self.len())).unwrap_or_default() {
            let at = |start: usize, len| self.bytes.get(start..start + len).unwrap_or_default();
            let value = m.value.map(|len| at(m.start + m.key.unwrap_or(0), len));
            let body = Body::of_message(value, csv);
            let headers: Vec<(&str, Option<&[u8]>)> =
                m.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            let key = m.key.map(|len| at(m.start, len));
            f(Record { origin, position: m.offset, timestamp: m.timestamp, key, headers: &headers, body });
        }
    }
}
