//! Scoring policies are data (DESIGN §7): a JSON or TOML document that says what a harsh event is and what it costs.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A scoring policy as written. [`Policy::fleetflow`] is the default one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub policy_id: Arc<str>,
    pub version: i64,
    /// RFC 3339; the trips that start in [valid_from, valid_to) are governed. Default: always.
    #[serde(default)]
    pub valid_from: Option<String>,
    #[serde(default)]
    pub valid_to: Option<String>,
    /// A fleet, inherited by its descendants (the nearest wins); none: everybody.
    #[serde(default)]
    pub scope: Option<Arc<str>>,
    #[serde(default)]
    pub status: Status,
    /// Score of a trip without events. Default 100.
    #[serde(default = "hundred")]
    pub base: i64,
    /// Lowest score. Default 0.
    #[serde(default)]
    pub floor: i64,
    pub events: Vec<EventRule>,
    /// What the counts are divided by before they are weighted. Default none.
    #[serde(default)]
    pub normalisation: Normalisation,
    #[serde(default)]
    pub driver: DriverRule,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Active,
    Shadow,
    Retired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    HarshBraking,
    RapidAcceleration,
    HarshCornering,
    Speeding,
    Collision,
    Idling,
}

impl EventKind {
    pub fn name(self) -> &'static str {
        match self {
            EventKind::HarshBraking => "harsh_braking",
            EventKind::RapidAcceleration => "rapid_acceleration",
            EventKind::HarshCornering => "harsh_cornering",
            EventKind::Speeding => "speeding",
            EventKind::Collision => "collision",
            EventKind::Idling => "idling",
        }
    }
}

/// On which side of zero a value counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Negative,
    Positive,
    #[default]
    Both,
}

/// How the magnitude is compared with the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    #[default]
    Gt,
    Ge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counting {
    #[default]
    Sample,
    Excursion,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Normalisation {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "per_100km")]
    Per100Km,
    #[serde(rename = "per_hour")]
    PerHour,
}

/// One kind of event: a sample counts when its magnitude on the given side passes the threshold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventRule {
    pub kind: EventKind,
    /// Name of a signal of the catalogue, such as `g_force_long`.
    pub signal: Arc<str>,
    #[serde(default)]
    pub direction: Direction,
    /// Magnitude as decimal text or number, in the signal's unit: on the grid of 0.001, at or above what trips keep, which
    /// is 0.2 g for accelerations, and for other signals the smallest threshold on them in the configuration's policy.
    pub threshold: Decimal,
    #[serde(default)]
    pub compare: Compare,
    /// Points that one event costs.
    pub weight: Decimal,
    #[serde(default)]
    pub counting: Counting,
    /// An excursion ends when the magnitude falls below threshold × (1 - hysteresis).
    #[serde(default)]
    pub hysteresis: Option<Decimal>,
    /// Excursions shorter than this do not count, such as `"100ms"`.
    #[serde(default)]
    pub min_duration: Option<String>,
    /// Samples below this speed (km/h, whole) do not count.
    #[serde(default)]
    pub min_speed: Option<u16>,
    /// Magnitudes from which an event is `medium` and `high`. Default 1.3 and 1.7 times the threshold.
    #[serde(default)]
    pub severity: Option<[Decimal; 2]>,
}

/// A decimal number kept exactly at six decimals; read from a JSON or TOML number or from text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal(pub i64);

impl Decimal {
    pub const DECIMALS: u32 = 6;
}

impl Serialize for Decimal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Between processes as the integer that it is; JSON and TOML have the number.
        match serializer.is_human_readable() {
            true => serializer.serialize_f64(crate::fixed::to_f64(i128::from(self.0), Decimal::DECIMALS)),
            false => serializer.serialize_i64(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Decimal);
        }
        // The shortest text of a double is the number as it was written, up to 15 digits.
        let text = match crate::mapping::Number::deserialize(deserializer)? {
            crate::mapping::Number::Int(v) => v.to_string(),
            crate::mapping::Number::Float(v) => v.to_string(),
            crate::mapping::Number::Text(v) => v,
        };
        crate::fixed::parse_decimal(text.as_bytes(), Decimal::DECIMALS)
            .map(Decimal)
            .map_err(|e| serde::de::Error::custom(format!("{text:?}: {e}")))
    }
}

/// How trips make a driver's score.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DriverRule {
    /// Trips count that ended within this time up to the end of the driver's newest trip. Default `28d`.
    pub horizon: String,
    pub weighting: Weighting,
    /// Below this exposure (s, km or trips, by `weighting`) the score is null. Default 0.
    pub min_exposure: Decimal,
    /// Names of score bands, from the best down: `[{ name = "good", from = 90 }, …]`.
    pub bands: Vec<Band>,
}

impl Default for DriverRule {
    fn default() -> Self {
        Self {
            horizon: "28d".into(),
            weighting: Weighting::Duration,
            min_exposure: Decimal(0),
            bands: [("excellent", 90), ("good", 75), ("fair", 60), ("poor", 0)]
                .map(|(name, from)| Band { name: name.into(), from: Decimal(from * 1_000_000) })
                .into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    #[default]
    Duration,
    Distance,
    Trip,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    pub name: Arc<str>,
    pub from: Decimal,
}

fn hundred() -> i64 {
    100
}

impl Policy {
    /// The default policy: 100, less 5 for each sample with `g_force_long` < -0.4 (harsh braking) or > 0.4 (rapid
    /// acceleration), not below 0 (DESIGN §7).
    pub fn fleetflow() -> Policy {
        let rule = |kind, direction| EventRule {
            kind,
            signal: "g_force_long".into(),
            direction,
            threshold: Decimal(400_000),
            compare: Compare::Gt,
            weight: Decimal(5_000_000),
            counting: Counting::Sample,
            hysteresis: None,
            min_duration: None,
            min_speed: None,
            severity: None,
        };
        Policy {
            policy_id: "fleetflow".into(),
            version: 1,
            valid_from: None,
            valid_to: None,
            scope: None,
            status: Status::Active,
            base: 100,
            floor: 0,
            events: vec![
                rule(EventKind::HarshBraking, Direction::Negative),
                rule(EventKind::RapidAcceleration, Direction::Positive),
            ],
            normalisation: Normalisation::None,
            driver: DriverRule::default(),
        }
    }
}
