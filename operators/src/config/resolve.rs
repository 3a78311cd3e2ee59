//! From the sections as written to the [`KernelConfig`], with every contradiction named.

mod detectors;
mod events;

pub(crate) use events::acceleration_floor;

use super::params::{KernelConfig, Marker, Ratio, SignalInfo, TimeParams, TripParams, WindowParams};
use super::{DetectorsConfig, FactsConfig, TimeConfig, TripConfig, WindowConfig};
use crate::facts::Resolution;
use crate::quality::{QualityConfig, QualityParams};
use detectors::{range, stuck, zscore};
use drivetrain_schemas::catalogue::{Catalogue, Signal, SignalType};
use drivetrain_schemas::fixed::pow10;
use drivetrain_schemas::policy::Policy;
use drivetrain_schemas::time::parse_duration;
use drivetrain_schemas::unit::Unit;
use events::{event, harsh};
use std::collections::BTreeMap;
use std::sync::Arc;
use thiserror::Error;

/// A setting that cannot be used. `field` is its path in the file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct ConfigError {
    pub field: String,
    pub reason: String,
}

fn error<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError { field: field.into(), reason: reason.into() })
}

/// What a [`KernelConfig`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct KernelInput<'a> {
    pub time: &'a TimeConfig,
    pub trip: &'a TripConfig,
    pub facts: &'a FactsConfig,
    pub windows: &'a WindowConfig,
    pub detectors: &'a DetectorsConfig,
    pub quality: &'a QualityConfig,
    pub catalogue: &'a Catalogue,
    /// The policy that governs where no document does: its rules are those of the events.
    pub policy: &'a Policy,
    /// Sample interval by source, µs; 1 s for those not in it.
    pub intervals: &'a BTreeMap<Arc<str>, i64>,
}

impl KernelConfig {
    /// Checks and resolves.
    ///
    /// # Errors
    /// [`ConfigError`] with the field's path and the remedy.
    pub fn new(input: &KernelInput<'_>) -> Result<Self, ConfigError> {
        let KernelInput { catalogue, policy, .. } = *input;
        let time = time(input.time)?;
        let trip = trip(input.trip, catalogue, policy)?;
        let speed = trip.speed.map(|s| s.0);
        let events = policy.events.iter().enumerate();
        let events = events.map(|(i, r)| event(&format!("policy.events[{i}]"), r, catalogue, speed.is_some()));
        let named = |table: &str, name: &str| numeric(&format!("detectors.{table}.{name}"), name, catalogue);
        let detectors = input.detectors;
        let range = detectors.range.iter().map(|(name, c)| range(named("range", name)?, c, catalogue));
        let zscore = detectors.zscore.iter().map(|(name, c)| zscore(named("zscore", name)?, c, catalogue));
        let stuck = detectors.stuck.iter().map(|(name, c)| stuck(named("stuck", name)?, c, catalogue, speed));
        Ok(Self {
            signals: catalogue
                .signals
                .iter()
                .map(|s| SignalInfo { name: s.name.as_str().into(), kind: s.kind, decimals: s.decimals })
                .collect(),
            windows: windows(input.windows, catalogue)?,
            events: events.collect::<Result<_, _>>()?,
            range: range.collect::<Result<_, _>>()?,
            zscore: zscore.collect::<Result<_, _>>()?,
            stuck: stuck.collect::<Result<_, _>>()?,
            quality: QualityParams::new(input.quality, catalogue),
            intervals: input.intervals.clone(),
            facts_retention: facts(input.facts, &time)?,
            time,
            trip,
        })
    }
}

/// The message for a signal that is not in the catalogue, with the nearest name.
pub(crate) fn unknown_signal(name: &str, catalogue: &Catalogue) -> String {
    let near = catalogue.signals.iter().map(|s| (strsim::jaro_winkler(name, &s.name), &s.name));
    let near = near.filter(|(similarity, _)| *similarity > 0.75).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match near {
        Some((_, near)) => format!("did you mean {near:?}?"),
        None => format!("declare it under [signals.{name}]"),
    };
    format!("{name:?} is not a signal of the catalogue; {hint}")
}

fn signal<'a>(field: &str, name: &str, c: &'a Catalogue) -> Result<(u16, &'a Signal), ConfigError> {
    let found = c.index(name).and_then(|i| Some((i, c.signals.get(usize::from(i))?)));
    found.ok_or_else(|| ConfigError { field: field.to_string(), reason: unknown_signal(name, c) })
}

fn numeric(field: &str, name: &str, catalogue: &Catalogue) -> Result<u16, ConfigError> {
    let (index, s) = signal(field, name, catalogue)?;
    match s.kind {
        SignalType::Number => Ok(index),
        kind => error(field, format!("{name:?} is a signal of type {kind:?}; a number is needed")),
    }
}

fn duration(field: &str, text: &str) -> Result<i64, ConfigError> {
    parse_duration(text).map_err(|e| ConfigError { field: field.to_string(), reason: e.to_string() })
}

fn positive(field: &str, text: &str) -> Result<i64, ConfigError> {
    match duration(field, text)? {
        0 => error(field, "must be more than 0"),
        value => Ok(value),
    }
}

fn time(c: &TimeConfig) -> Result<TimeParams, ConfigError> {
    if c.hot_readings < 16 {
        return error("time.hot_readings", format!("{} is too few; at least 16", c.hot_readings));
    }
    Ok(TimeParams {
        out_of_orderness: duration("time.out_of_orderness", &c.out_of_orderness)?,
        hot_horizon: positive("time.hot_horizon", &c.hot_horizon)?,
        hot_readings: c.hot_readings,
        patience: duration("time.patience", &c.patience)?,
        quiet: duration("time.quiet", &c.quiet)?,
    })
}

fn facts(c: &FactsConfig, time: &TimeParams) -> Result<Option<i64>, ConfigError> {
    if c.retention == "forever" {
        return Ok(None);
    }
    let retention = duration("facts.retention", &c.retention)?;
    if retention < time.hot_horizon {
        let reason = format!(
            "{} is less than time.hot_horizon, within which late readings change trips; raise it, or lower that one",
            c.retention
        );
        return error("facts.retention", reason);
    }
    Ok(Some(retention))
}

/// The configured signal, else that of the VSS path.
fn role<'a>(
    field: &str,
    name: &Option<String>,
    vss: Option<&str>,
    catalogue: &'a Catalogue,
) -> Result<Option<(u16, &'a Signal)>, ConfigError> {
    let index = match name {
        Some(name) => numeric(field, name, catalogue)?,
        None => match vss.and_then(|path| catalogue.by_vss(path)) {
            Some(index) => index,
            None => return Ok(None),
        },
    };
    Ok(catalogue.signals.get(usize::from(index)).map(|s| (index, s)))
}

/// The factor from the signal's fixed-point numbers to `per_base` times the base unit of `dimension`.
fn factor(field: &str, s: &Signal, dimension: &str, per_base: (i128, i128)) -> Result<Ratio, ConfigError> {
    let Some(unit) = s.unit.as_deref().and_then(Unit::parse).filter(|u| u.dimension == dimension) else {
        let unit = s.unit.as_deref().unwrap_or("none");
        return error(field, format!("signal {:?} has unit {unit}; a unit of {dimension} is needed", s.name));
    };
    let scale = i128::from(pow10(s.decimals));
    Ok(Ratio::new(i128::from(unit.num) * per_base.0, i128::from(unit.den) * per_base.1 * scale))
}

fn trip(c: &TripConfig, catalogue: &Catalogue, policy: &Policy) -> Result<TripParams, ConfigError> {
    let find = |field: &str, name: &Option<String>, vss| role(&format!("trip.{field}"), name, vss, catalogue);
    // 1 m/s = 3.6e6 × 1e-6 km/h; 1 m = 3.6e12 (1e-6 km/h) × µs.
    let speed = find("speed", &c.speed, Some("Vehicle.Speed"))?;
    let speed = speed.map(|(i, s)| Ok((i, factor("trip.speed", s, "speed", (3_600_000, 1))?))).transpose()?;
    let length = |field: &str, found: Option<(u16, &Signal)>| {
        let field = format!("trip.{field}");
        found.map(|(i, s)| Ok((i, factor(&field, s, "length", (3_600_000_000_000, 1))?))).transpose()
    };
    let odometer = length("odometer", find("odometer", &c.odometer, Some("Vehicle.TraveledDistance"))?)?;
    let distance = length("distance", find("distance", &c.distance, None)?)?;
    let latitude = find("latitude", &c.latitude, Some("Vehicle.CurrentLocation.Latitude"))?;
    let longitude = find("longitude", &c.longitude, Some("Vehicle.CurrentLocation.Longitude"))?;
    let end_marker = match &c.end_marker {
        None => None,
        Some(name) => match signal("trip.end_marker", name, catalogue)? {
            (i, s) if s.kind == SignalType::Bool => Some(Marker::Bool(i)),
            (i, s) if s.kind == SignalType::Text => Some(Marker::Text(i)),
            _ => return error("trip.end_marker", format!("{name:?} is a number; a bool or text is needed")),
        },
    };
    let ignition = match &c.ignition {
        None => None,
        Some(name) => match signal("trip.ignition", name, catalogue)? {
            (i, s) if s.kind == SignalType::Bool => Some(i),
            _ => return error("trip.ignition", format!("{name:?} is not of type bool")),
        },
    };
    if c.speeding_above.is_some() && speed.is_none() {
        return error("trip.speeding_above", "needs a speed signal; set trip.speed");
    }
    Ok(TripParams {
        id_unique: c.id_unique,
        max_gap: positive("trip.max_gap", &c.max_gap)?,
        end_marker,
        ignition,
        speed,
        odometer,
        distance,
        position: latitude.zip(longitude).map(|(a, o)| [(a.0, a.1.decimals), (o.0, o.1.decimals)]),
        speeding_above: c.speeding_above.map(|v| v.0),
        harsh: harsh(catalogue, policy),
    })
}

fn windows(c: &WindowConfig, catalogue: &Catalogue) -> Result<Option<WindowParams>, ConfigError> {
    let all = [Resolution::Minute, Resolution::Hour, Resolution::Day];
    if let Some(wrong) = c.resolutions.iter().find(|r| !all.iter().any(|a| a.name() == r.as_str())) {
        return error("windows.resolutions", format!("{wrong:?} is not one of \"1m\", \"1h\", \"1d\""));
    }
    let wanted = |r: Resolution| c.resolutions.iter().any(|w| w == r.name());
    let mut signals = match &c.signals {
        Some(names) => {
            let find = |name: &String| numeric("windows.signals", name, catalogue);
            names.iter().map(find).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..).zip(&catalogue.signals).filter(|(_, s)| s.windows).map(|(i, _)| i).collect(),
    };
    signals.sort_unstable();
    signals.dedup();
    if !c.enabled || c.resolutions.is_empty() || signals.is_empty() {
        return Ok(None);
    }
    let mut quantile_signals = 0;
    let mut place = |i: &u16| {
        catalogue.signals.get(usize::from(*i)).is_some_and(|s| s.quantiles).then(|| {
            quantile_signals += 1;
            quantile_signals - 1
        })
    };
    let quantiles = signals.iter().map(&mut place).collect();
    let upper = [Resolution::Hour, Resolution::Day].into_iter().filter(|r| wanted(*r)).collect();
    Ok(Some(WindowParams { signals, quantiles, quantile_signals, minutes: wanted(Resolution::Minute), upper }))
}

#[cfg(test)]
mod tests;
