//! What the source thread hands to the workers: raw records of one origin, not decoded yet.
//!
//! A chunk owns its bytes (or shares a block with the chunks beside it), can be sent to another thread, and can be cut
//! at any record without copying, which alignment and recorded bindings need.

use super::copied::Copied;
use super::kafka::{Fetched, MessageBatch};
use arrow::record_batch::RecordBatch;
use drivetrain_schemas::decode::{Body, CsvHeader, Record};
use drivetrain_schemas::reading::Origin;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// Consecutive records of one origin.
#[derive(Debug)]
pub struct Chunk {
    /// Index of the source in the job's list of sources.
    pub source: u16,
    /// The partition whose clock these records move: the origin itself for Kafka; for files one for the whole source
    /// (name `*`), because the files of a source are one partition. Clocks and idle sets are kept by it.
    pub partition: Arc<Origin>,
    /// Topic and partition, or the file.
    pub origin: Arc<Origin>,
    pub data: ChunkData,
}

/// The records in the form in which they came.
#[derive(Debug)]
pub enum ChunkData {
    /// One JSON document a line.
    Lines(Lines),
    /// Delimited text; records may span lines.
    Csv { header: Arc<CsvHeader>, lines: Lines },
    /// Rows of a Parquet file; `first_row` is the number of the batch's first row in the file, from 1.
    Columns { batch: RecordBatch, first_row: i64 },
    /// Messages in librdkafka's own memory; delimited text where a header is given, else JSON.
    Kafka { messages: MessageBatch, header: Option<Arc<CsvHeader>> },
    /// The same, unpacked from a broker's answer.
    Fetched { records: Fetched, header: Option<Arc<CsvHeader>> },
    /// The same, copied: as another process has them.
    Copied { messages: Copied, header: Option<Arc<CsvHeader>> },
}

/// A range of the records of a shared block of text.
#[derive(Clone, Debug)]
pub struct Lines {
    pub(crate) block: Arc<LineBlock>,
    pub(crate) range: Range<usize>,
}

/// Text cut into records.
#[derive(Debug, Default)]
pub(crate) struct LineBlock {
    pub(crate) bytes: Vec<u8>,
    pub(crate) spans: Vec<Span>,
}

/// One record: its bytes without the line end, and the number of its first line, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) line: i64,
}

impl LineBlock {
    pub(crate) fn record(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.len as usize).unwrap_or_default()
    }
}

impl Lines {
    pub(crate) fn new(block: LineBlock) -> Self {
        let range = 0..block.spans.len();
        Self { block: Arc::new(block), range }
    }

    pub(crate) fn spans(&self) -> &[Span] {
        self.block.spans.get(self.range.clone()).unwrap_or_default()
    }

    fn split_off(&mut self, n: usize) -> Self {
        let middle = self.range.start + n;
        let rest = Self { block: self.block.clone(), range: middle..self.range.end };
        self.range.end = middle;
        rest
    }
}

impl Chunk {
    /// The number of records.
    pub fn len(&self) -> usize {
        match &self.data {
            ChunkData::Lines(lines) | ChunkData::Csv { lines, .. } => lines.range.len(),
            ChunkData::Columns { batch, .. } => batch.num_rows(),
            ChunkData::Kafka { messages, .. } => messages.len(),
            ChunkData::Fetched { records, .. } => records.len(),
            ChunkData::Copied { messages, .. } => messages.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offset, line or row of record `i`.
    pub fn position(&self, i: usize) -> Option<i64> {
        match &self.data {
            ChunkData::Lines(lines) | ChunkData::Csv { lines, .. } => lines.spans().get(i).map(|s| s.line),
            ChunkData::Columns { batch, first_row } => (i < batch.num_rows()).then_some(first_row + i as i64),
            ChunkData::Kafka { messages, .. } => messages.position(i),
            ChunkData::Fetched { records, .. } => records.position(i),
            ChunkData::Copied { messages, .. } => messages.position(i),
        }
    }

    /// The binding that says that this chunk has been handed out: last offset + 1, or the last line or row.
    pub fn end(&self) -> Option<i64> {
        let last = self.position(self.len().checked_sub(1)?)?;
        Some(if self.is_of_kafka() { last + 1 } else { last })
    }

    fn is_of_kafka(&self) -> bool {
        match self.data {
            ChunkData::Kafka { .. } | ChunkData::Fetched { .. } | ChunkData::Copied { .. } => true,
            ChunkData::Lines(_) | ChunkData::Csv { .. } | ChunkData::Columns { .. } => false,
        }
    }

    /// How many records, from the first, lie before the binding `end`.
    pub(crate) fn records_until(&self, end: i64) -> usize {
        let end = if self.is_of_kafka() { end } else { end.saturating_add(1) };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.position(middle).is_some_and(|p| p < end) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Calls `f` for each record in its order.
    pub fn for_each(&self, mut f: impl FnMut(Record<'_>)) {
        self.visit(0..self.len(), &mut f);
    }

    /// Calls `f` for the records of a range, as far as they exist.
    pub fn visit(&self, range: Range<usize>, f: &mut impl FnMut(Record<'_>)) {
        let origin = &self.origin;
        let plain = |position, body| Record { origin, position, timestamp: None, key: None, headers: &[], body };
        match &self.data {
            ChunkData::Lines(lines) => {
                for span in lines.spans().get(range).unwrap_or_default() {
                    f(plain(span.line, Body::Json(lines.block.record(*span))));
                }
            }
            ChunkData::Csv { header, lines } => {
                for span in lines.spans().get(range).unwrap_or_default() {
                    f(plain(span.line, Body::Csv { header, line: lines.block.record(*span) }));
                }
            }
            ChunkData::Columns { batch, first_row } => {
                for row in range.start..range.end.min(batch.num_rows()) {
                    f(plain(first_row + row as i64, Body::Columns { batch, row }));
                }
            }
            ChunkData::Kafka { messages, header } => messages.visit(range, origin, header.as_ref(), f),
            ChunkData::Fetched { records, header } => records.visit(range, origin, header.as_ref(), f),
            ChunkData::Copied { messages, header } => messages.visit(range, origin, header.as_ref(), f),
        }
    }

    /// Keeps the first `n` records and returns the others.
    pub(crate) fn split_off(&mut self, n: usize) -> Chunk {
        let n = n.min(self.len());
        let data = match &mut self.data {
            ChunkData::Lines(lines) => ChunkData::Lines(lines.split_off(n)),
            ChunkData::Csv { header, lines } => ChunkData::Csv { header: header.clone(), lines: lines.split_off(n) },
            ChunkData::Columns { batch, first_row } => {
                let rest = batch.slice(n, batch.num_rows() - n);
                let first = *first_row + n as i64;
                *batch = batch.slice(0, n);
                ChunkData::Columns { batch: rest, first_row: first }
            }
            ChunkData::Kafka { messages, header } => {
                ChunkData::Kafka { messages: messages.split_off(n), header: header.clone() }
            }
            ChunkData::Fetched { records, header } => {
                ChunkData::Fetched { records: records.split_off(n), header: header.clone() }
            }
            ChunkData::Copied { messages, header } => {
                ChunkData::Copied { messages: messages.split_off(n), header: header.clone() }
            }
        };
        Chunk { source: self.source, partition: self.partition.clone(), origin: self.origin.clone(), data }
    }
}
