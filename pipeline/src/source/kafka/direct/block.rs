//! Records of one partition as they came from the broker: unpacked once, one after the other, and never copied again.

use super::codec::Buffer;
use drivetrain_schemas::decode::{Body, CsvHeader, Record};
use drivetrain_schemas::prefetch::prefetch_slice;
use drivetrain_schemas::reading::Origin;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// The length of what is null.
pub(super) const NULL: u32 = u32::MAX;

/// Where a record stands in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: i64,
    /// ms; negative: there is none.
    pub(super) timestamp: i64,
    pub(super) key: u32,
    /// Or [`NULL`].
    pub(super) key_length: u32,
    pub(super) value: u32,
    /// Or [`NULL`].
    pub(super) value_length: u32,
    /// Where the headers begin, with their count.
    pub(super) headers: u32,
}

/// Records that follow each other.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) buffer: Buffer,
    pub(super) places: Vec<Place>,
    pool: Option<Arc<Pool>>,
}

/// Memory of blocks that nobody reads any more.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<(Buffer, Vec<Place>)>>);

/// So many are kept, and none that is larger.
const KEPT: usize = 16;
const LARGEST: usize = 8 << 20;

impl Pool {
    pub(super) fn take(self: &Arc<Self>) -> Block {
        let used = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (mut buffer, mut places) = used.unwrap_or_default();
        buffer.clear();
        places.clear();
        Block { buffer, places, pool: Some(self.clone()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let mut kept = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT && self.buffer.capacity() <= LARGEST {
            kept.push((std::mem::take(&mut self.buffer), std::mem::take(&mut self.places)));
        }
    }
}

/// A range of the records of a block.
#[derive(Clone, Debug)]
pub struct Fetched {
    block: Arc<Block>,
    range: Range<usize>,
    wants_headers: bool,
}

impl Fetched {
    pub(super) fn new(block: Arc<Block>, range: Range<usize>, wants_headers: bool) -> Self {
        Self { block, range, wants_headers }
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    fn places(&self) -> &[Place] {
        self.block.places.get(self.range.clone()).unwrap_or_default()
    }

    /// Offset of record `i`.
    pub fn position(&self, i: usize) -> Option<i64> {
        self.places().get(i).map(|place| place.offset)
    }

    /// Keeps the first `n` records and returns the others.
    pub(crate) fn split_off(&mut self, n: usize) -> Self {
        let middle = self.range.end.min(self.range.start + n);
        let rest = Self { range: middle..self.range.end, ..self.clone() };
        self.range.end = middle;
        rest
    }

    #[inline]
    pub(crate) fn visit(
        &self,
        range: Range<usize>,
        origin: &Arc<Origin>,
        csv: Option<&Arc<CsvHeader>>,
        f: &mut impl FnMut(Record<'_>),
    ) {
        let bytes = self.block.buffer.filled();
        let span = |start: u32, length: u32| {
            let start = start as usize;
            (length != NULL).then(|| bytes.get(start..start + length as usize).unwrap_or_default())
        };
        let mut headers = Vec::new();
        let places = self.places();
        for place in places.get(range.start..range.end.min(places.len())).unwrap_or_default() {
            // A record is a few lines of memory, one after the other: what is asked for here comes with the next ones.
            prefetch_slice(bytes.get(place.value as usize + AHEAD..).unwrap_or_default());
            headers.clear();
            if self.wants_headers {
                super::batch::read_headers(bytes.get(place.headers as usize..).unwrap_or_default(), &mut headers);
            }
            let body = Body::of_message(span(place.value, place.value_length), csv);
            let timestamp = (place.timestamp >= 0).then(|| place.timestamp.saturating_mul(1000));
            let key = span(place.key, place.key_length);
            f(Record { origin, position: place.offset, timestamp, key, headers: &headers, body });
        }
    }
}

/// Bytes.
const AHEAD: usize = 1024;
