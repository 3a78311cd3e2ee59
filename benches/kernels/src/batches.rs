//! The readings as the dataflow has them: batches, and each vehicle's rows in an epoch.

use crate::{Reading, SECOND, WIDTH};
use drivetrain_operators::sample::Sample;
use drivetrain_operators::sequence::Incoming;
use drivetrain_schemas::reading::{Head, Meta, NULL, ReadingBatch};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Readings of a batch, as in the runtime.
const CHUNK: usize = 8_192;

/// All readings of one epoch.
#[derive(Clone, Debug)]
pub struct Epoch {
    pub batches: Vec<ReadingBatch>,
    /// By vehicle, in the order of arrival.
    pub vehicles: Vec<(Arc<str>, Vec<Incoming>)>,
}

/// Circumstances, one for each vehicle and trip, as a decoder interns them.
#[derive(Debug, Default)]
pub struct Metas(BTreeMap<(usize, String), Arc<Meta>>);

impl Metas {
    pub fn of(&mut self, reading: &Reading) -> Arc<Meta> {
        let meta = || {
            Arc::new(Meta {
                vehicle: reading.vehicle_id().into(),
                texts: Vec::new(),
                driver: Some(reading.driver_id().into()),
                trip: Some(reading.trip_id().into()),
                fleet: Some(reading.fleet_id().into()),
                quality: None,
                tags: None,
            })
        };
        self.0.entry((reading.vehicle, reading.trip_id())).or_insert_with(meta).clone()
    }
}

/// Readings in the order given as one epoch.
pub fn epoch<'a>(metas: &mut Metas, readings: impl Iterator<Item = &'a Reading>) -> Epoch {
    let origin = crate::records::origin();
    let mut batches: Vec<ReadingBatch> = Vec::new();
    let mut vehicles: BTreeMap<usize, (Arc<str>, Vec<Incoming>)> = BTreeMap::new();
    for (i, reading) in readings.enumerate() {
        if i % CHUNK == 0 {
            batches.push(ReadingBatch::with_capacity(origin.clone(), WIDTH, CHUNK));
        }
        let (place, meta) = (batches.len() - 1, metas.of(reading));
        let head = Head { at: reading.at, position: i as i64, record_time: NULL, meta: 0, element: 0 };
        let incoming = Incoming { batch: place as u32, row: batches[place].len() as u32 };
        batches[place].push(head, &meta, &reading.values);
        let (_, rows) = vehicles.entry(reading.vehicle).or_insert_with(|| (meta.vehicle.clone(), Vec::new()));
        rows.push(incoming);
    }
    Epoch { batches, vehicles: vehicles.into_values().collect() }
}

/// Readings in the order of time as epochs of so many.
pub fn epochs(readings: &[Reading], size: usize) -> Vec<Epoch> {
    let mut metas = Metas::default();
    readings.chunks(size).map(|part| epoch(&mut metas, part.iter())).collect()
}

/// Every `nth` reading comes an epoch later than it should: with epochs of less than `hot_horizon`, each is a rewind.
pub fn late(readings: &[Reading], size: usize, nth: usize) -> Vec<Epoch> {
    let mut metas = Metas::default();
    let mut held: Vec<Reading> = Vec::new();
    let mut out = Vec::new();
    for part in readings.chunks(size) {
        let before = std::mem::take(&mut held);
        let (kept, delayed): (Vec<_>, Vec<_>) = part.iter().enumerate().partition(|(i, _)| (i + 1) % nth != 0);
        held.extend(delayed.into_iter().map(|(_, reading)| reading.clone()));
        out.push(epoch(&mut metas, kept.into_iter().map(|(_, reading)| reading).chain(&before)));
    }
    if !held.is_empty() {
        out.push(epoch(&mut metas, held.iter()));
    }
    out
}

/// The samples of one vehicle, in the order of time, as the kernels are given them.
pub fn samples<'a>(epoch: &'a Epoch, rows: &'a [Incoming]) -> impl Iterator<Item = Sample<'a>> {
    rows.iter().map(|incoming| {
        let batch = &epoch.batches[incoming.batch as usize];
        let row = incoming.row as usize;
        Sample { at: batch.heads[row].at, interval: SECOND, meta: batch.meta(row), values: batch.row(row) }
    })
}
