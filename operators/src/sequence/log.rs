//! The compact log of a vehicle's readings within the horizon, in segments that each begin with a snapshot of the
//! kernels.
//!
//! ```text
//!  reading = head byte · varint(at − at before) · [varint meta] · [varint origin]
//!            · varint zigzag(position − position before of that origin) · [varint element]
//!            · one code a signal
//!  head byte: 1 the meta of the reading before, 2 its origin, 4 element 0
//!  code:      0 NULL; 1 and 8 bytes: the change from the last known value; else varint of its zigzag + 2
//! ```
//!
//! The last known values before a segment are those of its snapshot, so that a segment decodes by itself. A reading
//! at 1 Hz with 11 signals takes about 30 bytes.

use super::kept::{Gone, Stored};
use super::row::{Decoded, RowRef};
use crate::config::KernelConfig;
use crate::pack::{pack, unpack_front};
use crate::vehicle;
use drivetrain_schemas::prefetch::{prefetch, prefetch_end};
use drivetrain_schemas::reading::{Meta, NULL, Origin};
use drivetrain_schemas::varint::{put, take, unzigzag, zigzag};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const SAME_META: u8 = 1;
const SAME_ORIGIN: u8 = 2;
const FIRST_ELEMENT: u8 = 4;
/// Bytes by which the log grows at least.
const LEAST: usize = 256;
/// How many of the latest metas are compared before a new one is kept.
const RECENT: usize = 8;

/// An origin within a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct From {
    origin: Arc<Origin>,
    interval: i64,
    position: i64,
}

/// Readings that follow each other, and the state of the kernels before the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) stored: Stored,
    pub(super) snapshot: vehicle::State,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
    pub(super) count: usize,
    metas: Vec<Arc<Meta>>,
    froms: Vec<From>,
    meta: usize,
    from: usize,
    bytes: Vec<u8>,
}

impl Segment {
    pub(super) fn new(snapshot: vehicle::State, stored: Stored) -> Self {
        Segment {
            stored,
            snapshot,
            first_at: i64::MAX,
            last_at: i64::MAX,
            count: 0,
            metas: Vec::new(),
            froms: Vec::new(),
            meta: usize::MAX,
            from: usize::MAX,
            bytes: Vec::new(),
        }
    }

    /// Asks for the memory that [`Segment::append`] is going to want.
    #[inline]
    pub(super) fn ask(&self) {
        self.metas.get(self.meta).into_iter().for_each(prefetch);
        self.froms.get(self.from).into_iter().for_each(prefetch);
        prefetch_end(&self.bytes);
    }

    /// Forgets the readings, but not the snapshot. Returns what is stored of them.
    pub(super) fn clear(&mut self) -> Gone {
        self.count = 0;
        (self.first_at, self.last_at) = (i64::MAX, i64::MAX);
        self.metas.clear();
        self.froms.clear();
        (self.meta, self.from) = (usize::MAX, usize::MAX);
        self.bytes.clear();
        self.stored.clear()
    }

    /// Bytes of the log.
    pub(super) fn log(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the log's bytes behind the first `from`.
    pub(super) fn write_log(&self, from: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes[from..]);
    }

    /// Takes the log's next bytes.
    pub(super) fn append_log(&mut self, bytes: &[u8]) {
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Everything but snapshot and log.
    pub(super) fn pack_head(&self, out: &mut Vec<u8>) {
        pack(&(self.first_at, self.last_at, self.count), out);
        pack(&self.metas, out);
        pack(&self.froms, out);
        pack(&(self.meta, self.from), out);
    }

    /// What [`Self::pack_head`] wrote, and what stands behind it; snapshot and log are still empty.
    pub(super) fn unpack_head(bytes: &[u8], stored: Stored) -> Result<(Self, &[u8]), String> {
        let ((first_at, last_at, count), rest) = unpack_front(bytes)?;
        let (metas, rest) = unpack_front(rest)?;
        let (froms, rest) = unpack_front(rest)?;
        let ((meta, from), rest) = unpack_front(rest)?;
        let snapshot = vehicle::State::default();
        Ok((Segment { stored, snapshot, first_at, last_at, count, metas, froms, meta, from, bytes: Vec::new() }, rest))
    }

    /// Bytes taken beside the snapshot.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + self.metas.capacity() * size_of::<Arc<Meta>>()
    }

    /// Appends a reading; `known` are the last known values before it. Returns its source's sample interval.
    pub(super) fn append(&mut self, cfg: &KernelConfig, row: &RowRef<'_>, known: &[i64]) -> i64 {
        if self.count == 0 {
            (self.first_at, self.last_at) = (row.at, row.at);
        }
        let most = 40 + row.values.len() * 10;
        if self.bytes.capacity() - self.bytes.len() < most {
            // A quarter more, not twice as much: there is one of these for each vehicle.
            self.bytes.reserve_exact(most.max(self.bytes.capacity() / 4).max(LEAST));
        }
        let same_meta =
            self.metas.get(self.meta).is_some_and(|meta| Arc::ptr_eq(meta, row.meta)) || self.meta(row.meta);
        let same_origin = self.froms.get(self.from).is_some_and(|f| Arc::ptr_eq(&f.origin, row.origin))
            || self.origin(cfg, row.origin);
        let head = u8::from(same_meta) * SAME_META
            + u8::from(same_origin) * SAME_ORIGIN
            + u8::from(row.element == 0) * FIRST_ELEMENT;
        self.bytes.push(head);
        put(&mut self.bytes, row.at.wrapping_sub(self.last_at) as u64);
        if !same_meta {
            put(&mut self.bytes, self.meta as u64);
        }
        if !same_origin {
            put(&mut self.bytes, self.from as u64);
        }
        let mut interval = KernelConfig::DEFAULT_INTERVAL;
        if let Some(from) = self.froms.get_mut(self.from) {
            put(&mut self.bytes, zigzag(row.position.wrapping_sub(from.position)));
            from.position = row.position;
            interval = from.interval;
        }
        if row.element != 0 {
            put(&mut self.bytes, u64::from(row.element));
        }
        for (value, known) in row.values.iter().zip(known) {
            put_value(&mut self.bytes, *value, *known);
        }
        self.last_at = row.at;
        self.count += 1;
        interval
    }

    /// Finds or adds the meta; whether it is that of the reading before. Pointers are kept fresh, so that the next
    /// comparison is one of pointers.
    fn meta(&mut self, meta: &Arc<Meta>) -> bool {
        let recent = self.metas.len().saturating_sub(RECENT);
        let known = (recent..self.metas.len()).rev().find(|i| self.metas[*i] == *meta);
        let place = match known {
            Some(i) => {
                self.metas[i] = meta.clone();
                i
            }
            None => {
                self.metas.push(meta.clone());
                self.metas.len() - 1
            }
        };
        std::mem::replace(&mut self.meta, place) == place
    }

    fn origin(&mut self, cfg: &KernelConfig, origin: &Arc<Origin>) -> bool {
        let known = self.froms.iter().rposition(|f| f.origin == *origin);
        let place = known.unwrap_or_else(|| {
            self.froms.push(From { origin: origin.clone(), interval: cfg.interval(&origin.source), position: 0 });
            self.froms.len() - 1
        });
        if let Some(from) = self.froms.get_mut(place) {
            from.origin = origin.clone();
        }
        std::mem::replace(&mut self.from, place) == place
    }

    /// Decodes the readings behind those that `into` has.
    pub(super) fn decode(&self, into: &mut Decoded) {
        let mut known = self.snapshot.values().to_vec();
        let mut positions = vec![0i64; self.froms.len()];
        let (mut meta, mut from, mut at) = (0usize, 0usize, self.first_at);
        let mut bytes = self.bytes.as_slice();
        for _ in 0..self.count {
            let Some((head, rest)) = bytes.split_first() else { return };
            bytes = rest;
            at = at.wrapping_add(take(&mut bytes) as i64);
            if head & SAME_META == 0 {
                meta = take(&mut bytes) as usize;
            }
            if head & SAME_ORIGIN == 0 {
                from = take(&mut bytes) as usize;
            }
            let (Some(circumstances), Some(source), Some(position)) =
                (self.metas.get(meta), self.froms.get(from), positions.get_mut(from))
            else {
                return;
            };
            *position = position.wrapping_add(unzigzag(take(&mut bytes)));
            let element = if head & FIRST_ELEMENT == 0 { take(&mut bytes) as u32 } else { 0 };
            into.push(at, circumstances, &source.origin, source.interval, *position, element);
            for known in &mut known {
                into.values.push(take_value(&mut bytes, known));
            }
        }
    }
}

/// The value that a change is counted from: 0 before the first.
#[inline]
fn base(known: i64) -> i64 {
    if known == NULL { 0 } else { known }
}

#[inline]
fn put_value(bytes: &mut Vec<u8>, value: i64, known: i64) {
    if value == NULL {
        bytes.push(0);
        return;
    }
    let change = value.wrapping_sub(base(known));
    match zigzag(change).checked_add(2) {
        Some(code) => put(bytes, code),
        None => {
            bytes.push(1);
            bytes.extend_from_slice(&change.to_le_bytes());
        }
    }
}

#[inline]
fn take_value(bytes: &mut &[u8], known: &mut i64) -> i64 {
    let change = match take(bytes) {
        0 => return NULL,
        1 => match bytes.split_first_chunk::<8>() {
            Some((raw, rest)) => {
                *bytes = rest;
                i64::from_le_bytes(*raw)
            }
            None => 0,
        },
        code => unzigzag(code - 2),
    };
    *known = base(*known).wrapping_add(change);
    *known
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_return(value in any::<i64>(), known in any::<i64>()) {
            let mut bytes = Vec::new();
            put_value(&mut bytes, value, known);
            let (mut rest, mut last) = (bytes.as_slice(), known);
            prop_assert_eq!(take_value(&mut rest, &mut last), value);
            prop_assert!(rest.is_empty());
        }
    }
}
