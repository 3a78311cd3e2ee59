//! The kernels of one vehicle, composed: trips first, so that events know theirs.

use crate::config::KernelConfig;
use crate::facts::{EventFact, Facts, TripFact, VehicleFact};
use crate::sample::Sample;
use crate::{detect, events, trips, windows};
use drivetrain_schemas::prefetch::{prefetch, prefetch_slice};
use drivetrain_schemas::reading::{Meta, NULL, TripPayload};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything that the kernels remember of one vehicle. What is bulky and changes seldom is shared between clones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    vehicle: Arc<str>,
    at: i64,
    /// Last known value by signal; [`NULL`] before the first.
    values: Vec<i64>,
    texts: Vec<(u16, Arc<str>)>,
    meta: Option<Arc<Meta>>,
    driver: Option<Arc<str>>,
    fleet: Option<Arc<str>>,
    trips: trips::State,
    events: events::State,
    windows: Option<windows::State>,
    detect: Option<detect::State>,
}

impl State {
    pub fn new(cfg: &KernelConfig, vehicle: Arc<str>) -> Self {
        State {
            vehicle,
            at: i64::MIN,
            values: vec![NULL; cfg.width()],
            texts: Vec::new(),
            meta: None,
            driver: None,
            fleet: None,
            trips: trips::State::default(),
            events: events::State::new(cfg),
            windows: cfg.windows.as_ref().map(windows::State::new),
            detect: detect::State::new(cfg),
        }
    }

    pub fn vehicle(&self) -> &Arc<str> {
        &self.vehicle
    }

    /// Asks for the memory of what each sample changes.
    #[inline]
    pub fn ask(&self) {
        prefetch_slice(&self.values);
        self.trips.open().into_iter().for_each(prefetch);
        self.windows.iter().for_each(windows::State::ask);
    }

    /// Last known values by signal.
    pub fn values(&self) -> &[i64] {
        &self.values
    }
}

/// Adds a sample. Samples come in order of time.
#[inline]
pub fn step(cfg: &KernelConfig, state: &mut State, sample: &Sample<'_>, facts: &mut Facts) {
    let same_meta = state.meta.as_ref().is_some_and(|meta| Arc::ptr_eq(meta, sample.meta));
    let serial = state.trips.serial();
    let vehicle = &state.vehicle;
    trips::step(&cfg.trip, vehicle, &mut state.trips, sample, same_meta, facts);
    if !cfg.events.is_empty() {
        events::step(cfg, vehicle, &mut state.events, sample, &state.trips, facts);
    }
    if let (Some(cfg_windows), Some(windows)) = (&cfg.windows, &mut state.windows) {
        windows::step(cfg_windows, &cfg.time, vehicle, windows, sample, facts);
    }
    if let Some(detect) = &mut state.detect {
        detect::step(cfg, vehicle, detect, sample, facts);
    }
    if !same_meta || serial != state.trips.serial() {
        circumstances(state, sample, serial);
    }
    state.at = sample.at;
    for (known, value) in state.values.iter_mut().zip(sample.values) {
        if *value != NULL {
            *known = *value;
        }
    }
}

fn circumstances(state: &mut State, sample: &Sample<'_>, serial: u64) {
    let meta = sample.meta;
    if meta.driver.is_some() || serial != state.trips.serial() {
        state.driver.clone_from(&meta.driver);
    }
    if meta.fleet.is_some() {
        state.fleet.clone_from(&meta.fleet);
    }
    for (signal, text) in &meta.texts {
        match state.texts.binary_search_by_key(signal, |(s, _)| *s) {
            Ok(i) => state.texts[i].1 = text.clone(),
            Err(i) => state.texts.insert(i, (*signal, text.clone())),
        }
    }
    state.meta = Some(meta.clone());
}

/// What silence says up to `upto`: the open things that end `patience` before it or earlier, as closed (all with
/// `i64::MAX`). Changes nothing.
pub fn close(cfg: &KernelConfig, state: &State, upto: i64, facts: &mut Facts) {
    trips::close(&cfg.time, &state.vehicle, &state.trips, upto, facts);
    events::close(cfg, &state.vehicle, &state.events, upto, facts);
    if let (Some(cfg_windows), Some(windows)) = (&cfg.windows, &state.windows) {
        windows::close(cfg_windows, &cfg.time, &state.vehicle, windows, upto, facts);
    }
}

/// The first time after `after` at which [`close`] says more.
pub fn deadline(cfg: &KernelConfig, state: &State, after: i64) -> Option<i64> {
    let windows = cfg.windows.as_ref().zip(state.windows.as_ref());
    let windows = windows.and_then(|(cfg_windows, s)| windows::deadline(cfg_windows, &cfg.time, s, after));
    let trips = trips::deadline(&cfg.time, &state.trips, after);
    let events = events::deadline(&cfg.time, &state.events, after);
    windows.into_iter().chain(trips).chain(events).min()
}

/// What the vehicle is doing.
pub fn fact(state: &State) -> VehicleFact {
    VehicleFact {
        vehicle: state.vehicle.clone(),
        at: state.at,
        driver: state.driver.clone(),
        trip_id: state.trips.open().map(|open| open.trip_id().clone()),
        fleet: state.fleet.clone(),
        values: state.values.clone(),
        texts: state.texts.clone(),
    }
}

/// The closed trip and the excursions of a trip payload: its samples are one trip, whatever their ids and gaps. A
/// payload without samples is a trip of no duration at its record's time.
pub fn trip_payload_facts(cfg: &KernelConfig, payload: &TripPayload) -> (TripFact, Vec<EventFact>) {
    let vehicle = &payload.vehicle;
    let started_at = payload.samples.first().map_or(payload.record_time, |s| s.at);
    let name = trips::base_name(&cfg.trip, vehicle, Some(&payload.trip_id), started_at);
    let mut open = trips::Open::new(name.clone(), started_at);
    let mut events = events::State::new(cfg);
    let (outside, mut facts) = (trips::State::default(), Facts::default());
    let meta = |texts: &Vec<(u16, Arc<str>)>| {
        Arc::new(Meta {
            vehicle: vehicle.clone(),
            texts: texts.clone(),
            driver: payload.driver.clone(),
            trip: Some(payload.trip_id.clone()),
            fleet: payload.fleet.clone(),
            quality: None,
            tags: None,
        })
    };
    let mut shared = meta(&Vec::new());
    for (i, s) in payload.samples.iter().enumerate() {
        if s.texts != shared.texts {
            shared = meta(&s.texts);
        }
        let sample = Sample { at: s.at, interval: payload.sample_interval, meta: &shared, values: &s.values };
        open.add(&cfg.trip, &sample, i > 0);
        events::step(cfg, vehicle, &mut events, &sample, &outside, &mut facts);
    }
    events::close(cfg, vehicle, &events, i64::MAX, &mut facts);
    events::rename(&mut facts, &name);
    let mut trip = trips::whole(&open, vehicle);
    if payload.samples.is_empty() {
        trip.driver.clone_from(&payload.driver);
        trip.fleet.clone_from(&payload.fleet);
    }
    (trip, facts.events.into_iter().map(|(fact, _)| fact).collect())
}

#[cfg(test)]
mod tests;
