//! The checkpoint's records, dealt out to the workers that own them: their number may be another one than before.

use crate::graph::ANOMALIES;
use drivetrain_operators::flow::keep::Restored;
use drivetrain_operators::flow::payloads::{self, vehicle_of};
use drivetrain_operators::flow::relations::scores::{self, owner_of_driver, owner_of_trip};
use drivetrain_operators::flow::sequence::{self, owner};
use drivetrain_schemas::records::{RecordKind, Records};
use drivetrain_sinks::checkpoint::{CheckpointEntry, CheckpointError, Value, load};
use drivetrain_sinks::store::Storage;
use std::collections::BTreeMap;

/// The worker that owns a record of so many; None: all have it.
type Whose = fn(&[u8], u64) -> Option<u64>;

/// Bytes from which on a block of records is full.
const BLOCK: usize = 1 << 20;

/// The operators that keep something.
const KEPT: [(&str, RecordKind, Whose); 5] = [
    (sequence::NAME, RecordKind::Keyed, of_vehicle),
    (payloads::NAME, RecordKind::Keyed, of_payload),
    (scores::TRIPS, RecordKind::Sum, of_trip),
    (scores::DRIVERS, RecordKind::Sum, of_driver),
    (ANOMALIES, RecordKind::Sum, of_row),
];

/// What each worker begins with.
///
/// # Errors
/// When a file of the checkpoint is missing or damaged.
pub(super) fn restore(
    storage: &Storage,
    checkpoint: Option<&CheckpointEntry>,
    workers: usize,
) -> Result<Vec<Restored>, CheckpointError> {
    let Some(entry) = checkpoint else { return Ok((0..workers).map(|_| Restored::default()).collect()) };
    let mut parts: Vec<BTreeMap<String, Vec<Records>>> = vec![BTreeMap::new(); workers];
    std::thread::scope(|scope| {
        let read = KEPT.map(|(operator, kind, whose)| {
            (operator, scope.spawn(move || shares(storage, entry, operator, kind, whose, workers)))
        });
        for (operator, shares) in read {
            let shares = shares.join().unwrap_or(Err(CheckpointError::Gone))?;
            parts.iter_mut().zip(shares).for_each(|(part, share)| drop(part.insert(operator.to_string(), share)));
        }
        Ok::<(), CheckpointError>(())
    })?;
    Ok(parts.into_iter().map(Restored::new).collect())
}

/// An operator's records by worker, in blocks.
fn shares(
    storage: &Storage,
    entry: &CheckpointEntry,
    operator: &str,
    kind: RecordKind,
    whose: Whose,
    workers: usize,
) -> Result<Vec<Vec<Records>>, CheckpointError> {
    let new = || match kind {
        RecordKind::Keyed => Records::keyed(),
        RecordKind::Sum => Records::sum(),
    };
    let mut shares: Vec<Vec<Records>> = vec![vec![new()]; workers];
    load(storage, entry, operator, &mut |key, value| {
        let mut give = |share: &mut Vec<Records>| {
            if share.last().is_none_or(|block| block.bytes() >= BLOCK) {
                let mut block = new();
                block.reserve(BLOCK);
                share.push(block);
            }
            let Some(block) = share.last_mut() else { return };
            match value {
                Value::Bytes(bytes) => block.put(key, |out| out.extend_from_slice(bytes)),
                Value::Count(count) => block.add(count, |out| out.extend_from_slice(key)),
            }
        };
        match whose(key, workers as u64) {
            Some(worker) => shares.get_mut(worker as usize).into_iter().for_each(give),
            None => shares.iter_mut().for_each(&mut give),
        }
    })?;
    Ok(shares)
}

/// A vehicle's worker; None, all: the record that is common to all vehicles has an empty key.
fn of_vehicle(key: &[u8], workers: u64) -> Option<u64> {
    sequence::vehicle_of(key).map(|vehicle| owner(vehicle, workers))
}

fn of_payload(key: &[u8], workers: u64) -> Option<u64> {
    vehicle_of(key).map(|vehicle| owner(&vehicle, workers))
}

/// One that cannot be read goes to all, and each says so.
fn of_trip(row: &[u8], workers: u64) -> Option<u64> {
    owner_of_trip(row, workers).ok()
}

fn of_driver(row: &[u8], workers: u64) -> Option<u64> {
    owner_of_driver(row, workers).ok().flatten()
}

/// Rows may begin anywhere: the relations move them to where they are needed.
fn of_row(row: &[u8], workers: u64) -> Option<u64> {
    Some(xxhash_rust::xxh3::xxh3_64(row) % workers.max(1))
}
