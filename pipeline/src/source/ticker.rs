//! When an epoch begins and ends. Pure: it is told what the clock says.
//!
//! An epoch begins with the first thing that happens in it (a chunk, a control change, a change of the idle set) and
//! ends when `max_records` were handed out or, in a running job, `interval` has passed. In a replay time plays no part,
//! so the same files give the same epochs.
//!
//! A running job that is behind has no use for short epochs: what it reads has waited longer than that. While more
//! records wait than the epoch has, it goes on (at most [`BEHIND`]). So a backlog goes by `max_records`, its rest by
//! halves, and an epoch never adds more to what a record has waited than about as much again.
//!
//! A running job with nothing to do makes an empty epoch now and then, because silence (DESIGN §4) is judged when an epoch
//! runs; `settle` after the last change nothing is pending any more, and it stops:
//!
//! ```text
//!  last input ──► empty epochs, one each empty_every ──────────────────► the first that is `settle` later; then none
//!                 │ vehicle_state_every: the last states are said        │
//!                 │ quiet: vehicles have been silent long enough         └ longer than each of [`Pending`], so that an
//!                 │ idle_after: the idle set changes (an epoch of its own,   epoch comes after what it has to say
//!                 ▼             from which `settle` counts anew)
//! ```
//!
//! `time.patience` and `time.out_of_orderness` have no part in it: they are distances in event time from the global
//! watermark, which moves with input and with the idle set and never with the clock. When all partitions are idle it
//! stands at the newest event time of all (less `out_of_orderness`); what ended less than `patience` before that stays
//! open however long the job waits, until input goes on or ends. So `settle` need not (and, with a patience of a day,
//! should not) be longer than it.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// `[epoch]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EpochConfig {
    /// Longest time that a record waits for its epoch to end; default `20ms`. While more records are known to wait than the
    /// epoch has, it goes on, up to `max_records` or 0.5 s: a backlog is read in large epochs.
    pub interval: String,
    /// Largest number of records in an epoch; default 131,072. An epoch's readings are taken vehicle by vehicle, so that
    /// of a backlog large ones are faster.
    pub max_records: usize,
    /// How many epochs may be under way that are not committed yet; default 8. Beside that, no epoch begins while those
    /// under way hold twice `max_records` (at least 65,536) or more.
    pub max_in_flight: i64,
    /// Largest number of records in a chunk, the unit in which workers get them; default 1,024.
    pub chunk_records: usize,
    /// How far a partition may be ahead of the slowest in event time; less than `hot_horizon`; default `1m`.
    pub max_skew: String,
    /// A Kafka partition without data for that long holds nobody; default `10s`. One that has not been read to its end
    /// (a slow fetch, a broker that is away) holds the others six times as long.
    pub idle_after: String,
    /// An empty epoch at most that often while there is no input; default `200ms`.
    pub empty_every: String,
    /// Empty epochs go on until one is that long after the last input; more than `time.quiet` and
    /// `live.vehicle_state_every`; default: 10 s more than the longer of these, so that `intake` is logged, too.
    pub settle: Option<String>,
    /// How often the state is kept for a restart; `"0s"`: never, and a restart repeats all input. Default `10s`.
    pub checkpoint_every: String,
}

impl Default for EpochConfig {
    fn default() -> Self {
        Self {
            interval: "20ms".into(),
            max_records: 131_072,
            max_in_flight: 8,
            chunk_records: 8192,
            max_skew: "1m".into(),
            idle_after: "10s".into(),
            empty_every: "200ms".into(),
            settle: None,
            checkpoint_every: "10s".into(),
        }
    }
}

/// What is said by the clock after the last input, each when an epoch comes that long after it, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// `time.quiet`: then silence closes what it can.
    pub quiet: i64,
    /// `live.vehicle_state_every`, 0 where no states are said: then the last ones are, at the latest.
    pub vehicle_state_every: i64,
}

/// By how much the default of `settle` is longer than what is pending: clocks that are set back a little, and the
/// logging of `intake` (every 10 s).
const MARGIN: i64 = 10_000_000;

/// How long an epoch of a backlog lasts at most.
pub(crate) const BEHIND: Duration = Duration::from_millis(500);

/// Records that may always be under way, however small the epochs.
const FLYING: usize = 1 << 16;

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
    /// Longer than what is [`Pending`].
    pub settle: Duration,
    /// None: never.
    pub checkpoint_every: Option<Duration>,
}

impl EpochConfig {
    /// Checks the values and reads the durations.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn resolve(&self, pending: Pending) -> Result<EpochSettings, (&'static str, String)> {
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
            settle: self.settle(pending)?,
            checkpoint_every: Some(duration("checkpoint_every", &self.checkpoint_every)?).filter(|d| !d.is_zero()),
        })
    }

    fn settle(&self, pending: Pending) -> Result<Duration, (&'static str, String)> {
        let waits = [("time.quiet", pending.quiet), ("live.vehicle_state_every", pending.vehicle_state_every)];
        let longest = waits.map(|(_, us)| us).into_iter().fold(0, i64::max);
        let Some(text) = &self.settle else {
            return Ok(Duration::from_micros(longest.saturating_add(MARGIN).unsigned_abs()));
        };
        let settle = drivetrain_schemas::time::parse_duration(text).map_err(|e| ("settle", e.to_string()))?;
        if let Some((name, us)) = waits.into_iter().find(|(_, us)| settle <= *us) {
            let least = (longest.saturating_add(MARGIN) as u64).div_ceil(1_000_000);
            return Err((
                "settle",
                format!(
                    "{text:?} is not more than {name} ({} s): epochs would stop before the last of it is said; raise it, \
                     or leave it out (then it is \"{least}s\")",
                    us as f64 / 1e6
                ),
            ));
        }
        Ok(Duration::from_micros(settle.unsigned_abs()))
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
    /// Epochs that were not committed when last looked at, and their records.
    flying: VecDeque<(i64, usize)>,
    /// When the last epoch ended.
    closed: Instant,
    /// When something last happened.
    active: Instant,
}

impl Ticker {
    pub(crate) fn new(settings: EpochSettings, mode: Mode, epoch: i64, now: Instant) -> Self {
        Self { settings, mode, epoch, began: None, records: 0, flying: VecDeque::new(), closed: now, active: now }
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.epoch
    }

    pub(crate) fn is_open(&self) -> bool {
        self.began.is_some()
    }

    /// Whether an epoch may begin while the last committed one is `committed`.
    pub(crate) fn may_begin(&mut self, committed: i64) -> bool {
        while self.flying.front().is_some_and(|(epoch, _)| *epoch <= committed) {
            self.flying.pop_front();
        }
        let records: usize = self.flying.iter().map(|(_, records)| records).sum();
        let room = records < self.settings.max_records.saturating_mul(2).max(FLYING);
        room && self.epoch.saturating_sub(committed) <= self.settings.max_in_flight
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

    /// Whether the open epoch is to end. `waiting` says how many records wait and can be handed out now; it is asked only
    /// when time has come.
    pub(crate) fn due(&self, now: Instant, waiting: impl FnOnce() -> u64) -> bool {
        let Some(began) = self.began else { return false };
        let open = now.duration_since(began);
        let in_time = || open < self.settings.interval || (open < BEHIND && waiting() > self.records as u64);
        self.room() == 0 || (self.mode == Mode::Run && !in_time())
    }

    /// Whether an empty epoch is to pass, so that time does. The last one ends `settle` after the last change or later:
    /// also where epochs had to wait for commits meanwhile.
    pub(crate) fn wants_empty(&self, now: Instant) -> bool {
        self.is_unsettled() && self.began.is_none() && now.duration_since(self.closed) >= self.settings.empty_every
    }

    fn is_unsettled(&self) -> bool {
        self.mode == Mode::Run && self.closed.saturating_duration_since(self.active) < self.settings.settle
    }

    /// How long to wait at most when nothing comes.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        let until = |from: Instant, after: Duration| after.saturating_sub(now.duration_since(from));
        match self.began {
            Some(began) if self.mode == Mode::Run => until(began, self.settings.interval),
            Some(_) => Duration::from_millis(10),
            // Whoever brings something wakes the thread.
            None if self.mode == Mode::Run && !self.is_unsettled() => Duration::MAX,
            None => until(self.closed, self.settings.empty_every).max(Duration::from_millis(1)),
        }
    }

    /// Ends the epoch and returns its number.
    pub(crate) fn close(&mut self, now: Instant) -> i64 {
        let epoch = self.epoch;
        self.flying.push_back((epoch, self.records));
        self.epoch += 1;
        self.began = None;
        self.records = 0;
        self.closed = now;
        epoch
    }

    /// Goes on after an epoch that was made from a record of the past.
    pub(crate) fn jump(&mut self, next: i64, now: Instant) {
        if self.records > 0 {
            self.flying.push_back((self.epoch, self.records));
        }
        self.epoch = next;
        self.began = None;
        self.records = 0;
        self.closed = now;
        self.active = now;
    }
}
