//! Kernel: excursions beyond the thresholds of the default policy's rules.
//!
//! An excursion is a run of samples that pass the rule (side, threshold, `gt` or `ge`, least speed). It ends before a
//! known value of the signal that does not pass (with hysteresis: that falls below threshold × (1 - hysteresis)), that
//! lies on the other side of zero, that comes after a gap of more than three sample intervals (at least 5 s), or that
//! belongs to another trip. Values not known end nothing by themselves.

use crate::config::{EventParams, KernelConfig, TimeParams};
use crate::facts::{EventFact, Facts};
use crate::sample::Sample;
use crate::trips;
use drivetrain_schemas::policy::Direction;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An open excursion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Excursion {
    started_at: i64,
    ended_at: i64,
    /// Last sample that did not end it.
    seen_at: i64,
    samples: i64,
    peak: i64,
    /// [`trips::State::serial`] of its trip.
    serial: u64,
    trip_id: Option<Arc<str>>,
    driver: Option<Arc<str>>,
    position: Option<(i64, i64)>,
}

/// The open excursions of one vehicle, by rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    open: Vec<Option<Box<Excursion>>>,
    /// Speed as last known: (at, 1e-6 km/h).
    speed: Option<(i64, i64)>,
}

impl State {
    pub fn new(cfg: &KernelConfig) -> Self {
        State { open: vec![None; cfg.events.len()], speed: None }
    }
}

impl EventParams {
    fn sided(&self, value: i64) -> bool {
        match self.direction {
            Direction::Negative => value < 0,
            Direction::Positive => value > 0,
            Direction::Both => true,
        }
    }

    /// Whether the value begins or prolongs an excursion.
    #[inline]
    fn passes(&self, value: i64) -> bool {
        (value >= self.enter || value <= -self.enter) && self.sided(value)
    }

    fn severity(&self, peak: i64) -> u8 {
        self.severity.iter().filter(|least| peak.abs() >= **least).count() as u8
    }

    fn fact(&self, vehicle: &Arc<str>, e: &Excursion) -> Option<EventFact> {
        (e.ended_at - e.started_at >= self.min_duration).then(|| EventFact {
            vehicle: vehicle.clone(),
            kind: self.kind,
            signal: self.signal,
            started_at: e.started_at,
            ended_at: e.ended_at,
            trip_id: e.trip_id.clone(),
            driver: e.driver.clone(),
            samples: e.samples,
            peak: e.peak,
            severity: self.severity(e.peak),
            position: e.position,
        })
    }
}

/// Adds a sample, after the trips have had it.
#[inline]
pub fn step(
    cfg: &KernelConfig,
    vehicle: &Arc<str>,
    state: &mut State,
    sample: &Sample<'_>,
    trips: &trips::State,
    facts: &mut Facts,
) {
    if let Some((signal, factor)) = cfg.trip.speed
        && sample.value(signal) != NULL
    {
        state.speed = Some((sample.at, factor.of(sample.value(signal)) as i64));
    }
    for (rule, slot) in cfg.events.iter().zip(&mut state.open) {
        let value = sample.value(rule.signal);
        if value == NULL {
            continue;
        }
        let passes = rule.passes(value) && fast_enough(rule, state.speed, sample);
        if slot.is_none() && !passes {
            continue;
        }
        one(cfg, rule, vehicle, slot, sample, passes, trips, facts);
    }
}

fn fast_enough(rule: &EventParams, speed: Option<(i64, i64)>, sample: &Sample<'_>) -> bool {
    let Some(least) = rule.min_speed else { return true };
    speed.is_some_and(|(at, v)| v >= least && sample.at.saturating_sub(at) <= sample.gap())
}

#[allow(clippy::too_many_arguments, reason = "the parts of one rule's step; a struct of them would be used once")]
fn one(
    cfg: &KernelConfig,
    rule: &EventParams,
    vehicle: &Arc<str>,
    slot: &mut Option<Box<Excursion>>,
    sample: &Sample<'_>,
    passes: bool,
    trips: &trips::State,
    facts: &mut Facts,
) {
    let value = sample.value(rule.signal);
    if let Some(e) = slot {
        let stays = (value >= rule.stay || value <= -rule.stay) && (value < 0) == (e.peak < 0);
        let near = sample.at.saturating_sub(e.seen_at) <= sample.gap();
        if stays && near && e.serial == trips.serial() && (passes || rule.stay < rule.enter) {
            e.seen_at = sample.at;
            if passes {
                e.ended_at = sample.at;
                e.samples += 1;
                e.peak = if value.abs() > e.peak.abs() { value } else { e.peak };
            }
            return;
        }
        facts.events.extend(rule.fact(vehicle, e).map(|fact| (fact, 1)));
        *slot = None;
    }
    if passes {
        let position = cfg.trip.position.map(|[lat, lon]| (sample.value(lat.0), sample.value(lon.0)));
        *slot = Some(Box::new(Excursion {
            started_at: sample.at,
            ended_at: sample.at,
            seen_at: sample.at,
            samples: 1,
            peak: value,
            serial: trips.serial(),
            trip_id: trips.open().map(|open| open.trip_id().clone()),
            driver: sample.meta.driver.clone(),
            position: position.filter(|(lat, lon)| *lat != NULL && *lon != NULL),
        }));
    }
}

/// Emits, as closed, the excursions that end `patience` before `upto` or earlier. Changes nothing.
pub fn close(cfg: &KernelConfig, vehicle: &Arc<str>, state: &State, upto: i64, facts: &mut Facts) {
    for (rule, e) in cfg.events.iter().zip(&state.open) {
        if let Some(e) = e
            && e.ended_at.saturating_add(cfg.time.patience) <= upto
        {
            facts.events.extend(rule.fact(vehicle, e).map(|fact| (fact, 1)));
        }
    }
}

/// The first time after `after` at which [`close`] says more.
pub fn deadline(time: &TimeParams, state: &State, after: i64) -> Option<i64> {
    let deadlines = state.open.iter().flatten().map(|e| e.ended_at.saturating_add(time.patience));
    deadlines.filter(|deadline| *deadline > after).min()
}

/// The excursions of a whole trip that was sent as one; `trip_id` is its name.
pub(crate) fn rename(facts: &mut Facts, trip_id: &Arc<str>) {
    for (fact, _) in &mut facts.events {
        fact.trip_id = Some(trip_id.clone());
    }
}
