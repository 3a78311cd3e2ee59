//! Kernel: trips. Cuts a vehicle's samples into trips and keeps what is needed to score each under any policy.
//!
//! A sample begins another trip
//! - when it has a trip id that is not the open trip's (samples without an id belong to the open trip);
//! - without ids, when the ignition goes on, where the vehicle has one (off: no trip);
//! - else when nothing came for longer than `max_gap`.
//!
//! A trip ends when the next begins, when the ignition goes off, or with the sample that has the end marker; samples
//! that still have the marker and the same id, or none, belong to no trip.

mod open;

pub use open::Open;

use crate::config::{Marker, TimeParams, TripParams};
use crate::facts::{Facts, TripFact};
use crate::sample::Sample;
use drivetrain_schemas::reading::NULL;
use drivetrain_schemas::time::{format_date, format_rfc3339};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

const DAY: i64 = 86_400_000_000;

/// The trips of one vehicle: the open one, and what is needed to name the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    open: Option<Box<Open>>,
    /// The record's id of the open trip, or of the last one.
    id: Option<Arc<str>>,
    /// Last sample of all, µs.
    at: i64,
    /// The ignition as last known: [`NULL`] never.
    ignition: Option<i64>,
    /// The last trip ended by its marker, and nothing has contradicted it since.
    ended: bool,
    /// Changes whenever a trip begins or ends.
    serial: u64,
    /// Names of the trips that began on the UTC day `day`, and how many had each; but for names that are unique.
    names: SmallVec<[(Arc<str>, u32); 1]>,
    day: i64,
}

impl State {
    /// The open trip.
    pub fn open(&self) -> Option<&Open> {
        self.open.as_deref()
    }

    /// Changes whenever a trip begins or ends.
    #[inline]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    fn end(&mut self, vehicle: &Arc<str>, facts: &mut Facts) {
        if let Some(open) = self.open.take() {
            self.serial += 1;
            open.finish(vehicle, facts);
        }
    }

    /// The trip's name (DESIGN §6): the record's id where it is unique, else with vehicle and date of start; `:n` for
    /// the n-th of that name.
    fn name(&mut self, cfg: &TripParams, vehicle: &str, id: Option<&Arc<str>>, at: i64) -> Arc<str> {
        let base = base_name(cfg, vehicle, id, at);
        if cfg.id_unique && id.is_some() {
            // As often as it comes.
            return base;
        }
        let day = at.div_euclid(DAY);
        if std::mem::replace(&mut self.day, day) != day {
            self.names.clear();
        }
        let Some((_, n)) = self.names.iter_mut().find(|(name, _)| *name == base) else {
            self.names.push((base.clone(), 1));
            return base;
        };
        *n += 1;
        format!("{base}:{n}").into()
    }
}

/// A trip's name without the number of its repetition.
pub(crate) fn base_name(cfg: &TripParams, vehicle: &str, id: Option<&Arc<str>>, at: i64) -> Arc<str> {
    match id {
        Some(id) if cfg.id_unique => id.clone(),
        Some(id) => format!("{vehicle}:{id}:{}", format_date(at)).into(),
        None => format!("{vehicle}:{}", format_rfc3339(at)).into(),
    }
}

/// Adds a sample. `same_meta`: its circumstances are those of the sample before.
#[inline]
pub fn step(
    cfg: &TripParams,
    vehicle: &Arc<str>,
    state: &mut State,
    sample: &Sample<'_>,
    same_meta: bool,
    facts: &mut Facts,
) {
    let id = sample.meta.trip.as_ref();
    if let Some(signal) = cfg.ignition
        && sample.value(signal) != NULL
    {
        state.ignition = Some(sample.value(signal));
    }
    let marked = cfg.end_marker.is_some_and(|marker| is_marked(marker, sample));
    let another = (!same_meta || state.open.is_none()) && id.is_some() && id != state.id.as_ref();
    let cut = another || (state.open.is_some() && id.is_none() && state.id.is_none() && !goes_on(cfg, state, sample));
    if cut {
        state.end(vehicle, facts);
    }
    state.ended &= marked && !another;
    state.at = sample.at;
    if state.open.is_none() {
        let parked = id.is_none() && state.ignition == Some(0);
        if state.ended || parked {
            return;
        }
        let name = state.name(cfg, vehicle, id, sample.at);
        state.id = id.cloned();
        state.serial += 1;
        state.open = Some(Box::new(Open::new(name, sample.at)));
    }
    if let Some(open) = &mut state.open {
        let reports = open.add(cfg, sample, same_meta);
        if reports {
            open.report(vehicle, facts);
        }
    }
    if marked {
        state.end(vehicle, facts);
        state.ended = true;
    }
}

/// Whether a trip without ids goes on with this sample.
fn goes_on(cfg: &TripParams, state: &State, sample: &Sample<'_>) -> bool {
    match state.ignition {
        Some(on) => on != 0,
        None => sample.at.saturating_sub(state.at) <= cfg.max_gap,
    }
}

fn is_marked(marker: Marker, sample: &Sample<'_>) -> bool {
    match marker {
        Marker::Bool(signal) => sample.value(signal) == 1,
        Marker::Text(signal) => sample.text(signal).is_some_and(|text| !text.is_empty()),
    }
}

/// Emits the open trip as closed when it ends `patience` before `upto` or earlier. Changes nothing.
pub fn close(time: &TimeParams, vehicle: &Arc<str>, state: &State, upto: i64, facts: &mut Facts) {
    if let Some(open) = &state.open
        && open.ended_at().saturating_add(time.patience) <= upto
    {
        open.finish(vehicle, facts);
    }
}

/// The first time after `after` at which [`close`] says more.
pub fn deadline(time: &TimeParams, state: &State, after: i64) -> Option<i64> {
    let deadline = state.open.as_ref()?.ended_at().saturating_add(time.patience);
    (deadline > after).then_some(deadline)
}

/// The fact of a whole trip that was sent as one: its samples in order, never cut.
pub(crate) fn whole(open: &Open, vehicle: &Arc<str>) -> TripFact {
    TripFact { whole: true, ..open.fact(vehicle, false) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{BASE, SECOND, Setup};

    /// The names of trips that begin at these seconds, and how many names are remembered then.
    fn names(id_unique: bool, trips: &[(Option<&str>, i64)]) -> (Vec<String>, usize) {
        let mut setup = Setup::default();
        setup.trip.id_unique = id_unique;
        let (cfg, mut state) = (setup.build(), State::default());
        let name = |(id, at): &(Option<&str>, i64)| {
            state.name(&cfg.trip, "v", id.map(Arc::from).as_ref(), BASE + at * SECOND).to_string()
        };
        (trips.iter().map(name).collect(), state.names.len())
    }

    #[test]
    fn names_are_numbered_within_a_day_and_unique_ones_not_remembered() {
        // A day begins after a minute.
        let trips = [(Some("a"), 0), (Some("a"), 10), (Some("b"), 20), (Some("a"), 70)];
        let numbered = ["v:a:2023-11-14", "v:a:2023-11-14:2", "v:b:2023-11-14", "v:a:2023-11-15"].map(String::from);
        assert_eq!(names(false, &trips), (numbered.into(), 1));
        assert_eq!(names(true, &trips), (["a", "a", "b", "a"].map(String::from).into(), 0));
        let (unnamed, remembered) = names(true, &[(None, 0), (None, 0), (Some("a"), 0)]);
        assert_eq!((unnamed[1].ends_with(":2"), &*unnamed[2], remembered), (true, "a", 1));
    }
}
