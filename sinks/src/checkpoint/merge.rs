//! Several sorted runs become one; and when that is worthwhile.
//!
//! ```text
//!  oldest  [a=1   c=2   d=4]                          a=1
//!          [      c=gone   ]  ──► of a key the newest  d=4    gone ones are left out when the oldest run takes
//!  newest  [            d=5]      stands               d=5    part: there is nothing left for them to hide
//! ```

use super::file::{FileReader, FileWriter, Place};
use super::format::Header;
use super::{CheckpointError, CheckpointFile};
use crate::store::Storage;
use drivetrain_schemas::records::{Change, Record, RecordKind};

/// When merging is worthwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiers {
    /// Files of an operator up to which merging can wait.
    pub(super) files: usize,
    /// Bytes that are read so fast that it is not worth writing them again while there are no more than `files`.
    pub(super) small: u64,
}

/// Smaller in tests.
pub(super) const TIERS: Tiers = Tiers { files: 8, small: 1 << 20 };

/// Sorted records. The last record of a key is the newest.
pub(super) trait Source {
    /// The record at which it stands; `None` at the end.
    fn record(&self) -> Option<Record<'_>>;
    fn advance(&mut self) -> Result<(), CheckpointError>;
}

/// The newest change of the current key, without its bytes.
#[derive(Clone, Copy, Debug)]
enum Newest {
    Put,
    Gone,
    Add(i64),
}

/// Sources as one: each key once, in byte order. Memory: one record more than the sources have.
pub(super) struct Merged<S> {
    /// Oldest first.
    sources: Vec<S>,
    /// Sources that are not at their end: a heap, the least (key, age) on top.
    heap: Vec<usize>,
    whole: bool,
    key: Vec<u8>,
    value: Vec<u8>,
    newest: Newest,
}

impl<S: Source> Merged<S> {
    /// `sources`: oldest first. `whole`: nothing older exists, so that gone keys can be forgotten.
    pub(super) fn new(sources: Vec<S>, whole: bool) -> Self {
        let mut heap: Vec<usize> = (0..sources.len()).filter(|s| sources[*s].record().is_some()).collect();
        // Ascending order is a heap.
        heap.sort_by(|a, b| order(&sources, *a, *b));
        Self { sources, heap, whole, key: Vec::new(), value: Vec::new(), newest: Newest::Gone }
    }

    /// The next key with its newest value, or the sum of its differences.
    pub(super) fn next(&mut self) -> Result<Option<Record<'_>>, CheckpointError> {
        while self.fold()? {
            let change = match self.newest {
                Newest::Put => Change::Put(&self.value),
                Newest::Gone if self.whole => continue,
                Newest::Gone => Change::Gone,
                Newest::Add(0) => continue,
                Newest::Add(diff) => Change::Add(diff),
            };
            return Ok(Some(Record { key: &self.key, change }));
        }
        Ok(None)
    }

    /// Takes all records of the least key, oldest first. False at the end.
    fn fold(&mut self) -> Result<bool, CheckpointError> {
        let mut first = true;
        while let Some(top) = self.heap.first().copied()
            && let Some(record) = self.sources[top].record()
            && (first || record.key == self.key)
        {
            if first {
                self.key.clear();
                self.key.extend_from_slice(record.key);
            }
            self.newest = match (record.change, self.newest) {
                (Change::Put(value), _) => {
                    self.value.clear();
                    self.value.extend_from_slice(value);
                    Newest::Put
                }
                (Change::Gone, _) => Newest::Gone,
                // Wrapping, so that the sum does not depend on what is merged first.
                (Change::Add(diff), Newest::Add(sum)) if !first => Newest::Add(sum.wrapping_add(diff)),
                (Change::Add(diff), _) => Newest::Add(diff),
            };
            first = false;
            self.sources[top].advance()?;
            self.settle();
        }
        Ok(!first)
    }

    /// Restores the heap after its top has advanced.
    fn settle(&mut self) {
        if self.heap.first().is_some_and(|top| self.sources[*top].record().is_none()) {
            self.heap.swap_remove(0);
        }
        let mut at = 0;
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len() && order(&self.sources, self.heap[child], self.heap[least]).is_lt() {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

impl Merged<FileReader> {
    /// Opens an operator's files, oldest first.
    pub(super) fn open(
        storage: impl Into<Storage>,
        files: &[CheckpointFile],
        whole: bool,
    ) -> Result<Self, CheckpointError> {
        let storage = storage.into();
        let mut readers: Vec<FileReader> = Vec::with_capacity(files.len());
        for file in files {
            let reader = FileReader::open(&storage, file)?;
            if let Some(expected) = readers.first().map(|r| r.header().kind)
                && reader.header().kind != expected
            {
                let (operator, place) = (file.operator.clone(), storage.place(&file.path).display().to_string());
                return Err(CheckpointError::Kind { operator, place, found: reader.header().kind, expected });
            }
            readers.push(reader);
        }
        Ok(Self::new(readers, whole))
    }

    /// What the records mean; keyed when there is no file.
    pub(super) fn kind(&self) -> RecordKind {
        self.sources.first().map_or(RecordKind::Keyed, |r| r.header().kind)
    }
}

fn order<S: Source>(sources: &[S], a: usize, b: usize) -> std::cmp::Ordering {
    let key = |s: usize| sources[s].record().map(|r| r.key);
    key(a).cmp(&key(b)).then(a.cmp(&b))
}

/// A merge on its way into a file, in steps. Without records there is no file.
pub(super) struct Run<S> {
    merged: Merged<S>,
    place: Place,
    header: Header,
    seq: u64,
    writer: Option<FileWriter>,
}

impl<S: Source> Run<S> {
    pub(super) fn new(merged: Merged<S>, place: &Place, header: Header, seq: u64) -> Self {
        Self { merged, place: place.clone(), header, seq, writer: None }
    }

    /// Writes up to this many records; true when all are written.
    pub(super) fn step(&mut self, records: usize) -> Result<bool, CheckpointError> {
        for _ in 0..records {
            let Some(record) = self.merged.next()? else { return Ok(true) };
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => none.insert(FileWriter::create(&self.place, self.header.clone(), self.seq)?),
            };
            writer.push(&record)?;
        }
        Ok(false)
    }

    /// The file, whole; its name is durable after [`Place::sync`].
    pub(super) fn finish(self) -> Result<Option<CheckpointFile>, CheckpointError> {
        self.writer.map(FileWriter::finish).transpose()
    }

    pub(super) fn abandon(self) {
        self.writer.into_iter().for_each(FileWriter::abandon);
    }
}

/// Which of an operator's files to merge now: those from this index to the newest. `sizes` in bytes, oldest first.
///
/// - The newer files together are twice as large as the oldest, and not `small`: all are merged. So a restart reads at
///   most three times what there is, and a few files more.
/// - More than `files`: the longest row of newest files is merged in which the oldest is no larger than the rest
///   together, so that its bytes end up in a file twice as large. Where sizes shrink faster than that, those are merged
///   whose rewriting costs least for what it takes in.
///
/// Either way a byte is written again a number of times that grows with the logarithm of (state / what one checkpoint
/// brings).
pub(super) fn plan(sizes: &[u64], tiers: Tiers) -> Option<usize> {
    let newer = |i: usize| sizes[i + 1..].iter().sum::<u64>();
    let (oldest, last) = (*sizes.first()?, sizes.len() - 1);
    if last > 0 && newer(0) >= tiers.small.max(oldest.saturating_mul(2)) {
        return Some(0);
    }
    if sizes.len() <= tiers.files {
        return None;
    }
    let ratio = |i: usize| sizes[i] as f64 / newer(i).max(1) as f64;
    let doubling = (0..last).find(|i| sizes[*i] <= newer(*i));
    doubling.or_else(|| (0..last).min_by(|a, b| ratio(*a).total_cmp(&ratio(*b))))
}
