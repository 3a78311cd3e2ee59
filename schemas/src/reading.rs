//! What a decoder hands to the dataflow: readings in columnar batches, trip payloads, rejects.
//!
//! ```text
//!  record (bytes) ──decode──► ReadingBatch   (layouts wide, long)
//!                         ├─► TripPayload    (layout trip)
//!                         └─► Reject         (reason + raw bytes)
//! ```
//!
//! A batch holds the readings of one chunk of one origin that belong to one worker, so that the
//! exchange moves whole batches and nothing is allocated for a single reading.

use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::Arc;

/// The value of a signal that is not known. No fixed-point value ever equals it.
pub const NULL: i64 = i64::MIN;

/// Where records come from: one partition of a topic, or the files of a source (partition 0, one origin a file).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the source in the configuration.
    pub source: Arc<str>,
    /// Topic, or the file's path as given.
    pub name: Arc<str>,
    /// Kafka partition; 0 for files.
    pub partition: i32,
}

/// The circumstances of a reading: who, on which trip, in which fleet, and what was not a number.
/// Interned by the decoder, so that consecutive readings of a vehicle share one.
///
/// The field order is the *content order* of DESIGN §4: of two duplicates the one whose circumstances are
/// smaller stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Meta {
    pub vehicle: Arc<str>,
    /// Values of signals of type `text`, by signal index, ascending. They count as signal values (a reading with
    /// another text is another reading, not a duplicate).
    pub texts: Vec<(u16, Arc<str>)>,
    pub driver: Option<Arc<str>>,
    pub trip: Option<Arc<str>>,
    pub fleet: Option<Arc<str>>,
    pub quality: Option<Arc<str>>,
    /// Fields that no mapping names, as one JSON object with its keys in byte order.
    pub tags: Option<Arc<str>>,
}

/// Interned circumstances, and what spares whoever takes them the way to their vehicle's name.
#[derive(Clone, Copy, Debug)]
pub struct Interned<'a> {
    pub meta: &'a Arc<Meta>,
    /// Of the vehicle ([`crate::key::hash`]).
    pub hash: u64,
    /// Where they stand in the batch that is being filled.
    pub noted: &'a Noted,
}

impl<'a> Interned<'a> {
    pub fn new(meta: &'a Arc<Meta>, noted: &'a Noted) -> Self {
        Self { meta, hash: crate::key::hash(&meta.vehicle), noted }
    }
}

/// Where circumstances stand in a batch, kept beside them by whoever interns: a batch then has each once, however its
/// vehicles take turns.
#[derive(Clone, Debug, Default)]
pub struct Noted(Cell<(u64, u32)>);

/// The head of one reading in a [`ReadingBatch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Event time, µs since 1970 UTC.
    pub at: i64,
    /// Offset in the partition, or line (from 1; row for Parquet) in the file.
    pub position: i64,
    /// Kafka's timestamp or the mapped record time, µs; [`NULL`] where there is none.
    pub record_time: i64,
    /// Index into [`ReadingBatch::metas`].
    pub meta: u32,
    /// Which element of an expanded record this is, from 0.
    pub element: u32,
}

/// Readings of one chunk of one origin. Row `i` has its values at `values[i*width .. (i+1)*width]`,
/// fixed-point at each signal's declared decimals, [`NULL`] where not known; booleans are 0 and 1; text signals
/// are always [`NULL`] here and stand in [`Meta::texts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingBatch {
    pub origin: Arc<Origin>,
    /// Number of signals in the catalogue.
    pub width: usize,
    pub metas: Vec<Arc<Meta>>,
    /// Of each of `metas`, the hash of its vehicle.
    pub hashes: Vec<u64>,
    pub heads: Vec<Head>,
    pub values: Vec<i64>,
    /// Values that were unusable and made null: (row, signal), ascending by row.
    pub invalid: Vec<(u32, u16)>,
}

impl ReadingBatch {
    pub fn new(origin: Arc<Origin>, width: usize) -> Self {
        Self::with_capacity(origin, width, 0)
    }

    /// With room for `readings`.
    pub fn with_capacity(origin: Arc<Origin>, width: usize, readings: usize) -> Self {
        let (heads, values) = (Vec::with_capacity(readings), Vec::with_capacity(readings * width));
        let (metas, hashes) = (Vec::with_capacity(readings), Vec::with_capacity(readings));
        Self { origin, width, metas, hashes, heads, values, invalid: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.heads.len()
    }

    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The values of reading `i`.
    pub fn row(&self, i: usize) -> &[i64] {
        &self.values[i * self.width..(i + 1) * self.width]
    }

    pub fn meta(&self, i: usize) -> &Arc<Meta> {
        &self.metas[self.heads[i].meta as usize]
    }

    /// Appends a reading; `head.meta` is overwritten. Consecutive readings with the same `meta` share an entry.
    pub fn push(&mut self, head: Head, meta: &Arc<Meta>, values: &[i64]) {
        let noted = Noted::default();
        if self.metas.last().is_some_and(|last| Arc::ptr_eq(last, meta)) {
            noted.0.set((1, self.metas.len() as u32 - 1));
        }
        self.push_interned(head, Interned::new(meta, &noted), 1, values);
    }

    /// The same; all readings with the same circumstances share an entry. `serial`: of this filling, not 0; of all batches
    /// that are filled with it the readings of one vehicle go to one.
    #[inline]
    pub fn push_interned(&mut self, head: Head, interned: Interned<'_>, serial: u64, values: &[i64]) {
        debug_assert_eq!(values.len(), self.width);
        let row = self.heads.len();
        self.heads.push(head);
        self.values.extend_from_slice(values);
        let (when, mut place) = interned.noted.0.get();
        if when != serial {
            place = self.metas.len() as u32;
            self.metas.push(interned.meta.clone());
            self.hashes.push(interned.hash);
            interned.noted.0.set((serial, place));
        }
        self.heads[row].meta = place;
    }

    /// Says which values of the reading pushed last were made null.
    #[inline]
    pub fn mark_invalid(&mut self, signals: &[u16]) {
        let row = self.heads.len().saturating_sub(1) as u32;
        self.invalid.extend(signals.iter().map(|signal| (row, *signal)));
    }

    /// The signals whose values were made null in a row.
    #[inline]
    pub fn invalid_of(&self, row: u32) -> impl Iterator<Item = u16> {
        let from = if self.invalid.is_empty() { 0 } else { self.invalid.partition_point(|(r, _)| *r < row) };
        self.invalid.iter().skip(from).take_while(move |(r, _)| *r == row).map(|(_, signal)| *signal)
    }
}

/// A whole trip sent as one record (layout `trip`): one reading in `intake`, and a finished trip of its own.
/// Two payloads with equal `vehicle … samples` are duplicates; field order is content order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TripPayload {
    /// As sent, else derived from a hash of payload and record time.
    pub trip_id: Arc<str>,
    /// Kafka's timestamp, the mapped `record_time`, the record's `at`, or `replay --at`, µs.
    pub record_time: i64,
    pub vehicle: Arc<str>,
    pub driver: Option<Arc<str>>,
    pub fleet: Option<Arc<str>>,
    pub quality: Option<Arc<str>>,
    pub tags: Option<Arc<str>>,
    /// Ascending by time; each with its event time in µs and one value a signal of the catalogue.
    pub samples: Vec<TripSample>,
    pub origin: Arc<Origin>,
    pub position: i64,
    /// The source's sample interval, µs.
    pub sample_interval: i64,
}

/// One sample of a [`TripPayload`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TripSample {
    pub at: i64,
    pub values: Vec<i64>,
    pub texts: Vec<(u16, Arc<str>)>,
}

/// A record that could not be used, or a reading that came too late; nothing of it is lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reject {
    pub origin: Arc<Origin>,
    pub position: i64,
    /// µs; [`NULL`] where there is none.
    pub record_time: i64,
    /// A short stable word, such as `not_json`, `no_vehicle`, `time_implausible`.
    pub reason: Arc<str>,
    /// What was wrong, for a person: the field, what stood there, what was expected.
    pub detail: String,
    /// The record's raw bytes; `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// What one origin's records came to (table `intake`). Additive; `records = decoded + rejected` and
/// `readings = used + duplicates + late` hold at the end of every epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IntakeCounts {
    pub records: i64,
    pub readings: i64,
    pub decoded: i64,
    pub rejected: i64,
    pub used: i64,
    pub duplicates: i64,
    pub late: i64,
    pub invalid_values: i64,
}

impl std::ops::AddAssign<&IntakeCounts> for IntakeCounts {
    fn add_assign(&mut self, o: &IntakeCounts) {
        self.records += o.records;
        self.readings += o.readings;
        self.decoded += o.decoded;
        self.rejected += o.rejected;
        self.used += o.used;
        self.duplicates += o.duplicates;
        self.late += o.late;
        self.invalid_values += o.invalid_values;
    }
}

/// Receives what a decoder makes of records. Implemented by the source operator, which routes each reading to the
/// worker that owns its vehicle, and by `drivetrain check`, which prints.
pub trait Accept {
    /// One reading, and the signals whose values were made null. `head.meta` is to be ignored.
    fn reading(&mut self, head: Head, interned: Interned<'_>, values: &[i64], invalid: &[u16]);
    fn trip(&mut self, trip: TripPayload);
    fn reject(&mut self, reject: Reject);
}
