//! The detectors' parameters.

use super::events::{ceil, floor};
use super::{ConfigError, error, positive};
use crate::config::params::{RangeParams, StuckParams, ZscoreParams};
use crate::config::{RangeConfig, StuckConfig, ZscoreConfig};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::policy::Decimal;

pub(super) fn range(signal: u16, c: &RangeConfig, catalogue: &Catalogue) -> Result<RangeParams, ConfigError> {
    let s = catalogue.signals.get(usize::from(signal));
    let (name, decimals) = s.map_or(("", 0), |s| (s.name.as_str(), s.decimals));
    if c.min.0 >= c.max.0 {
        return error(format!("detectors.range.{name}"), "min must be below max");
    }
    // v < min exactly when it is below the next number of the signal's grid, likewise max.
    Ok(RangeParams { signal, min: ceil(c.min, decimals), max: floor(c.max, decimals) })
}

pub(super) fn zscore(signal: u16, c: &ZscoreConfig, catalogue: &Catalogue) -> Result<ZscoreParams, ConfigError> {
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

pub(super) fn stuck(
    signal: u16,
    c: &StuckConfig,
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
