//! Which trips of a vehicle are sealed (DESIGN §7): forgotten, while what was said of them stays.
//!
//! ```text
//!  ───┬──────┬─────┬───────────────┬─────────┬────────────► event time of the vehicle
//!   sealed sealed kept             │       newest completed trip
//!                          line = its end − retention
//! ```
//!
//! Contract: a trip that is sealed never ceases to hold by itself. A vehicle's trips are derived again from its readings of
//! the last `time.hot_horizon` only, and the retention is at least that long; what a late reading within it can still
//! lengthen is the last trip before it, so the last one before the line stays (and all that ended with it). Trips sent as one
//! record are sealed by a line of their own, which is not beyond that from which on they may still be replaced
//! ([`crate::payloads`]).

use super::packed;
use crate::facts::TripFact;
use crate::pack::{unpack, unpack_front};

/// The line moves by this part of the retention at a time, so that a vehicle's trips are read that often only.
const STEPS: i64 = 64;

/// The first fields of a [`TripFact`]: id, vehicle, driver, fleet, open, whole, started_at, ended_at.
type Front<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, bool, bool, i64, i64);

/// The line, in event time (µs), of a vehicle that has completed a trip at `ended_at`. `retention`: µs.
pub(crate) fn line(ended_at: i64, retention: i64) -> i64 {
    let step = (retention / STEPS).max(1);
    ended_at.saturating_sub(retention).div_euclid(step).saturating_mul(step)
}

/// Takes the trips that are sealed by a line out of the ended ones of a vehicle: those sent whole, or the others.
pub(super) fn take(ended: &mut Vec<u8>, whole: bool, line: i64) -> Vec<TripFact> {
    let mut before = Vec::new();
    for (place, fact) in packed(ended) {
        // They were packed here, or read when they were restored.
        if let Ok(((.., is_whole, _, ended_at), _)) = unpack_front::<Front<'_>>(fact)
            && is_whole == whole
            && ended_at < line
        {
            before.push((ended_at, place, fact));
        }
    }
    let last = before.iter().map(|(ended_at, ..)| *ended_at).max();
    before.retain(|(ended_at, ..)| Some(*ended_at) != last);
    if before.is_empty() {
        return Vec::new();
    }
    let taken = before.iter().filter_map(|(.., fact)| unpack(fact).ok()).collect();
    let mut rest = Vec::with_capacity(ended.len() - before.iter().map(|(_, place, _)| place.len()).sum::<usize>());
    let mut from = 0;
    for (_, place, _) in before {
        rest.extend_from_slice(&ended[from..place.start]);
        from = place.end;
    }
    rest.extend_from_slice(&ended[from..]);
    *ended = rest;
    taken
}
