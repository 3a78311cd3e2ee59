//! How the records of a source are read: the layout and the mapping of fields, as configured under
//! `[sources.<name>]`. No code is needed for other people's records.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One moment of one vehicle, a field a signal.
    #[default]
    Wide,
    /// One measurement: `sensor_type` names the signal, `value` is its value.
    Long,
    /// A whole trip with its samples.
    Trip,
}

/// The mapping of a source (part of `[sources.<name>]`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    /// `wide` (default), `long` or `trip`.
    pub layout: Layout,
    /// Path of an array to expand: each element is a record that also sees its parent's fields, such as `"sensors"`.
    /// Inside an element a path is looked up in the element first, then in the parent.
    pub each: Option<String>,
    /// Time between two samples, such as `"1s"` (default): the exposure of a trip's last sample, and the spacing of a
    /// trip payload's samples that bear no time of their own.
    pub sample_interval: Option<String>,
    /// Which field is what.
    pub fields: Fields,
    /// Which field is which signal. A signal not named here is read from the field of its own name, unless
    /// `only_mapped` is set.
    pub signals: BTreeMap<String, SignalMapping>,
    /// Read only the signals under `signals`.
    pub only_mapped: bool,
    /// Fields that are neither mapped nor wanted in `tags` (paths).
    pub ignore: Vec<String>,
    /// Put fields that nothing names into `tags` (default true).
    pub tags: Option<bool>,
}

/// Where the parts of a record stand. A value is a path (`gps.coords[0]`, `vehicle_id`), one of `$key`,
/// `$header.<name>`, `$topic`, `$partition`, `$timestamp`, `$file`, or a constant `=text`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// Default `vehicle_id`. Required in each record. Numbers are taken as their text.
    pub vehicle: Option<String>,
    /// Default `driver_id`.
    pub driver: Option<String>,
    /// Default `trip_id`.
    pub trip: Option<String>,
    /// Default `fleet_id`.
    pub fleet: Option<String>,
    /// Default `quality`.
    pub quality: Option<String>,
    /// Event time; default `at`. Required in each record of the layouts `wide` and `long`.
    pub time: Option<TimeField>,
    /// When the record was sent, for `future_tolerance` and trip payloads; default `$timestamp` where there is one.
    pub record_time: Option<TimeField>,
    /// Layout `long`: default `sensor_type`.
    pub sensor: Option<String>,
    /// Layout `long`: default `value`.
    pub value: Option<String>,
    /// Layout `trip`: the array of samples; default `data`. A sample's own time is its field `at` (or `fields.time`).
    pub samples: Option<String>,
}

/// Where a time stands and how it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TimeField {
    /// A path; the format is recognised as RFC 3339, or as a number of Unix seconds.
    Path(String),
    Full(TimeFormat),
}

/// `{ field = "t", format = "unix_ms" }`; `{ field = "t", format = "%d/%m/%Y %H:%M:%S", zone = "America/Chicago" }`;
/// `{ field = "cycle", base = "2020-01-01T00:00:00Z", step = "1h" }` (time = base + step × column).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeFormat {
    pub field: String,
    /// `rfc3339` (default; also with a space, and without offset if `zone` is given), `unix_s`, `unix_ms`, `unix_us`,
    /// `unix_ns`, or a `strptime` pattern (it contains `%`).
    pub format: Option<String>,
    /// IANA time zone for times without an offset.
    pub zone: Option<String>,
    pub base: Option<String>,
    pub step: Option<String>,
}

/// Where a signal stands and how it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SignalMapping {
    Path(String),
    Full(SignalField),
}

/// `{ field = "speed", unit = "mph", sentinels = [113.9952] }`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignalField {
    /// Default: the signal's own name.
    pub field: Option<String>,
    /// The unit in which the record states it; converted exactly to the catalogue's.
    pub unit: Option<UnitField>,
    /// value = raw × scale + offset, before the unit is converted. Decimal text or number; exact.
    pub scale: Option<Number>,
    pub offset: Option<Number>,
    /// Raw values that mean "not known" (compared by value, before any conversion; texts by their bytes).
    pub sentinels: Vec<Number>,
}

/// A unit, or units by interval of event time: `[{ until = "2015-12-01T00:00:00Z", unit = "mph" }, { unit = "m/s" }]`
/// (`until` exclusive, ascending, the last without).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum UnitField {
    One(String),
    ByTime(Vec<UnitInterval>),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnitInterval {
    pub until: Option<String>,
    pub unit: String,
}

/// A number in a configuration, as TOML number or as text (exact).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Number {
    Int(i64),
    Float(f64),
    Text(String),
}

/// Limits of what is plausible (`[limits]`); a record beyond them is rejected.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Times before are implausible. Default `2000-01-01T00:00:00Z`.
    pub not_before: String,
    /// Times from then on are implausible. Default none.
    pub not_after: Option<String>,
    /// How far `at` may be ahead of Kafka's timestamp or `record_time`. Default `1m`.
    pub future_tolerance: String,
    /// Largest record in bytes. Default 1 MiB.
    pub max_record: usize,
    /// Largest number of elements in an expanded array or of samples in a trip payload. Default 100,000.
    pub max_elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            not_before: "2000-01-01T00:00:00Z".into(),
            not_after: None,
            future_tolerance: "1m".into(),
            max_record: 1 << 20,
            max_elements: 100_000,
        }
    }
}
