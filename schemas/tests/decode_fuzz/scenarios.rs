//! Sources with the mappings that are tried, and what their records hold.

use drivetrain_schemas::catalogue::{Catalogue, CatalogueError, SignalConfig};
use drivetrain_schemas::decode::SourceContext;
use drivetrain_schemas::mapping::{Limits, Mapping};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a field holds in a record that nobody has damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Vehicle,
    Id,
    /// RFC 3339
    Time,
    /// Wall clock without an offset
    Local,
    /// Unix time with so many decimals in its unit
    Unix(u32),
    /// RFC 3339, and Unix time, of when the record was sent: after all event times
    Sent,
    SentUnix(u32),
    /// 01/05/2026 07:00:00
    Pattern,
    /// Hours
    Steps,
    /// Low and high in units of 10^-decimals, decimals
    Number(i64, i64, u32),
    Bool,
    Text,
    Sensor,
    /// Of whatever sensor
    Value,
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// `[sources.<name>]` as JSON.
    mapping: &'static str,
    pub(crate) fields: &'static [(&'static str, What)],
    /// The path of the array of elements or samples, and what these hold.
    pub(crate) elements: Option<(&'static str, &'static [(&'static str, What)])>,
    not_after: Option<&'static str>,
}

/// Largest record in bytes: now and then one is larger.
pub(crate) const MAX_RECORD: usize = 4_000;
/// Now and then an array has more.
pub(crate) const MAX_ELEMENTS: usize = 6;

use What::*;

const SPEED: What = Number(0, 13_000, 2);
const LAT: What = Number(-900_000_000, 900_000_000, 7);
const TEMP: What = Number(-400, 2_500, 1);

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the simulator's records",
        mapping: "{}",
        fields: &[
            ("vehicle_id", Vehicle),
            ("fleet_id", Id),
            ("driver_id", Id),
            ("at", Time),
            ("speed_kmh", SPEED),
            ("g_force_long", Number(-999, 999, 3)),
            ("latitude", LAT),
            ("longitude", LAT),
            ("heading", Number(0, 3_599, 1)),
            ("engine_rpm", Number(0, 6_000, 0)),
            ("fuel_level", Number(0, 10_000, 2)),
            ("odometer_km", Number(0, 99_999_999, 3)),
        ],
        elements: None,
        not_after: None,
    },
    Scenario {
        name: "nested paths, units, sentinels",
        mapping: r#"{
            "fields": {"vehicle": "device.id", "time": {"field": "t", "format": "unix_ms"}, "record_time": "sent",
                "driver": "device.driver.card", "fleet": "=north", "trip": "$header.trip", "quality": "gps.fix"},
            "signals": {
                "latitude": "gps.lat", "longitude": "gps.coords[1]", "heading": "gps.coords[3]",
                "speed_kmh": {"field": "v", "unit": "mph", "sentinels": [113.9952, "n/a", "255"]},
                "temp": {"field": "[\"Vehicle.Temp\"]", "unit": "fahrenheit"},
                "engine_rpm": {"field": "rpm", "scale": "0.25", "offset": -40, "sentinels": [65535]},
                "ignition": {"field": "ign", "sentinels": [2]}, "gear": {"field": "gear", "sentinels": ["?", 7]},
                "odometer_km": "gps"
            },
            "ignore": ["debug", "gps.hdop", "device.driver"]
        }"#,
        fields: &[
            ("device.id", Vehicle),
            ("device.driver.card", Id),
            ("device.model", Text),
            ("t", Unix(3)),
            ("sent", Sent),
            ("gps.lat", LAT),
            ("gps.coords[0]", LAT),
            ("gps.coords[1]", LAT),
            ("gps.hdop", SPEED),
            ("gps.fix", Id),
            ("v", SPEED),
            ("[\"Vehicle.Temp\"]", TEMP),
            ("rpm", Number(0, 65_535, 0)),
            ("ign", Bool),
            ("gear", Text),
            ("debug", Text),
            ("fuel_level", Number(0, 10_000, 2)),
        ],
        elements: None,
        not_after: Some("2026-05-02T20:00:00Z"),
    },
    Scenario {
        name: "the key's vehicle, no tags, units by time",
        mapping: r#"{
            "fields": {"vehicle": "$key", "time": {"field": "when", "zone": "America/Chicago"}, "fleet": "$topic",
                "trip": "$partition", "quality": "$file"},
            "signals": {"speed_kmh": {"unit": [
                {"until": "2026-05-01T12:00:00Z", "unit": "mph"}, {"until": "2026-05-02T00:00:00Z", "unit": "m/s"},
                {"unit": "km/h"}]}, "temp": {"unit": "kelvin"}, "gear": "$timestamp", "ignition": "=1"},
            "only_mapped": true, "tags": false
        }"#,
        fields: &[
            ("when", Local),
            ("driver_id", Id),
            ("speed_kmh", SPEED),
            ("temp", Number(25_000, 35_000, 2)),
            ("fuel_level", SPEED),
            ("note", Text),
        ],
        elements: None,
        not_after: None,
    },
    Scenario {
        name: "long",
        mapping: r#"{"layout": "long", "signals": {"temp": {"field": "t_f", "unit": "fahrenheit"},
            "fuel_level": {"unit": "ratio"}, "heading": "speed_kmh"}}"#,
        fields: &[
            ("at", Time),
            ("vehicle_id", Vehicle),
            ("sensor_type", Sensor),
            ("value", Value),
            ("quality", Id),
            ("metadata", Text),
        ],
        elements: None,
        not_after: None,
    },
    Scenario {
        name: "long, each sensor",
        mapping: r#"{"layout": "long", "each": "sensors", "ignore": ["crc"], "fields": {"vehicle": "hub.id",
            "time": {"field": "ts", "format": "unix_s"}, "record_time": {"field": "hub.sent", "format": "rfc3339"},
            "sensor": "name", "value": "reading.value"}}"#,
        fields: &[("hub.id", Vehicle), ("hub.sent", Sent), ("ts", Unix(0)), ("crc", Id), ("hub.site", Text)],
        elements: Some((
            "sensors",
            &[("name", Sensor), ("reading.value", Value), ("reading.unit", Text), ("ts", Unix(0)), ("quality", Id)],
        )),
        not_after: None,
    },
    Scenario {
        name: "wide, each row of a nested array",
        mapping: r#"{"each": "payload.rows", "fields": {"time":
            {"field": "day", "format": "%d/%m/%Y %H:%M:%S", "zone": "America/Chicago"}},
            "signals": {"latitude": "pos[0]", "longitude": "pos[1]", "gear": "payload.rows[0].gear"}}"#,
        fields: &[("vehicle_id", Vehicle), ("day", Pattern), ("payload.version", Id), ("fuel_level", SPEED)],
        elements: Some((
            "payload.rows",
            &[
                ("day", Pattern),
                ("speed_kmh", SPEED),
                ("pos[0]", LAT),
                ("pos[1]", LAT),
                ("pos[2]", LAT),
                ("ignition", Bool),
                ("gear", Text),
                ("driver_id", Id),
            ],
        )),
        not_after: None,
    },
    Scenario {
        name: "trip",
        mapping: r#"{"layout": "trip", "sample_interval": "500ms", "ignore": ["odd"]}"#,
        fields: &[
            ("trip_id", Id),
            ("vehicle_id", Vehicle),
            ("at", Time),
            ("speed_kmh", SPEED),
            ("driver_id", Id),
            ("odd", Text),
        ],
        elements: Some((
            "data",
            &[("at", Unix(0)), ("speed_kmh", SPEED), ("gear", Text), ("ignition", Bool), ("odd", Text), ("temp", TEMP)],
        )),
        not_after: None,
    },
    Scenario {
        name: "each trip, hours from a base",
        mapping: r#"{"layout": "trip", "each": "trips", "fields": {"samples": "vehicle.log",
            "vehicle": "vehicle.id", "record_time": {"field": "stamp", "format": "unix_us"},
            "time": {"field": "hour", "base": "2026-05-01T00:00:00Z", "step": "1h"}}}"#,
        fields: &[("stamp", SentUnix(6)), ("hour", Steps), ("fleet_id", Id), ("site", Text)],
        elements: Some((
            "trips",
            &[
                ("vehicle.id", Vehicle),
                ("trip_id", Id),
                ("hour", Steps),
                ("vehicle.log[0].temp", TEMP),
                ("vehicle.log[1].hour", Steps),
                ("vehicle.log[1].speed_kmh", SPEED),
            ],
        )),
        not_after: None,
    },
];

impl Scenario {
    pub(crate) fn context(&self) -> Result<SourceContext, serde_json::Error> {
        let mapping: Mapping = serde_json::from_str(self.mapping)?;
        let not_after = self.not_after.map(str::to_string);
        let limits = Limits { max_record: MAX_RECORD, max_elements: MAX_ELEMENTS, not_after, ..Limits::default() };
        Ok(SourceContext { name: "fuzz".into(), mapping, limits, replay_at: Some(1_777_700_000_000_000) })
    }
}

/// The signals of all scenarios.
pub(crate) fn catalogue() -> Result<Arc<Catalogue>, CatalogueError> {
    const SIGNALS: &str = r#"{
        "speed_kmh": {"unit": "km/h", "range": [0, 400]},
        "g_force_long": {"unit": "g", "decimals": 3},
        "latitude": {"vss": "Vehicle.CurrentLocation.Latitude", "unit": "deg", "range": [-90, 90]},
        "longitude": {"vss": "Vehicle.CurrentLocation.Longitude", "unit": "deg", "range": [-180, 180]},
        "heading": {"unit": "deg", "decimals": 0},
        "engine_rpm": {"unit": "rpm", "range": [0, 16000], "decimals": 1},
        "fuel_level": {"unit": "percent", "decimals": 2},
        "odometer_km": {"unit": "km", "decimals": 9},
        "temp": {"unit": "celsius"},
        "ignition": {"type": "bool"},
        "gear": {"type": "text"}
    }"#;
    let configs: BTreeMap<String, SignalConfig> = serde_json::from_str(SIGNALS).unwrap_or_default();
    Ok(Arc::new(Catalogue::new(&configs)?))
}
