//! When an epoch begins and ends. Pure: it is told what the clock says.
//!
//! An epoch begins with the first thing that happens in it (a chunk, a control change, a change of the idle set) and
//! ends when `max_records` were handed out or, in a running job, `interval` has passed. In a replay time plays no part,
//! so the same files give the same epochs. A running job with nothing to do makes an empty epoch now and then, because
//! silence (DESIGN §4) is measured in epochs; some time after the last change nothing can close any more, and it stops.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// `[epoch]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpochConfig {
    /// Longest time that a record waits for its epoch to end; default `20ms`.
    pub interval: String,
    /// Largest number of records in an epoch; default 10,000.
    pub max_records: usize,
    /// How many epochs may be under way that are not committed yet; default 8.
    pub max_in_flight: i64,
    /// Largest number of records in a chunk, the unit in which workers get them; default 1,024.
    pub chunk_records: usize,
    /// How far a partition may be ahead of the slowest in event time; less than `hot_horizon`; default `1m`.
    pub max_skew: String,
    /// A Kafka partition without data for that long holds nobody; default `10s`.
    pub idle_after: String,
    /// An empty epoch at most that often while there is no input; default `200ms`.
    pub empty_every: String,
    /// No more empty epochs that long after the last input; more than `patience` and `quiet`; default `1m`.
    pub settle: String,
}

impl Default for EpochConfig {
    fn default() -> Self {
        Self {
            interval: "20ms".into(),
            max_records: 10_000,
            max_in_flight: 8,
            chunk_records: 1024,
            max_skew: "1m".into(),
            idle_after: "10s".into(),
            empty_every: "200ms".into(),
            settle: "1m".into(),
        }
    }
}

/// [`EpochConfig`], checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochSettings {
    pub interval: Duration,
    pub max_records: usize,
    pub max_in_flight: i64,
    pub chunk_records: usize,
    /// µs.
    pub max_skew: i64,
    pub idle_after: Duration,
    pub empty_every: Duration,
    pub settle: Duration,
}

impl EpochConfig {
    /// Checks the values and reads the durations.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn resolve(&self) -> Result<EpochSettings, (&'static str, String)> {
        let micros =
            |field, text: &str| drivetrain_schemas::time::parse_duration(text).map_err(|e| (field, e.to_string()));
        let duration = |field, text| micros(field, text).map(|us| Duration::from_micros(us.unsigned_abs()));
        for (field, value) in [
            ("max_records", self.max_records),
            ("max_in_flight", self.max_in_flight.max(0) as usize),
            ("chunk_records", self.chunk_records),
        ] {
            if value == 0 {
                return Err((field, "must be at least 1".into()));
            }
        }
        Ok(EpochSettings {
            interval: duration("interval", &self.interval)?,
            max_records: self.max_records,
            max_in_flight: self.max_in_flight,
            chunk_records: self.chunk_records,
            max_skew: micros("max_skew", &self.max_skew)?,
            idle_after: duration("idle_after", &self.idle_after)?,
            empty_every: duration("empty_every", &self.empty_every)?,
            settle: duration("settle", &self.settle)?,
        })
    }
}

/// Whether time ends epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `run`: until stopped; epochs end by time or count.
    Run,
    /// `replay`: until the input ends; epochs end by count.
    Replay,
}

/// The state of the current epoch.
#[derive(Debug)]
pub(crate) struct Ticker {
    settings: EpochSettings,
    mode: Mode,
    /// The epoch that is open, or the next one.
    epoch: i64,
    began: Option<Instant>,
    records: usize,
    closed: Instant,
    active: Instant,
}

impl Ticker {
    pub(crate) fn new(settings: EpochSettings, mode: Mode, epoch: i64, now: Instant) -> Self {
        Self { settings, mode, epoch, began: None, records: 0, closed: now, active: now }
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(crate) fn is_open(&self) -> bool {
        self.began.is_some()
    }

    /// Whether an epoch may begin while the last committed one is `committed`.
    pub(crate) fn may_begin(&self, committed: i64) -> bool {
        self.epoch.saturating_sub(committed) <= self.settings.max_in_flight
    }

    pub(crate) fn begin(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.active = now;
    }

    /// How many more records the epoch takes.
    pub(crate) fn room(&self) -> usize {
        self.settings.max_records.saturating_sub(self.records)
    }

    pub(crate) fn gave(&mut self, records: usize) {
        self.records += records;
    }

    /// Whether the open epoch is to end.
    pub(crate) fn due(&self, now: Instant) -> bool {
        let Some(began) = self.began else { return false };
        self.room() == 0 || (self.mode == Mode::Run && now.duration_since(began) >= self.settings.interval)
    }

    /// Whether an empty epoch is to pass, so that time does.
    pub(crate) fn wants_empty(&self, now: Instant) -> bool {
        self.mode == Mode::Run
            && self.began.is_none()
            && now.duration_since(self.closed) >= self.settings.empty_every
            && now.duration_since(self.active) <= self.settings.settle
    }

    /// How long to wait at most when nothing comes.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        let until = |from: Instant, after: Duration| after.saturating_sub(now.duration_since(from));
        match self.began {
            Some(began) if self.mode == Mode::Run => until(began, self.settings.interval),
            Some(_) => Duration::from_millis(10),
            None => until(self.closed, self.settings.empty_every).max(Duration::from_millis(1)),
        }
    }

    /// Ends the epoch and returns its number.
    pub(crate) fn close(&mut self, now: Instant) -> i64 {
        let epoch = self.epoch;
        self.epoch += 1;
        self.began = None;
        self.records = 0;
        self.closed = now;
        epoch
    }

    /// Goes on after an epoch that was made from a record of the past.
    pub(crate) fn jump(&mut self, next: i64, now: Instant) {
        self.epoch = next;
        self.began = None;
        self.records = 0;
        self.closed = now;
        self.active = now;
    }
}
