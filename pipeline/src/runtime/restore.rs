//! The checkpoint's records, dealt out to the workers that own them: their number may be another one than before.

use crate::graph::{ANOMALIES, TRIPS};
use drivetrain_operators::flow::keep::Restored;
use drivetrain_operators::flow::payloads::{self, vehicle_of};
use drivetrain_operators::flow::sequence::{self, owner};
use drivetrain_schemas::records::Records;
use drivetrain_sinks::checkpoint::{CheckpointEntry, CheckpointError, Value, load};
use drivetrain_sinks::store::Storage;
use std::collections::BTreeMap;

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
    let mut parts: Vec<BTreeMap<String, Records>> = vec![BTreeMap::new(); workers];
    for (operator, whose) in [
        (sequence::NAME, of_vehicle as fn(&[u8], u64) -> Option<u64>),
        (payloads::NAME, of_payload),
        (TRIPS, of_row),
        (ANOMALIES, of_row),
    ] {
        let keyed = matches!(operator, sequence::NAME | payloads::NAME);
        let new = || if keyed { Records::keyed() } else { Records::sum() };
        let mut shares: Vec<Records> = (0..workers).map(|_| new()).collect();
        load(storage, entry, operator, &mut |key, value| {
            let own = whose(key, workers as u64);
            let mut give = |share: &mut Records| match value {
                Value::Bytes(bytes) => share.put(key, |out| out.extend_from_slice(bytes)),
                Value::Count(count) => share.add(count, |out| out.extend_from_slice(key)),
            };
            match own {
                Some(worker) => shares.get_mut(worker as usize).into_iter().for_each(give),
                None => shares.iter_mut().for_each(&mut give),
            }
        })?;
        for (part, share) in parts.iter_mut().zip(shares) {
            part.insert(operator.to_string(), share);
        }
    }
    Ok(parts.into_iter().map(Restored::new).collect())
}

/// A vehicle's worker; None, all: the record that is common to all vehicles has an empty key.
fn of_vehicle(key: &[u8], workers: u64) -> Option<u64> {
    sequence::vehicle_of(key).map(|vehicle| owner(vehicle, workers))
}

fn of_payload(key: &[u8], workers: u64) -> Option<u64> {
    vehicle_of(key).map(|vehicle| owner(&vehicle, workers))
}

/// Rows may begin anywhere: the relations move them to where they are needed.
fn of_row(row: &[u8], workers: u64) -> Option<u64> {
    Some(xxhash_rust::xxh3::xxh3_64(row) % workers.max(1))
}
