//! The catalogue: every signal that the job knows, declared once (`[signals.<name>]`).

use crate::fixed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// The largest magnitude of a number, in its unit (DESIGN §5): keeps sums of squares within 128 bits.
pub const MAX_MAGNITUDE: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalType {
    #[default]
    Number,
    Bool,
    Text,
}

/// One signal as configured.
///
/// ```toml
/// [signals.speed_kmh]
/// vss = "Vehicle.Speed"
/// unit = "km/h"
/// range = [0, 400]
/// interval = "1s"
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignalConfig {
    /// COVESA VSS path, such as `Vehicle.Speed`. For documentation and for recognising roles.
    pub vss: Option<String>,
    /// `number` (default), `bool` or `text`.
    #[serde(rename = "type")]
    pub kind: SignalType,
    /// Unit in which values are kept, such as `km/h`, `g`, `deg`; see [`crate::unit`].
    pub unit: Option<String>,
    /// Decimals kept, 0 to 9; 6 by default, 7 for positions (unit `deg` with a VSS path under
    /// `Vehicle.CurrentLocation`). More are rounded half to even.
    pub decimals: Option<u32>,
    /// Valid range [min, max], inclusive, in `unit`; a value outside becomes null and is counted invalid.
    pub range: Option<[f64; 2]>,
    /// Expected sampling interval, such as `"1s"`.
    pub interval: Option<String>,
    /// Keep windows of this signal (default true for numbers).
    pub windows: Option<bool>,
    /// Keep p50, p95, p99 in its windows.
    pub quantiles: bool,
}

/// One signal, resolved. Its place in [`Catalogue::signals`] is its index everywhere.
#[derive(Clone, Debug)]
pub struct Signal {
    pub name: String,
    pub vss: Option<String>,
    pub kind: SignalType,
    pub unit: Option<String>,
    pub decimals: u32,
    /// Inclusive bounds in fixed point at `decimals`.
    pub min: i64,
    pub max: i64,
    /// Expected sampling interval, µs.
    pub interval: Option<i64>,
    pub windows: bool,
    pub quantiles: bool,
}

/// All signals, in byte order of their names (so that an index does not depend on the order in a file).
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pub signals: Vec<Signal>,
}

#[derive(Debug, Error)]
pub enum CatalogueError {
    #[error("signals.{0}: a signal's name is lower-case letters, digits and _, beginning with a letter")]
    Name(String),
    #[error("signals.{0}.{1}: {2}")]
    Field(String, &'static str, String),
}

/// Column names of `readings` that a signal must not take.
const RESERVED: [&str; 12] = [
    "vehicle_id",
    "at",
    "driver_id",
    "trip_id",
    "fleet_id",
    "quality",
    "tags",
    "epoch",
    "diff",
    "date",
    "schema",
    "updated_at",
];

impl Catalogue {
    /// Checks the configured signals and resolves their defaults.
    pub fn new(configs: &BTreeMap<String, SignalConfig>) -> Result<Self, CatalogueError> {
        let signals = configs.iter().map(|(name, c)| signal(name, c)).collect::<Result<_, _>>()?;
        Ok(Self { signals })
    }

    pub fn width(&self) -> usize {
        self.signals.len()
    }

    /// The index of a signal by its name.
    pub fn index(&self, name: &str) -> Option<u16> {
        self.signals.binary_search_by(|s| s.name.as_str().cmp(name)).ok().map(|i| i as u16)
    }

    /// The first signal with this VSS path.
    pub fn by_vss(&self, path: &str) -> Option<u16> {
        self.signals.iter().position(|s| s.vss.as_deref() == Some(path)).map(|i| i as u16)
    }
}

fn signal(name: &str, c: &SignalConfig) -> Result<Signal, CatalogueError> {
    let mut bytes = name.bytes();
    let ok = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if !ok || RESERVED.contains(&name) {
        return Err(CatalogueError::Name(name.to_string()));
    }
    let field = |f, m: String| CatalogueError::Field(name.to_string(), f, m);
    if let Some(unit) = &c.unit
        && crate::unit::Unit::parse(unit).is_none()
    {
        return Err(field("unit", crate::unit::unknown_unit(unit)));
    }
    let position =
        c.vss.as_deref().is_some_and(|v| v.starts_with("Vehicle.CurrentLocation.")) && c.unit.as_deref() == Some("deg");
    let decimals = match c.kind {
        SignalType::Number => c.decimals.unwrap_or(if position { 7 } else { 6 }),
        _ => 0,
    };
    if decimals > 9 {
        return Err(field("decimals", format!("{decimals} is more than 9")));
    }
    let limit = MAX_MAGNITUDE * fixed::pow10(decimals);
    let (min, max) = match (c.kind, c.range) {
        (SignalType::Bool, _) => (0, 1),
        (_, None) => (-limit, limit),
        (_, Some([lo, hi])) => {
            let bound = |v: f64| {
                fixed::parse_decimal(format!("{v}").as_bytes(), decimals)
                    .ok()
                    .filter(|v| v.abs() <= limit)
                    .ok_or_else(|| field("range", format!("{v} is not a number within ±1e9")))
            };
            (bound(lo)?, bound(hi)?)
        }
    };
    if min > max {
        return Err(field("range", "the first bound is above the second".into()));
    }
    let interval = match &c.interval {
        None => None,
        Some(text) => Some(crate::time::parse_duration(text).map_err(|e| field("interval", e.to_string()))?),
    };
    Ok(Signal {
        name: name.to_string(),
        vss: c.vss.clone(),
        kind: c.kind,
        unit: c.unit.clone(),
        decimals,
        min,
        max,
        interval,
        windows: c.windows.unwrap_or(true) && c.kind == SignalType::Number,
        quantiles: c.quantiles,
    })
}
