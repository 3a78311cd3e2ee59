//! What the per-vehicle kernels say: facts, each with a difference (+1 becomes true, -1 ceases to be).
//!
//! Facts are exact (integers, fixed point); they become rows with floats only at the edge.

use drivetrain_schemas::policy::EventKind;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A change of a fact.
pub type Change<F> = (F, isize);

/// Everything that one run of a vehicle's kernels says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub windows: Vec<Change<WindowFact>>,
    pub events: Vec<Change<EventFact>>,
    pub trips: Vec<Change<TripFact>>,
    pub anomalies: Vec<Change<AnomalyFact>>,
}

/// Resolution of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resolution {
    Minute,
    Hour,
    Day,
}

impl Resolution {
    pub fn name(self) -> &'static str {
        match self {
            Resolution::Minute => "1m",
            Resolution::Hour => "1h",
            Resolution::Day => "1d",
        }
    }

    /// Length in µs.
    pub fn micros(self) -> i64 {
        match self {
            Resolution::Minute => 60_000_000,
            Resolution::Hour => 3_600_000_000,
            Resolution::Day => 86_400_000_000,
        }
    }
}

/// The closed window of one signal of one vehicle; numbers at the signal's decimals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WindowFact {
    pub vehicle: Arc<str>,
    pub signal: u16,
    pub resolution: Resolution,
    pub start: i64,
    pub stats: Stats,
    /// p50, p95, p99 at the signal's decimals, where the signal asks for them.
    pub quantiles: Option<[i64; 3]>,
}

/// Exact sums over the known values of a window. Mergeable in time order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stats {
    pub count: i64,
    pub sum: i128,
    /// Σx², exact while it fits (see DESIGN §12), modulo 2^128 always.
    pub squares: i128,
    pub min: i64,
    pub max: i64,
    pub first: i64,
    pub last: i64,
}

/// An excursion beyond the thresholds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventFact {
    pub vehicle: Arc<str>,
    pub kind: EventKind,
    pub signal: u16,
    /// First and last sample beyond the threshold, µs.
    pub started_at: i64,
    pub ended_at: i64,
    pub trip_id: Option<Arc<str>>,
    pub driver: Option<Arc<str>>,
    pub samples: i64,
    /// The value furthest from zero, at the signal's decimals.
    pub peak: i64,
    /// 0 low, 1 medium, 2 high.
    pub severity: u8,
    /// Position at its start, at the decimals of the position signals.
    pub position: Option<(i64, i64)>,
}

/// What is known of a trip, open or ended: enough to score it under any policy without reading the past again.
///
/// While a trip is open its fact changes only when `harsh` gets an entry at or beyond the kernel's report threshold;
/// it then has everything as of that sample.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TripFact {
    pub trip_id: Arc<str>,
    pub vehicle: Arc<str>,
    /// The driver with most samples, ties by id.
    pub driver: Option<Arc<str>>,
    /// The record's fleet (at the trip's first sample that has one).
    pub fleet: Option<Arc<str>>,
    pub open: bool,
    /// It was sent as one record, and may be replaced by another ([`crate::payloads`]).
    pub whole: bool,
    /// First and last sample, µs.
    pub started_at: i64,
    pub ended_at: i64,
    pub samples: i64,
    /// From the first to the last sample plus the source's sample interval, µs.
    pub duration: i64,
    /// In (1e-6 km/h) × µs, so that no step is rounded: km = distance / 3.6e15. None: not known.
    pub distance: Option<i128>,
    /// Highest speed in 1e-6 km/h.
    pub max_speed: Option<i64>,
    /// Time above the configured speed, µs, where one is configured.
    pub speeding: Option<i64>,
    /// The histogram of samples beyond the floor, ascending by (signal, bin, speed).
    pub harsh: Vec<Harsh>,
}

/// One bin of a trip's histogram of harsh samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Harsh {
    pub signal: u16,
    /// On the grid of 0.001 of the signal's unit: `2k` is exactly k·0.001, `2k+1` is strictly between k·0.001 and
    /// (k+1)·0.001 in value (so `floor`); so that > and >= are both exact. Negative values have negative bins.
    pub bin: i32,
    /// Speed in whole km/h (rounded down); -1 not known.
    pub speed: i16,
    pub count: u32,
}

/// A signal that left what is normal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AnomalyFact {
    pub vehicle: Arc<str>,
    pub signal: u16,
    pub detector: Detector,
    /// high, low, spike or stuck.
    pub kind: AnomalyKind,
    pub started_at: i64,
    /// First normal reading after it; None while open.
    pub ended_at: Option<i64>,
    /// 0 low, 1 medium, 2 high.
    pub severity: u8,
    /// How abnormal at its worst, in thousandths: see the detector.
    pub score: i64,
    /// The worst value, and what would have been normal then, at the signal's decimals.
    pub observed: i64,
    pub expected: Option<i64>,
    /// The record's fleet when it began.
    pub fleet: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Detector {
    Range,
    Zscore,
    Stuck,
}

impl Detector {
    pub fn name(self) -> &'static str {
        match self {
            Detector::Range => "range",
            Detector::Zscore => "zscore",
            Detector::Stuck => "stuck",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnomalyKind {
    High,
    Low,
    Spike,
    Stuck,
}

impl AnomalyKind {
    pub fn name(self) -> &'static str {
        match self {
            AnomalyKind::High => "high",
            AnomalyKind::Low => "low",
            AnomalyKind::Spike => "spike",
            AnomalyKind::Stuck => "stuck",
        }
    }
}

/// How complete, valid and timely a signal of a vehicle was in an hour: see [`crate::quality`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualityFact {
    pub vehicle: Arc<str>,
    pub signal: u16,
    /// Start of the hour, µs.
    pub start: i64,
    /// Values expected by the signal's interval; None where it has none.
    pub expected: Option<i64>,
    pub received: i64,
    pub invalid: i64,
    pub duplicates: i64,
    pub late: i64,
}

/// What the vehicle is doing, after all readings so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VehicleFact {
    pub vehicle: Arc<str>,
    /// Event time of the newest reading, µs.
    pub at: i64,
    pub driver: Option<Arc<str>>,
    /// The open trip, as in `trips`.
    pub trip_id: Option<Arc<str>>,
    pub fleet: Option<Arc<str>>,
    /// The last known value of each signal, [`drivetrain_schemas::reading::NULL`] where there was none.
    pub values: Vec<i64>,
    pub texts: Vec<(u16, Arc<str>)>,
}
