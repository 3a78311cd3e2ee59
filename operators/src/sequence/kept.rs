//! A vehicle's state in a checkpoint: what changed is written, and a log that only grew is not written again.
//!
//! ```text
//!  vehicle                        head: kernels, counts, and which segments there are
//!  vehicle FF serial              a segment's snapshot: written once
//!  vehicle FF serial n            the segment's readings, the n-th piece: what was appended between two checkpoints
//! ```
//!
//! `serial` and `n` are big-endian, so that in the order of keys a segment's snapshot stands before its pieces and
//! these in their order. FF is in no UTF-8 text, so a key is split at the first.
//!
//! Contract: the newest records of all keys, those that are gone left out, are the state when [`VehicleState::keep`]
//! was last called, whichever of its calls they came from.

use super::VehicleState;
use super::log::Segment;
use crate::pack::{pack, unpack_front};
use drivetrain_schemas::records::{Change, Records};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Ends the vehicle in a key.
const MARK: u8 = 0xff;

/// What checkpoints have of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Of the vehicle; never used again.
    pub(super) serial: u64,
    snapshot: bool,
    /// How many of the log's bytes.
    bytes: usize,
    /// The pieces that hold them.
    pieces: Range<u32>,
}

impl Stored {
    /// Nothing of it is stored yet.
    pub(super) fn new(serial: u64) -> Self {
        Self { serial, snapshot: false, bytes: 0, pieces: 0..0 }
    }

    /// The readings are taken out: what is stored of them must go.
    pub(super) fn clear(&mut self) -> Gone {
        let (snapshot, pieces) = (false, self.pieces.clone());
        (self.bytes, self.pieces.start) = (0, self.pieces.end);
        Gone { serial: self.serial, snapshot, pieces }
    }

    /// The segment is dropped: all that is stored of it must go.
    pub(super) fn drop(mut self) -> Gone {
        Gone { snapshot: self.snapshot, ..self.clear() }
    }
}

/// Records that the next checkpoint takes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gone {
    serial: u64,
    snapshot: bool,
    pieces: Range<u32>,
}

impl Gone {
    pub(super) fn is_nothing(&self) -> bool {
        !self.snapshot && self.pieces.is_empty()
    }
}

/// The vehicle of a key, and what follows it; None: it is no key of a vehicle.
pub fn split_key(key: &[u8]) -> Option<(&str, &[u8])> {
    let end = key.iter().position(|b| *b == MARK);
    let (vehicle, suffix) = end.map_or((key, &[][..]), |end| (&key[..end], &key[end + 1..]));
    std::str::from_utf8(vehicle).ok().map(|vehicle| (vehicle, suffix))
}

fn segment_key(key: &mut Vec<u8>, vehicle: usize, serial: u64) {
    key.truncate(vehicle);
    key.push(MARK);
    key.extend_from_slice(&serial.to_be_bytes());
}

impl VehicleState {
    /// Hands over what has changed since the last call. `header` appends what the caller wants to read first again.
    pub fn keep(&mut self, header: impl FnOnce(&mut Vec<u8>), into: &mut Records) {
        let mut key = self.vehicle().as_bytes().to_vec();
        let vehicle = key.len();
        for gone in self.gone.drain(..) {
            segment_key(&mut key, vehicle, gone.serial);
            if gone.snapshot {
                into.remove(&key);
            }
            let length = key.len();
            for piece in gone.pieces {
                key.truncate(length);
                key.extend_from_slice(&piece.to_be_bytes());
                into.remove(&key);
            }
        }
        for segment in &mut self.segments {
            segment_key(&mut key, vehicle, segment.stored.serial);
            if !std::mem::replace(&mut segment.stored.snapshot, true) {
                into.put(&key, |out| pack(&segment.snapshot, out));
            }
            let bytes = segment.log();
            let stored = &mut segment.stored;
            if bytes > stored.bytes {
                key.extend_from_slice(&stored.pieces.end.to_be_bytes());
                stored.pieces.end += 1;
                let from = std::mem::replace(&mut stored.bytes, bytes);
                into.put(&key, |out| segment.write_log(from, out));
            }
        }
        key.truncate(vehicle);
        into.put(&key, |out| {
            header(out);
            self.pack_head(out);
        });
    }

    fn pack_head(&self, out: &mut Vec<u8>) {
        pack(&self.kernel, out);
        pack(&self.last, out);
        pack(&(self.newest, self.floor, self.kept_from, self.silenced, self.deadline), out);
        pack(&self.quality, out);
        pack(&(self.serials, self.segments.len()), out);
        for segment in &self.segments {
            let pieces = &segment.stored.pieces;
            pack(&(segment.stored.serial, pieces.start, pieces.end), out);
            segment.pack_head(out);
        }
    }

    fn unpack_head(bytes: &[u8]) -> Result<Self, String> {
        let (kernel, rest) = unpack_front(bytes)?;
        let (last, rest) = unpack_front(rest)?;
        let ((newest, floor, kept_from, silenced, deadline), rest) = unpack_front(rest)?;
        let (quality, rest) = unpack_front(rest)?;
        let ((serials, count), mut rest) = unpack_front::<(u64, usize)>(rest)?;
        let mut segments = VecDeque::new();
        for _ in 0..count {
            let ((serial, start, end), more) = unpack_front::<(u64, u32, u32)>(rest)?;
            let stored = Stored { serial, snapshot: true, bytes: 0, pieces: start..end };
            let (segment, more) = Segment::unpack_head(more, stored)?;
            segments.push_back(Box::new(segment));
            rest = more;
        }
        let gone = Vec::new();
        Ok(Self { kernel, segments, last, newest, floor, kept_from, silenced, deadline, quality, serials, gone })
    }
}

/// A vehicle's records, where they were read and as long as nobody needs the state. Millions of vehicles are not copied
/// out of their blocks when a job starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the caller's header, which stands before the head.
    header: u32,
    /// In the order of keys; the head first. Vehicles whose names begin with this one's may stand between.
    parts: SmallVec<[(Arc<Records>, Range<u32>); 1]>,
}

impl Packed {
    /// `head`: the block with the vehicle's own key, and its place there. `header`: bytes before the state's own.
    pub fn new(head: (&Arc<Records>, u32), header: usize) -> Self {
        let mut new = Self { header: header as u32, parts: SmallVec::new() };
        new.push(head);
        new
    }

    /// Adds a record with a suffix ([`split_key`]); they come in the order of their keys.
    pub fn push(&mut self, (block, place): (&Arc<Records>, u32)) {
        match self.parts.last_mut() {
            Some((last, places)) if places.end == place && Arc::ptr_eq(last, block) => places.end += 1,
            _ => self.parts.push((block.clone(), place..place + 1)),
        }
    }

    /// Suffix and value of each, the head's first.
    fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let places = self.parts.iter().flat_map(|(block, places)| places.clone().map(move |place| (block, place)));
        places.filter_map(|(block, place)| {
            let record = block.get(place as usize)?;
            let Change::Put(value) = record.change else { return None };
            split_key(record.key).map(|(_, suffix)| (suffix, value))
        })
    }

    /// The state. `keeps`: it will be asked to [`VehicleState::keep`] what changes.
    ///
    /// # Errors
    /// What is wrong with the records, or which is missing.
    pub fn unpack(&self, keeps: bool) -> Result<VehicleState, String> {
        let mut records = self.records();
        let head = records.next().and_then(|(_, value)| value.get(self.header as usize..));
        let mut state = VehicleState::unpack_head(head.unwrap_or_default())?;
        let mut next = |suffix: &[u8]| {
            let found = records.next().filter(|(found, _)| *found == suffix).map(|(_, value)| value);
            found.ok_or_else(|| format!("the record {suffix:02x?} is missing"))
        };
        for segment in &mut state.segments {
            let mut suffix = segment.stored.serial.to_be_bytes().to_vec();
            segment.snapshot = unpack_front(next(&suffix)?)?.0;
            for piece in segment.stored.pieces.clone() {
                suffix.truncate(8);
                suffix.extend_from_slice(&piece.to_be_bytes());
                segment.append_log(next(&suffix)?);
            }
            segment.stored.bytes = segment.log();
            if !keeps {
                segment.stored = Stored::new(segment.stored.serial);
            }
        }
        match records.next() {
            Some((suffix, _)) => Err(format!("the record {suffix:02x?} belongs to nothing")),
            None => Ok(state),
        }
    }
}

#[cfg(test)]
mod tests;
