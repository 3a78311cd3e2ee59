//! What the kernels are told: names are indices, durations µs, thresholds fixed-point numbers.

use crate::facts::Resolution;
use crate::quality::QualityParams;
use drivetrain_schemas::catalogue::SignalType;
use drivetrain_schemas::fixed::div_round;
use drivetrain_schemas::policy::{Decimal, Direction, EventKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that the kernels are told. The same on every worker.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    pub signals: Vec<SignalInfo>,
    pub time: TimeParams,
    pub trip: TripParams,
    pub windows: Option<WindowParams>,
    pub events: Vec<EventParams>,
    pub range: Vec<RangeParams>,
    pub zscore: Vec<ZscoreParams>,
    pub stuck: Vec<StuckParams>,
    /// None: the table `quality` stays empty, and nothing is counted.
    pub quality: Option<QualityParams>,
    /// Sample interval by source, µs.
    pub intervals: BTreeMap<Arc<str>, i64>,
    /// Trips are sealed this long after their end, µs; None: never.
    pub facts_retention: Option<i64>,
}

impl KernelConfig {
    /// Sample interval of a source not in [`KernelConfig::intervals`], µs.
    pub const DEFAULT_INTERVAL: i64 = 1_000_000;

    /// Signals in the catalogue.
    pub fn width(&self) -> usize {
        self.signals.len()
    }

    /// The sample interval of a source, µs.
    pub fn interval(&self, source: &str) -> i64 {
        self.intervals.get(source).copied().unwrap_or(Self::DEFAULT_INTERVAL)
    }

    /// Decimals of the signals of latitude and longitude (7 where there are none).
    pub fn position_decimals(&self) -> (u32, u32) {
        self.trip.position.map_or((7, 7), |[lat, lon]| (lat.1, lon.1))
    }
}

/// `[time]` in µs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeParams {
    pub out_of_orderness: i64,
    pub hot_horizon: i64,
    pub hot_readings: usize,
    pub patience: i64,
    pub quiet: i64,
}

/// An exact factor, applied with one rounding half to even (none where `den` is 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    pub num: i128,
    pub den: i128,
}

impl Ratio {
    pub(super) fn new(num: i128, den: i128) -> Self {
        let (mut a, mut b) = (num, den);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Ratio { num: num / a.max(1), den: den / a.max(1) }
    }

    #[inline]
    pub fn of(&self, value: i64) -> i128 {
        let product = i128::from(value) * self.num;
        if self.den == 1 { product } else { div_round(product, self.den) }
    }
}

/// What ends a trip with the reading that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    Bool(u16),
    Text(u16),
}

#[derive(Clone, Debug)]
pub struct TripParams {
    pub id_unique: bool,
    pub max_gap: i64,
    pub end_marker: Option<Marker>,
    pub ignition: Option<u16>,
    /// With the factor to 1e-6 km/h.
    pub speed: Option<(u16, Ratio)>,
    /// With the factor to (1e-6 km/h) × µs.
    pub odometer: Option<(u16, Ratio)>,
    pub distance: Option<(u16, Ratio)>,
    /// Latitude and longitude, and the decimals of each.
    pub position: Option<[(u16, u32); 2]>,
    /// In 1e-6 km/h.
    pub speeding_above: Option<i64>,
    pub harsh: Vec<HarshParams>,
}

/// A signal of which trips keep the histogram of large values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HarshParams {
    pub signal: u16,
    pub decimals: u32,
    /// Magnitudes from here on are kept, at the signal's decimals.
    pub floor: i64,
    /// The least threshold that counts exactly, in the signal's unit: `floor` before it was put on the signal's grid.
    pub least: Decimal,
    /// An open trip says so when a value is at or below / at or above this (the default policy's smallest thresholds).
    pub report_below: Option<i64>,
    pub report_above: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct WindowParams {
    /// Signals with windows, ascending; their places here are those of the accumulators.
    pub signals: Vec<u16>,
    /// By place: which of the quantile maps is the signal's.
    pub quantiles: Vec<Option<usize>>,
    pub quantile_signals: usize,
    pub minutes: bool,
    /// Resolutions above minutes.
    pub upper: Vec<Resolution>,
}

/// A rule of the default policy, for the excursions.
#[derive(Clone, Debug)]
pub struct EventParams {
    pub kind: EventKind,
    pub signal: u16,
    pub direction: Direction,
    /// The smallest magnitude beyond the threshold, at the signal's decimals.
    pub enter: i64,
    /// An excursion goes on down to this magnitude (hysteresis); `enter` without.
    pub stay: i64,
    /// µs.
    pub min_duration: i64,
    /// In 1e-6 km/h.
    pub min_speed: Option<i64>,
    /// Magnitudes of medium and of high severity.
    pub severity: [i64; 2],
}

#[derive(Clone, Copy, Debug)]
pub struct RangeParams {
    pub signal: u16,
    pub min: i64,
    pub max: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct ZscoreParams {
    pub signal: u16,
    pub window: usize,
    pub min_samples: usize,
    /// In 1e-6.
    pub threshold: i64,
    /// Least MAD: 0.001 of the unit.
    pub least_mad: i64,
}

#[derive(Clone, Copy, Debug)]
pub struct StuckParams {
    pub signal: u16,
    pub lasting: i64,
    pub moving_only: bool,
}

/// What a reading's JSON form (of a late one) needs to know of a signal.
#[derive(Clone, Debug)]
pub struct SignalInfo {
    pub name: Arc<str>,
    pub kind: SignalType,
    pub decimals: u32,
}
