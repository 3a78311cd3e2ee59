//! Kernel: how complete, valid and timely each signal of a vehicle is, hour by hour of event time (table `quality`).
//!
//! ```text
//!  arrivals, late ones ─► counts of the hours that are open ──(floor, or silence)──► facts
//! ```
//!
//! Contract: an hour's fact is a function of what arrived, as a multiset, and of no order or batching: sums, and the
//! first and last time. So nothing is ever counted again on a rewind, and this state stands beside the vehicle's log
//! and not in its snapshots. An hour is said once, when every reading of it that could still come would be late (its
//! end is at or before the floor), so that in a running job a fact is retracted only where silence said it before.
//!
//! What counts where, of a vehicle and signal:
//! - *received*: readings in which it is known, without duplicates, by the hour of their time;
//! - *duplicates*: the further arrivals of those;
//! - *invalid*: arrivals whose value was made null (duplicates too: which of two equal readings had the bad value
//!   would depend on the order), by the hour of their time;
//! - *late*: late readings in which it is known, by the hour of the vehicle's newest time when they came: their own
//!   hour has been said and forgotten;
//! - *expected*: as many as fit, at the signal's interval, between the vehicle's first and last reading of the hour,
//!   both included. A vehicle that stands still with its device off misses nothing; a sensor that is silent while
//!   others of the vehicle speak does, from the first hour on in which it has spoken.
//!
//! Samples of trip payloads are not counted: they have no sequence to be late or incomplete in.

use crate::facts::{Change, QualityFact};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const HOUR: i64 = 3_600_000_000;

/// `[quality]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityConfig {
    /// Fill the table `quality`. Default true.
    pub enabled: bool,
}

impl Default for QualityConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// `[quality]`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QualityParams {
    /// The expected sampling interval by signal, µs, more than 0.
    pub intervals: Vec<Option<i64>>,
}

impl QualityParams {
    /// None where it is switched off.
    pub fn new(config: &QualityConfig, catalogue: &Catalogue) -> Option<Self> {
        let intervals = catalogue.signals.iter().map(|s| s.interval.filter(|interval| *interval > 0));
        config.enabled.then(|| QualityParams { intervals: intervals.collect() })
    }
}

/// What seldom happens, by signal. Empty until it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rare {
    duplicates: Vec<i64>,
    invalid: Vec<i64>,
    late: Vec<i64>,
}

/// The counts of one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hour {
    start: i64,
    /// First and last time of an arrival in it.
    first: i64,
    last: i64,
    /// By signal: arrivals in which it is known, less duplicates.
    received: Vec<i64>,
    rare: Rare,
}

impl Hour {
    fn end(&self) -> i64 {
        self.start.saturating_add(HOUR)
    }

    /// Says what each signal came to, and takes note of the signals that have spoken.
    fn say(
        &self,
        cfg: &QualityParams,
        vehicle: &Arc<str>,
        seen: &mut [bool],
        diff: isize,
        out: &mut Vec<Change<QualityFact>>,
    ) {
        let span = self.last.saturating_sub(self.first);
        for (signal, interval) in cfg.intervals.iter().enumerate() {
            let of = |counts: &[i64]| counts.get(signal).copied().unwrap_or(0);
            let fact = QualityFact {
                vehicle: vehicle.clone(),
                signal: signal as u16,
                start: self.start,
                expected: interval.map(|interval| span / interval + 1),
                received: of(&self.received),
                invalid: of(&self.rare.invalid),
                duplicates: of(&self.rare.duplicates),
                late: of(&self.rare.late),
            };
            let spoke = fact.received + fact.invalid > 0;
            let Some(known) = seen.get_mut(signal) else { continue };
            *known |= spoke;
            if spoke || fact.late > 0 || (*known && fact.expected.is_some()) {
                out.push((fact, diff));
            }
        }
    }
}

/// The open hours of one vehicle: the newest, and those that the horizon still reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Ascending by start.
    hours: Vec<Hour>,
    /// By signal: it has spoken in an hour that has been said for good.
    seen: Vec<bool>,
}

impl State {
    pub fn new(cfg: &QualityParams) -> Self {
        State { hours: Vec::new(), seen: vec![false; cfg.intervals.len()] }
    }

    /// A reading that is not late, duplicate or not. `values` by signal; `texts`: the signals of type text that it
    /// has, with their values.
    #[inline]
    pub fn arrived(&mut self, at: i64, values: &[i64], texts: &[(u16, Arc<str>)]) {
        let hour = self.hour(at);
        hour.first = hour.first.min(at);
        hour.last = hour.last.max(at);
        for (count, value) in hour.received.iter_mut().zip(values) {
            *count += i64::from(*value != NULL);
        }
        for (signal, _) in texts {
            if let Some(count) = hour.received.get_mut(usize::from(*signal)) {
                *count += 1;
            }
        }
    }

    /// A value of an arrival was made null.
    #[cold]
    pub fn invalid(&mut self, at: i64, signal: u16) {
        let width = self.seen.len();
        let counts = sized(&mut self.hour(at).rare.invalid, width);
        if let Some(count) = counts.get_mut(usize::from(signal)) {
            *count += 1;
        }
    }

    /// A reading that has [`arrived`](State::arrived) equals one that had arrived before.
    #[cold]
    pub fn duplicate(&mut self, at: i64, values: &[i64], texts: &[(u16, Arc<str>)]) {
        let width = self.seen.len();
        let hour = self.hour(at);
        let duplicates = sized(&mut hour.rare.duplicates, width);
        for signal in known(values, texts) {
            if let (Some(received), Some(duplicates)) = (hour.received.get_mut(signal), duplicates.get_mut(signal)) {
                *received -= 1;
                *duplicates += 1;
            }
        }
    }

    /// A late reading: it counts in the vehicle's newest hour.
    #[cold]
    pub fn late(&mut self, values: &[i64], texts: &[(u16, Arc<str>)]) {
        let width = self.seen.len();
        let Some(newest) = self.hours.last_mut() else { return };
        let late = sized(&mut newest.rare.late, width);
        for signal in known(values, texts) {
            if let Some(count) = late.get_mut(signal) {
                *count += 1;
            }
        }
    }

    #[inline]
    fn hour(&mut self, at: i64) -> &mut Hour {
        // Nearly always the newest: told without a division.
        let place = match self.hours.last() {
            Some(newest) if (newest.start..newest.end()).contains(&at) => self.hours.len() - 1,
            _ => self.place(at.saturating_sub(at.rem_euclid(HOUR))),
        };
        &mut self.hours[place]
    }

    /// Where the hour stands, which is begun if it wasn't.
    #[cold]
    fn place(&mut self, start: i64) -> usize {
        let place = self.hours.partition_point(|hour| hour.start < start);
        if self.hours.get(place).is_none_or(|hour| hour.start != start) {
            let received = vec![0; self.seen.len()];
            let hour = Hour { start, first: i64::MAX, last: i64::MIN, received, rare: Rare::default() };
            self.hours.insert(place, hour);
        }
        place
    }

    /// Says, for good, the hours that end at `floor` or before: what could still come of them would be late.
    #[inline]
    pub fn settle(&mut self, cfg: &QualityParams, vehicle: &Arc<str>, floor: i64, out: &mut Vec<Change<QualityFact>>) {
        while self.hours.first().is_some_and(|hour| hour.end() <= floor) {
            self.hours.remove(0).say(cfg, vehicle, &mut self.seen, 1, out);
        }
    }

    /// Says, with `diff`, the open hours that end `patience` before `upto` or earlier. Changes nothing: who has said
    /// them by silence takes them back with -1 before the next arrival, late ones included.
    pub fn close(
        &self,
        cfg: &QualityParams,
        patience: i64,
        vehicle: &Arc<str>,
        upto: i64,
        diff: isize,
        out: &mut Vec<Change<QualityFact>>,
    ) {
        let due = |hour: &&Hour| hour.end().saturating_add(patience) <= upto;
        if !self.hours.first().is_some_and(|first| due(&first)) {
            return;
        }
        let mut seen = self.seen.clone();
        self.hours.iter().take_while(due).for_each(|hour| hour.say(cfg, vehicle, &mut seen, diff, out));
    }

    /// The first time after `after` at which [`State::close`] says more.
    pub fn deadline(&self, patience: i64, after: i64) -> Option<i64> {
        let deadlines = self.hours.iter().map(|hour| hour.end().saturating_add(patience));
        deadlines.filter(|deadline| *deadline > after).min()
    }
}

/// The counts, one for each signal.
fn sized(counts: &mut Vec<i64>, width: usize) -> &mut [i64] {
    counts.resize(width, 0);
    counts
}

/// The signals that a reading knows.
fn known(values: &[i64], texts: &[(u16, Arc<str>)]) -> impl Iterator<Item = usize> {
    let numbers = values.iter().enumerate().filter(|(_, value)| **value != NULL).map(|(signal, _)| signal);
    numbers.chain(texts.iter().map(|(signal, _)| usize::from(*signal)))
}

/// Bytes that one vehicle's open hours take (two: near the turn of an hour the horizon reaches back).
pub fn memory(cfg: &QualityParams) -> usize {
    let width = cfg.intervals.len();
    size_of::<State>() + width + 2 * (size_of::<Hour>() + size_of::<i64>() * width)
}

#[cfg(test)]
mod tests;
