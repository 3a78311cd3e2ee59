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
//! lengthen is the last trip before it, so the last one before the line stays (all that ended with it, if it is not alone). Trips sent as one record are sealed by a line
//! of their own, which is not beyond that from which on they may still be replaced ([`crate::payloads`]).

use super::append;
use crate::facts::TripFact;
use crate::pack::{unpack, unpack_front};
use drivetrain_schemas::varint;

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
    for fact in facts(ended) {
        // They were packed here, or read when they were restored.
        if let Ok(((.., is_whole, _, ended_at), _)) = unpack_front::<Front<'_>>(fact)
            && is_whole == whole
            && ended_at < line
        {
            before.push((ended_at, fact));
        }
    }
    let last = before.iter().map(|(ended_at, _)| *ended_at).max();
    before.retain(|(ended_at, _)| Some(*ended_at) != last);
    if before.is_empty() {
        return Vec::new();
    }
    let mut sealed = before.iter().map(|(_, fact)| fact.as_ptr()).peekable();
    let mut rest = Vec::with_capacity(ended.len() - before.iter().map(|(_, fact)| fact.len()).sum::<usize>());
    for fact in facts(ended) {
        if sealed.next_if_eq(&fact.as_ptr()).is_none() {
            append(&mut rest, fact);
        }
    }
    let taken = before.iter().filter_map(|(_, fact)| unpack(fact).ok()).collect();
    *ended = rest;
    taken
}

/// The packed facts of a vehicle, one after the other.
pub(super) fn facts(ended: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = ended;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = varint::take(&mut rest) as usize;
        let (fact, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(fact)
    })
}
