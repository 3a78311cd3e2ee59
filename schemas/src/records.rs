//! Changes of an operator's state as a checkpoint holds them: records by key, or differences of rows.
//!
//! ```text
//!  keyed   key ─► value | gone      the newest record of a key stands
//!  sum     row ─► difference        differences of a row are added up; rows that come to 0 are forgotten
//! ```
//!
//! Keys, values and rows are bytes that only the operator understands. They stand in one buffer, so that handing over
//! ten thousand of them costs no allocation each.

/// What equal keys mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    Keyed,
    Sum,
}

/// One record of [`Records`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key, or the row.
    pub key: &'a [u8],
    pub change: Change<'a>,
}

/// What a record says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key's new value ([`RecordKind::Keyed`]).
    Put(&'a [u8]),
    /// The key is gone ([`RecordKind::Keyed`]).
    Gone,
    /// Added to the row's count ([`RecordKind::Sum`]).
    Add(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Tail {
    Put,
    Gone,
    Add(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Entry {
    start: usize,
    key: u32,
    value: u32,
    tail: Tail,
}

/// Records in the order in which they were added; a key may come again. Serialized, they go to another process of the
/// same version; a file has a form of its own.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Records {
    kind: RecordKind,
    #[serde(with = "crate::bytes")]
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Records {
    pub fn keyed() -> Self {
        Self { kind: RecordKind::Keyed, bytes: Vec::new(), entries: Vec::new() }
    }

    pub fn sum() -> Self {
        Self { kind: RecordKind::Sum, bytes: Vec::new(), entries: Vec::new() }
    }

    /// Makes room, if there is none, for about so many bytes in all.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact((bytes + bytes / 4).saturating_sub(self.bytes.len()));
    }

    pub fn kind(&self) -> RecordKind {
        self.kind
    }

    /// Sets the value of a key; `write` appends the value's bytes and nothing else.
    pub fn put(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert_eq!(self.kind, RecordKind::Keyed);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        write(&mut self.bytes);
        let value = (self.bytes.len() - start - key.len()) as u32;
        self.entries.push(Entry { start, key: key.len() as u32, value, tail: Tail::Put });
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &[u8]) {
        debug_assert_eq!(self.kind, RecordKind::Keyed);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.entries.push(Entry { start, key: key.len() as u32, value: 0, tail: Tail::Gone });
    }

    /// Adds to the count of a row; `write` appends the row's bytes and nothing else.
    pub fn add(&mut self, diff: i64, write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert_eq!(self.kind, RecordKind::Sum);
        let start = self.bytes.len();
        write(&mut self.bytes);
        let key = (self.bytes.len() - start) as u32;
        self.entries.push(Entry { start, key, value: 0, tail: Tail::Add(diff) });
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all keys, rows and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.entries.iter().map(|entry| self.record(entry))
    }

    /// The record at a place in their order.
    pub fn get(&self, place: usize) -> Option<Record<'_>> {
        self.entries.get(place).map(|entry| self.record(entry))
    }

    fn record(&self, e: &Entry) -> Record<'_> {
        let (key, rest) = self.bytes[e.start..].split_at(e.key as usize);
        let change = match e.tail {
            Tail::Put => Change::Put(&rest[..e.value as usize]),
            Tail::Gone => Change::Gone,
            Tail::Add(diff) => Change::Add(diff),
        };
        Record { key, change }
    }

    /// Puts the records in the order of their keys; those of one key stay in their order.
    pub fn sort(&mut self) {
        let bytes = &self.bytes;
        let key = |e: &Entry| &bytes[e.start..e.start + e.key as usize];
        self.entries.sort_by(|a, b| key(a).cmp(key(b)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_sort_by_key() {
        let mut records = Records::keyed();
        records.put(b"b", |out| out.extend_from_slice(b"1"));
        records.remove(b"a");
        records.put(b"b", |_| {});
        records.sort();
        let seen: Vec<Record<'_>> = records.iter().collect();
        let (a, b): (&[u8], &[u8]) = (b"a", b"b");
        assert_eq!(
            seen,
            [
                Record { key: a, change: Change::Gone },
                Record { key: b, change: Change::Put(b"1") },
                Record { key: b, change: Change::Put(b"") }
            ]
        );
        assert_eq!((records.get(1), records.get(3)), (Some(seen[1]), None));
        let mut rows = Records::sum();
        rows.add(-2, |out| out.extend_from_slice(b"row"));
        assert_eq!(rows.iter().next(), Some(Record { key: b"row", change: Change::Add(-2) }));
    }
}
