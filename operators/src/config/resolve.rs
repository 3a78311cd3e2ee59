//! [`KernelConfig`]: names become indices, durations µs, thresholds fixed-point numbers.

use super::{DetectorsConfig, TimeConfig, TripConfig, WindowConfig};
use crate::facts::Resolution;
use drivetrain_schemas::catalogue::{Catalogue, Signal, SignalType};
use drivetrain_schemas::fixed::{div_round, pow10};
use drivetrain_schemas::policy::{Compare, Decimal, Direction, EventKind, EventRule, Policy};
use drivetrain_schemas::time::parse_duration;
use drivetrain_schemas::unit::Unit;
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
    fn new(num: i128, den: i128) -> Self {
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
    /// Sample interval by source, µs.
    pub intervals: BTreeMap<Arc<str>, i64>,
}

/// What a [`KernelConfig`] is made of.
#[derive(Clone, Copy, Debug)]
pub struct KernelInput<'a> {
    pub time: &'a TimeConfig,
    pub trip: &'a TripConfig,
    pub windows: &'a WindowConfig,
    pub detectors: &'a DetectorsConfig,
    pub catalogue: &'a Catalogue,
    /// The policy that governs where no document does: its rules are those of the events.
    pub policy: &'a Policy,
    /// Sample interval by source, µs; 1 s for those not in it.
    pub intervals: &'a BTreeMap<Arc<str>, i64>,
}

impl KernelConfig {
    /// Sample interval of a source not in [`KernelConfig::intervals`], µs.
    pub const DEFAULT_INTERVAL: i64 = 1_000_000;

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
            time,
            windows: windows(input.windows, catalogue)?,
            events: events.collect::<Result<_, _>>()?,
            range: range.collect::<Result<_, _>>()?,
            zscore: zscore.collect::<Result<_, _>>()?,
            stuck: stuck.collect::<Result<_, _>>()?,
            intervals: input.intervals.clone(),
            trip,
        })
    }

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

/// The floor of the facts (DESIGN §7: 0.2 g) in thousandths of a unit of acceleration, rounded down to the grid.
pub(crate) fn acceleration_floor(unit: Option<&str>) -> Option<i64> {
    let unit = unit.and_then(Unit::parse).filter(|u| u.dimension == "acceleration")?;
    let g = Unit::parse("g")?;
    let (num, den) = (200 * i128::from(g.num) * i128::from(unit.den), i128::from(g.den) * i128::from(unit.num));
    i64::try_from(num / den).ok()
}

/// Signals of acceleration, and those that the default policy's rules name; of the latter, which may be of any unit,
/// from the smallest threshold on.
fn harsh(catalogue: &Catalogue, policy: &Policy) -> Vec<HarshParams> {
    let numbers = catalogue.signals.iter().enumerate().filter(|(_, s)| s.kind == SignalType::Number);
    let params = |(index, s): (usize, &Signal)| {
        let rules = || policy.events.iter().filter(|r| *r.signal == *s.name);
        let report = |side| {
            let rules = rules().filter(|r| r.direction == side || r.direction == Direction::Both);
            rules.map(|r| ceil(r.threshold, s.decimals)).min()
        };
        let (above, below) = (report(Direction::Positive), report(Direction::Negative));
        let floor = match acceleration_floor(s.unit.as_deref()) {
            Some(thousandths) => ceil(Decimal(thousandths * 1000), s.decimals),
            None => above.into_iter().chain(below).min()?,
        };
        Some(HarshParams {
            signal: index as u16,
            decimals: s.decimals,
            floor: floor.max(1),
            report_below: below.map(|v| -v),
            report_above: above,
        })
    };
    numbers.filter_map(params).collect()
}

/// The smallest fixed-point number that is not below `value`.
fn ceil(value: Decimal, decimals: u32) -> i64 {
    -floor(Decimal(-value.0), decimals)
}

/// The largest fixed-point number that is not above `value`.
fn floor(value: Decimal, decimals: u32) -> i64 {
    match decimals.checked_sub(Decimal::DECIMALS) {
        Some(more) => value.0.saturating_mul(pow10(more)),
        None => value.0.div_euclid(pow10(Decimal::DECIMALS - decimals)),
    }
}

fn event(field: &str, r: &EventRule, catalogue: &Catalogue, speed: bool) -> Result<EventParams, ConfigError> {
    let signal = numeric(&format!("{field}.signal"), &r.signal, catalogue)?;
    let decimals = catalogue.signals.get(usize::from(signal)).map_or(0, |s| s.decimals);
    if r.threshold.0 <= 0 {
        return error(format!("{field}.threshold"), "must be more than 0");
    }
    let least = |threshold| match r.compare {
        Compare::Gt => floor(threshold, decimals) + 1,
        Compare::Ge => ceil(threshold, decimals),
    };
    let stay = match r.hysteresis {
        None => least(r.threshold),
        Some(h) if (0..1_000_000).contains(&h.0) => {
            let kept = div_round(i128::from(r.threshold.0) * i128::from(1_000_000 - h.0), 1_000_000);
            ceil(Decimal(kept as i64), decimals).min(least(r.threshold))
        }
        Some(_) => return error(format!("{field}.hysteresis"), "must be from 0 to below 1"),
    };
    let min_duration = match &r.min_duration {
        None => 0,
        Some(text) => duration(&format!("{field}.min_duration"), text)?,
    };
    if r.min_speed.is_some() && !speed {
        return error(format!("{field}.min_speed"), "needs a speed signal; set trip.speed");
    }
    let times =
        |tenths: i64| ceil(Decimal(div_round(i128::from(r.threshold.0) * i128::from(tenths), 10) as i64), decimals);
    Ok(EventParams {
        kind: r.kind,
        signal,
        direction: r.direction,
        enter: least(r.threshold),
        stay: stay.max(1),
        min_duration,
        min_speed: r.min_speed.map(|v| i64::from(v) * 1_000_000),
        severity: r.severity.map_or([times(13), times(17)], |s| s.map(|v| ceil(v, decimals))),
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

fn range(signal: u16, c: &super::RangeConfig, catalogue: &Catalogue) -> Result<RangeParams, ConfigError> {
    let s = catalogue.signals.get(usize::from(signal));
    let (name, decimals) = s.map_or(("", 0), |s| (s.name.as_str(), s.decimals));
    if c.min.0 >= c.max.0 {
        return error(format!("detectors.range.{name}"), "min must be below max");
    }
    // v < min exactly when it is below the next number of the signal's grid, likewise max.
    Ok(RangeParams { signal, min: ceil(c.min, decimals), max: floor(c.max, decimals) })
}

fn zscore(signal: u16, c: &super::ZscoreConfig, catalogue: &Catalogue) -> Result<ZscoreParams, ConfigError> {
    let s = catalogue.signals.get(usize::from(signal));
    let (name, decimals) = s.map_or(("", 0), |s| (s.name.as_str(), s.decimals));
    let field = format!("detectors.zscore.{name}");
    if !(4..=4096).contains(&c.window) {
        return error(format!("{field}.window"), format!("{} is not from 4 to 4096", c.window));
    }
    if c.threshold.0 <= 0 {
        return error(format!("{field}.threshold"), "must be more than 0");
    }
    let min_samples = c.min_samples.unwrap_or(16.min(c.window));
    if !(2..=c.window).contains(&min_samples) {
        return error(
            format!("{field}.min_samples"),
            format!("{min_samples} is not from 2 to the window, {}", c.window),
        );
    }
    let least_mad = ceil(Decimal(1_000), decimals);
    Ok(ZscoreParams { signal, window: c.window, min_samples, threshold: c.threshold.0, least_mad })
}

fn stuck(
    signal: u16,
    c: &super::StuckConfig,
    catalogue: &Catalogue,
    speed: Option<u16>,
) -> Result<StuckParams, ConfigError> {
    let name = catalogue.signals.get(usize::from(signal)).map_or("", |s| s.name.as_str());
    let lasting = positive(&format!("detectors.stuck.{name}.for"), &c.lasting)?;
    let possible = speed.is_some_and(|s| s != signal);
    if c.moving_only == Some(true) && !possible {
        return error(
            format!("detectors.stuck.{name}.moving_only"),
            "needs another signal for the speed; set trip.speed",
        );
    }
    Ok(StuckParams { signal, lasting, moving_only: c.moving_only.unwrap_or(possible) })
}

#[cfg(test)]
mod tests;
