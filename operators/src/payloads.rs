//! Kernel: whole trips sent as one record. Of all that was sent of a trip, one content counts.
//!
//! A payload bypasses the vehicle's sequence. It is late only when its trip is not known and it ended `facts.retention` before
//! a trip of the vehicle that has counted before the epoch: such trips are sealed. It may be sent again, corrected, or
//! delivered in another order; so what counts is a function of the *set* of payloads of a (vehicle, trip id), and of nothing
//! else:
//!
//! - Payloads with the same driver, fleet, quality, tags and samples are *copies* of one content. The times of samples
//!   are compared from the first sample on, since they may stand relative to the record's time.
//! - The content counts whose **latest** copy has the greatest record time; among equals, the larger content. (The last
//!   writer wins, as in a compacted topic: a correction replaces, and what is sent anew after it replaces it in turn.)
//! - It stands as its **earliest** copy has it, by (record time, origin, position): so the same trip delivered twice does
//!   not move. That copy is used; every other payload of the trip is a duplicate.
//!
//! Why the latest copy decides and not the earliest: a content's latest copy only becomes later, so what has lost can
//! win again only by a new copy, which brings all of it along. Of what has lost, a hash and the head of its earliest
//! copy are enough to remember (some 60 bytes a content), and only the content that counts is kept in full. Were the
//! earliest copies compared, an earlier copy of the winner that arrives late could hand the trip to a content of long
//! ago: every content ever sent would have to be kept in full, and a mere redelivery could undo a correction.

use crate::config::KernelConfig;
use crate::facts::Facts;
use crate::late;
use crate::score::trips::line;
use crate::vehicle::trip_payload_facts;
use drivetrain_schemas::key;
use drivetrain_schemas::reading::{Head, IntakeCounts, Meta, Origin, ReadingBatch, Reject, TripPayload, TripSample};
use drivetrain_schemas::time::format_rfc3339;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// What was sent, by vehicle and trip id. Equal sets of payloads give equal states, where none of them is sealed or late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    vehicles: BTreeMap<Arc<str>, Vehicle>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Vehicle {
    /// Trips that ended before are sealed, and what comes of such trips is late; µs. None: none yet.
    sealed: Option<i64>,
    trips: BTreeMap<Arc<str>, Trip>,
}

/// What of the state has changed: a trip, or (None) how far a vehicle's are sealed.
pub(crate) type Place = (Arc<str>, Option<Arc<str>>);

impl State {
    /// What is known of a trip, for a checkpoint.
    pub(crate) fn trip(&self, vehicle: &str, trip_id: &str) -> Option<&Trip> {
        self.vehicles.get(vehicle)?.trips.get(trip_id)
    }

    /// How far the trips of a vehicle are sealed, for a checkpoint.
    pub(crate) fn sealed(&self, vehicle: &str) -> Option<i64> {
        self.vehicles.get(vehicle)?.sealed
    }

    /// Puts back what [`State::sealed`] gave.
    pub(crate) fn restore_sealed(&mut self, vehicle: Arc<str>, sealed: i64) {
        self.vehicles.entry(vehicle).or_default().sealed = Some(sealed);
    }

    /// Puts back what [`State::trip`] gave.
    pub(crate) fn restore(&mut self, trip: Trip) {
        let TripPayload { vehicle, trip_id, .. } = &trip.standing;
        let (vehicle, trip_id) = (vehicle.clone(), trip_id.clone());
        self.vehicles.entry(vehicle).or_default().trips.insert(trip_id, trip);
    }
}

/// One trip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trip {
    /// The content that counts, as its earliest copy has it.
    standing: TripPayload,
    /// Record time of that content's latest copy, µs.
    latest: i64,
    /// The earliest copy of each content that has lost, by [`hash`].
    lost: BTreeMap<u128, Sent>,
}

/// All of a payload that is not content; in the order by which the earliest copy is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Sent {
    record_time: i64,
    origin: Arc<Origin>,
    position: i64,
    /// Time of the first sample, µs; 0 without samples.
    first_at: i64,
    sample_interval: i64,
}

/// What one epoch changes.
#[derive(Debug, Default)]
pub struct Said {
    /// Trips and events.
    pub facts: Facts,
    /// Samples of the trips that begin (+1) or cease (-1) to count.
    pub readings: Vec<(ReadingBatch, i64)>,
    /// Payloads of trips that are sealed; reason `late`, the payload is the trip as JSON.
    pub late: Vec<Reject>,
    /// Used ones, duplicates and late ones, ascending by origin.
    pub counts: Vec<(Arc<Origin>, IntakeCounts)>,
    /// What of the state is another now because trips were sealed.
    pub(crate) sealed: Vec<Place>,
}

/// Adds one epoch's payloads. What it says does not depend on their order, and is in the order of the trips.
pub fn step(cfg: &KernelConfig, state: &mut State, payloads: Vec<TripPayload>) -> Said {
    let mut said = Said::default();
    let mut counts: BTreeMap<Arc<Origin>, IntakeCounts> = BTreeMap::new();
    // What counted before the epoch, of the trips for which something else does now.
    let mut changed: BTreeMap<(Arc<str>, Arc<str>), Option<TripPayload>> = BTreeMap::new();
    for payload in payloads {
        let key = (payload.vehicle.clone(), payload.trip_id.clone());
        let vehicle = state.vehicles.entry(key.0.clone()).or_default();
        let counts = counts.entry(payload.origin.clone()).or_default();
        // What was known before the epoch may be corrected to any time.
        let known = vehicle.trips.contains_key(&key.1) && changed.get(&key) != Some(&None);
        if let Some(sealed) = vehicle.sealed.filter(|sealed| !known && ended_at(&payload) < *sealed) {
            counts.late += 1;
            said.late.push(too_late(cfg, &payload, sealed));
            continue;
        }
        counts.duplicates += 1;
        match vehicle.trips.entry(key.1.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Trip::new(payload));
                changed.insert(key, None);
            }
            Entry::Occupied(mut trip) => {
                if let Some(before) = trip.get_mut().receive(payload) {
                    changed.entry(key).or_insert(Some(before));
                }
            }
        }
    }
    said.late.sort_unstable();
    for ((vehicle, trip_id), before) in &changed {
        let Some(trip) = state.trip(vehicle, trip_id) else { continue };
        let (before, now) = (before.as_ref(), &trip.standing);
        if before == Some(now) {
            continue;
        }
        for (payload, used) in before.map(|payload| (payload, -1)).into_iter().chain([(now, 1)]) {
            let counts = counts.entry(payload.origin.clone()).or_default();
            counts.used += used;
            counts.duplicates -= used;
        }
        replace(cfg, before, now, &mut said);
    }
    counts.retain(|_, counts| *counts != IntakeCounts::default());
    said.counts.extend(counts);
    if let Some(retention) = cfg.facts_retention {
        changed.keys().for_each(|(vehicle, trip_id)| state.seal((vehicle, trip_id), retention, &mut said.sealed));
    }
    said
}

impl State {
    /// After a trip has changed: none is known that ended before its vehicle's line.
    fn seal(&mut self, (name, trip_id): (&Arc<str>, &Arc<str>), retention: i64, places: &mut Vec<Place>) {
        let Some(vehicle) = self.vehicles.get_mut(name) else { return };
        let Some(ended) = vehicle.trips.get(trip_id).map(|trip| ended_at(&trip.standing)) else { return };
        let line = line(ended, retention);
        if let Some(before) = vehicle.sealed
            && line <= before
        {
            // What was sent anew can stand where it was first sent, long ago.
            if ended < before {
                vehicle.trips.remove(trip_id);
                places.push((name.clone(), Some(trip_id.clone())));
            }
            return;
        }
        vehicle.sealed = Some(line);
        places.push((name.clone(), None));
        vehicle.trips.retain(|trip_id, trip| {
            let stays = ended_at(&trip.standing) >= line;
            if !stays {
                places.push((name.clone(), Some(trip_id.clone())));
            }
            stays
        });
    }
}

/// As of the trip's fact.
fn ended_at(payload: &TripPayload) -> i64 {
    payload.samples.last().map_or(payload.record_time, |sample| sample.at)
}

fn too_late(cfg: &KernelConfig, payload: &TripPayload, sealed: i64) -> Reject {
    Reject {
        origin: payload.origin.clone(),
        position: payload.position,
        record_time: payload.record_time,
        reason: "late".into(),
        detail: format!(
            "trip {:?} of vehicle {:?} ended at {}: before {}, from which on trips can still come or be replaced \
             (facts.retention)",
            payload.trip_id,
            payload.vehicle,
            format_rfc3339(ended_at(payload)),
            format_rfc3339(sealed)
        ),
        payload: Some(late::trip(cfg, payload).into_bytes()),
    }
}

/// Says `now` in the place of `before`, as far as they differ.
fn replace(cfg: &KernelConfig, before: Option<&TripPayload>, now: &TripPayload, said: &mut Said) {
    let was = before.map(|payload| trip_payload_facts(cfg, payload));
    let (trip, events) = trip_payload_facts(cfg, now);
    if was.as_ref().is_none_or(|was| was.0 != trip) {
        said.facts.trips.extend(was.iter().map(|was| (was.0.clone(), -1)));
        said.facts.trips.push((trip, 1));
    }
    if was.as_ref().is_none_or(|was| was.1 != events) {
        said.facts.events.extend(was.into_iter().flat_map(|was| was.1).map(|event| (event, -1)));
        said.facts.events.extend(events.into_iter().map(|event| (event, 1)));
    }
    let same = |before: &TripPayload| compare(before, now).is_eq() && first_at(before) == first_at(now);
    if !before.is_some_and(same) {
        let changes = before.map(|payload| (payload, -1)).into_iter().chain([(now, 1)]);
        let changes = changes.filter(|(payload, _)| !payload.samples.is_empty());
        said.readings.extend(changes.map(|(payload, diff)| (samples(cfg, payload), diff)));
    }
}

impl Trip {
    fn new(payload: TripPayload) -> Self {
        Trip { latest: payload.record_time, standing: payload, lost: BTreeMap::new() }
    }

    /// Adds a payload. Where something else counts by it, returns what did before.
    fn receive(&mut self, new: TripPayload) -> Option<TripPayload> {
        let sent = Sent::of(&new);
        let order = compare(&new, &self.standing);
        if order.is_eq() {
            self.latest = self.latest.max(new.record_time);
            return (sent < Sent::of(&self.standing)).then(|| std::mem::replace(&mut self.standing, new));
        }
        let hash_of_new = hash(&new);
        if (new.record_time, order) < (self.latest, Ordering::Equal) {
            let earliest = self.lost.entry(hash_of_new).or_insert_with(|| sent.clone());
            if sent < *earliest {
                *earliest = sent;
            }
            return None;
        }
        // Its latest copy is this one: any before it has lost to what counted, and so to this one's record time.
        self.latest = new.record_time;
        let earliest = match self.lost.remove(&hash_of_new) {
            Some(known) => known.min(sent),
            None => sent,
        };
        let before = std::mem::replace(&mut self.standing, earliest.of_content(new));
        self.lost.insert(hash(&before), Sent::of(&before));
        Some(before)
    }
}

impl Sent {
    fn of(payload: &TripPayload) -> Self {
        Sent {
            record_time: payload.record_time,
            origin: payload.origin.clone(),
            position: payload.position,
            first_at: first_at(payload),
            sample_interval: payload.sample_interval,
        }
    }

    /// The payload that was sent so, from another copy of it.
    fn of_content(self, mut copy: TripPayload) -> TripPayload {
        let later = self.first_at.saturating_sub(first_at(&copy));
        copy.samples.iter_mut().for_each(|sample| sample.at = sample.at.saturating_add(later));
        let Sent { record_time, origin, position, sample_interval, .. } = self;
        TripPayload { record_time, origin, position, sample_interval, ..copy }
    }
}

fn first_at(payload: &TripPayload) -> i64 {
    payload.samples.first().map_or(0, |sample| sample.at)
}

fn who(payload: &TripPayload) -> [&Option<Arc<str>>; 4] {
    [&payload.driver, &payload.fleet, &payload.quality, &payload.tags]
}

/// A sample's time from the first one on, its values and texts.
type Sampled<'a> = (i64, &'a [i64], &'a [(u16, Arc<str>)]);

fn content(payload: &TripPayload) -> impl Iterator<Item = Sampled<'_>> {
    let first = first_at(payload);
    payload.samples.iter().map(move |sample| (sample.at.saturating_sub(first), &*sample.values, &*sample.texts))
}

/// The order of contents of one trip.
fn compare(a: &TripPayload, b: &TripPayload) -> Ordering {
    who(a).cmp(&who(b)).then_with(|| content(a).cmp(content(b)))
}

/// XXH3-128 of the content, the same on every machine and in every release, since it stands in the state.
///
/// A text is its length and its bytes (a length of `u64::MAX`: none), a list its length and its items, numbers are
/// little endian.
fn hash(payload: &TripPayload) -> u128 {
    fn text(bytes: &mut Vec<u8>, text: &str) {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    let mut bytes = Vec::new();
    for id in who(payload) {
        match id {
            Some(id) => text(&mut bytes, id),
            None => bytes.extend(u64::MAX.to_le_bytes()),
        }
    }
    bytes.extend((payload.samples.len() as u64).to_le_bytes());
    for (at, values, texts) in content(payload) {
        bytes.extend(at.to_le_bytes());
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        bytes.extend((texts.len() as u64).to_le_bytes());
        for (signal, value) in texts {
            bytes.extend(signal.to_le_bytes());
            text(&mut bytes, value);
        }
    }
    key::hash128(&bytes)
}

/// The samples as readings, for the table `readings`.
fn samples(cfg: &KernelConfig, payload: &TripPayload) -> ReadingBatch {
    let mut batch = ReadingBatch::new(payload.origin.clone(), cfg.width());
    for (i, sample) in payload.samples.iter().enumerate() {
        let head = Head {
            at: sample.at,
            position: payload.position,
            record_time: payload.record_time,
            meta: 0,
            element: i as u32,
        };
        batch.push(head, &Arc::new(meta(payload, sample)), &sample.values);
    }
    batch
}

fn meta(payload: &TripPayload, sample: &TripSample) -> Meta {
    Meta {
        vehicle: payload.vehicle.clone(),
        texts: sample.texts.clone(),
        driver: payload.driver.clone(),
        trip: Some(payload.trip_id.clone()),
        fleet: payload.fleet.clone(),
        quality: payload.quality.clone(),
        tags: payload.tags.clone(),
    }
}

#[cfg(test)]
mod tests;
