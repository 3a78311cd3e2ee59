//! The kernels' part of the configuration: the sections as written, and [`KernelConfig`], resolved.

mod params;
mod resolve;

pub use params::{
    EventParams, HarshParams, KernelConfig, Marker, RangeParams, Ratio, SignalInfo, StuckParams, TimeParams,
    TripParams, WindowParams, ZscoreParams,
};
pub use resolve::{ConfigError, KernelInput};
pub(crate) use resolve::{acceleration_floor, unknown_signal};

use drivetrain_schemas::policy::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[time]` (DESIGN §4).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeConfig {
    /// A vehicle's watermark is its newest event time less this. Default `5s`.
    pub out_of_orderness: String,
    /// Readings may be this much older than the vehicle's newest. Default `2m`.
    pub hot_horizon: String,
    /// How many readings of a vehicle are kept for that, at most. Default 100,000.
    pub hot_readings: usize,
    /// How long an open thing's end must lie behind the global watermark. Default `5m`.
    pub patience: String,
    /// How long a vehicle must have sent nothing. Default `2s`.
    pub quiet: String,
}

impl Default for TimeConfig {
    fn default() -> Self {
        Self {
            out_of_orderness: "5s".into(),
            hot_horizon: "2m".into(),
            hot_readings: 100_000,
            patience: "5m".into(),
            quiet: "2s".into(),
        }
    }
}

/// `[trip]`: how trips are cut and measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TripConfig {
    /// The record's trip ids are unique for ever (default false: `<vehicle>:<trip>:<date of start>`).
    pub id_unique: bool,
    /// Without trip ids, a gap of this length ends a trip; speed × time counts steps up to it. Default `5m`.
    pub max_gap: String,
    /// A `bool` signal that cuts trips where records have no trip id: a trip is open while it is true.
    pub ignition: Option<String>,
    /// A `bool` signal that is true (or a `text` signal that is known) in the last reading of a trip.
    pub end_marker: Option<String>,
    /// Signals that say the distance; default: by their VSS path (`Vehicle.Speed`, `Vehicle.TraveledDistance`,
    /// `Vehicle.CurrentLocation.Latitude` and `.Longitude`).
    pub speed: Option<String>,
    pub odometer: Option<String>,
    /// Distance since the reading before.
    pub distance: Option<String>,
    pub latitude: Option<String>,
    pub longitude: Option<String>,
    /// Speeding is time above this speed, km/h. Default: not measured.
    pub speeding_above: Option<Decimal>,
}

impl Default for TripConfig {
    fn default() -> Self {
        Self {
            id_unique: false,
            max_gap: "5m".into(),
            ignition: None,
            end_marker: None,
            speed: None,
            odometer: None,
            distance: None,
            latitude: None,
            longitude: None,
            speeding_above: None,
        }
    }
}

/// `[facts]`: what is kept in memory to score trips anew.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactsConfig {
    /// A trip that ended this long before its vehicle's newest one is sealed: it leaves memory and checkpoints, and its
    /// results stay as they are, whatever a policy or a vehicle's document says later; a trip payload that ended before it is
    /// late. Not less than `time.hot_horizon`, or "forever". Default `90d`.
    pub retention: String,
}

impl Default for FactsConfig {
    fn default() -> Self {
        Self { retention: "90d".into() }
    }
}

/// `[windows]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WindowConfig {
    /// Default true.
    pub enabled: bool,
    /// `1m`, `1h`, `1d`. Default: all three.
    pub resolutions: Vec<String>,
    /// Signals with windows; default: those whose `windows` is not false.
    pub signals: Option<Vec<String>>,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { enabled: true, resolutions: ["1m", "1h", "1d"].map(String::from).into(), signals: None }
    }
}

/// `[detectors.<detector>.<signal>]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorsConfig {
    pub range: BTreeMap<String, RangeConfig>,
    pub zscore: BTreeMap<String, ZscoreConfig>,
    pub stuck: BTreeMap<String, StuckConfig>,
}

/// A value beyond [min, max] is abnormal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {
    pub min: Decimal,
    pub max: Decimal,
}

/// A value far from the rolling median is abnormal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ZscoreConfig {
    /// Values in the rolling window. Default 64.
    pub window: usize,
    /// Robust standard deviations from the median. Default 6.
    pub threshold: Decimal,
    /// Values needed before it judges. Default 16, at most `window`.
    pub min_samples: Option<usize>,
}

impl Default for ZscoreConfig {
    fn default() -> Self {
        Self { window: 64, threshold: Decimal(6_000_000), min_samples: None }
    }
}

/// A value that does not change is abnormal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StuckConfig {
    /// For this long. Default `60s`.
    #[serde(rename = "for")]
    pub lasting: String,
    /// Count only while the vehicle moves. Default: where there is a speed signal beside this one.
    pub moving_only: Option<bool>,
}

impl Default for StuckConfig {
    fn default() -> Self {
        Self { lasting: "60s".into(), moving_only: None }
    }
}
