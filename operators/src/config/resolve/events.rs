//! What the default policy means for the kernels: the excursions of the events, and what trips keep.

use super::{ConfigError, duration, error, numeric};
use crate::config::params::{EventParams, HarshParams};
use drivetrain_schemas::catalogue::{Catalogue, Signal, SignalType};
use drivetrain_schemas::fixed::{div_round, pow10};
use drivetrain_schemas::policy::{Compare, Decimal, Direction, EventRule, Policy};
use drivetrain_schemas::unit::Unit;

/// The floor of the facts (DESIGN §7: 0.2 g) in thousandths of a unit of acceleration, rounded down to the grid.
pub(crate) fn acceleration_floor(unit: Option<&str>) -> Option<i64> {
    let unit = unit.and_then(Unit::parse).filter(|u| u.dimension == "acceleration")?;
    let g = Unit::parse("g")?;
    let (num, den) = (200 * i128::from(g.num) * i128::from(unit.den), i128::from(g.den) * i128::from(unit.num));
    i64::try_from(num / den).ok()
}

/// Signals of acceleration, from [`acceleration_floor`] on, and those that the default policy's rules name; of the
/// latter, which may be of any unit, from the smallest threshold on. Nothing is kept of the others.
pub(super) fn harsh(catalogue: &Catalogue, policy: &Policy) -> Vec<HarshParams> {
    let numbers = catalogue.signals.iter().enumerate().filter(|(_, s)| s.kind == SignalType::Number);
    let params = |(index, s): (usize, &Signal)| {
        let rules = || policy.events.iter().filter(|r| *r.signal == *s.name);
        let on = |side| rules().filter(move |r| r.direction == side || r.direction == Direction::Both);
        let report = |side| on(side).map(|r| ceil(r.threshold, s.decimals)).min();
        let least = match acceleration_floor(s.unit.as_deref()) {
            Some(thousandths) => Decimal(thousandths * 1000),
            None => rules().map(|r| r.threshold).min()?,
        };
        Some(HarshParams {
            signal: index as u16,
            decimals: s.decimals,
            floor: ceil(least, s.decimals).max(1),
            least,
            report_below: report(Direction::Negative).map(|v| -v),
            report_above: report(Direction::Positive),
        })
    };
    numbers.filter_map(params).collect()
}

/// The smallest fixed-point number that is not below `value`.
pub(super) fn ceil(value: Decimal, decimals: u32) -> i64 {
    -floor(Decimal(-value.0), decimals)
}

/// The largest fixed-point number that is not above `value`.
pub(super) fn floor(value: Decimal, decimals: u32) -> i64 {
    match decimals.checked_sub(Decimal::DECIMALS) {
        Some(more) => value.0.saturating_mul(pow10(more)),
        None => value.0.div_euclid(pow10(Decimal::DECIMALS - decimals)),
    }
}

pub(super) fn event(
    field: &str,
    r: &EventRule,
    catalogue: &Catalogue,
    speed: bool,
) -> Result<EventParams, ConfigError> {
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
