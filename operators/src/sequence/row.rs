//! Readings as the sequence sees them, from a batch or from the log, and their order.

use drivetrain_schemas::reading::{Meta, Origin, ReadingBatch};
use std::cmp::Ordering;
use std::sync::Arc;

/// A reading of an epoch: a row of one of its batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub batch: u32,
    pub row: u32,
}

impl Incoming {
    #[inline]
    pub(super) fn at(self, batches: &[ReadingBatch]) -> i64 {
        batches[self.batch as usize].heads[self.row as usize].at
    }

    #[inline]
    pub(super) fn row(self, batches: &[ReadingBatch]) -> RowRef<'_> {
        let batch = &batches[self.batch as usize];
        let row = self.row as usize;
        let head = &batch.heads[row];
        RowRef {
            at: head.at,
            values: batch.row(row),
            meta: batch.meta(row),
            origin: &batch.origin,
            position: head.position,
            element: head.element,
        }
    }
}

/// One reading, wherever it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowRef<'a> {
    pub(super) at: i64,
    pub(super) values: &'a [i64],
    pub(super) meta: &'a Arc<Meta>,
    pub(super) origin: &'a Arc<Origin>,
    pub(super) position: i64,
    pub(super) element: u32,
}

impl RowRef<'_> {
    /// The order of a vehicle's readings: time, then content. Equal: duplicates.
    pub(super) fn order(&self, o: &RowRef<'_>) -> Ordering {
        let content = || self.values.cmp(o.values).then_with(|| self.meta.texts.cmp(&o.meta.texts));
        self.at.cmp(&o.at).then_with(content)
    }

    /// Of two duplicates the lesser stays: the smallest circumstances, then the lowest place.
    pub(super) fn preference(&self, o: &RowRef<'_>) -> Ordering {
        let meta = if Arc::ptr_eq(self.meta, o.meta) { Ordering::Equal } else { self.meta.cmp(o.meta) };
        let place = || (self.origin, self.position, self.element).cmp(&(o.origin, o.position, o.element));
        meta.then_with(place)
    }

    pub(super) fn owned(&self) -> OwnedReading {
        OwnedReading {
            at: self.at,
            values: self.values.to_vec(),
            meta: self.meta.clone(),
            origin: self.origin.clone(),
            position: self.position,
            element: self.element,
        }
    }
}

/// A reading taken out of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedReading {
    pub at: i64,
    pub values: Vec<i64>,
    pub meta: Arc<Meta>,
    pub origin: Arc<Origin>,
    pub position: i64,
    pub element: u32,
}

/// Readings decoded from the log, in order.
#[derive(Debug)]
pub(super) struct Decoded {
    heads: Vec<DecodedHead>,
    pub(super) values: Vec<i64>,
    width: usize,
}

#[derive(Debug)]
struct DecodedHead {
    at: i64,
    meta: Arc<Meta>,
    origin: Arc<Origin>,
    interval: i64,
    position: i64,
    element: u32,
}

impl Decoded {
    pub(super) fn new(width: usize) -> Self {
        Decoded { heads: Vec::new(), values: Vec::new(), width }
    }

    pub(super) fn push(
        &mut self,
        at: i64,
        meta: &Arc<Meta>,
        origin: &Arc<Origin>,
        interval: i64,
        position: i64,
        element: u32,
    ) {
        let (meta, origin) = (meta.clone(), origin.clone());
        self.heads.push(DecodedHead { at, meta, origin, interval, position, element });
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Reading `i` and its source's sample interval.
    pub(super) fn row(&self, i: usize) -> (RowRef<'_>, i64) {
        let head = &self.heads[i];
        let row = RowRef {
            at: head.at,
            values: &self.values[i * self.width..(i + 1) * self.width],
            meta: &head.meta,
            origin: &head.origin,
            position: head.position,
            element: head.element,
        };
        (row, head.interval)
    }
}
