//! Scores (DESIGN §7), as pure functions of a policy and of trip facts; all in integers at six decimals, rounded half
//! to even once.

pub mod drivers;
mod rows;
pub mod trips;

pub use rows::{Counted, DriverRow, DriverTrip, Kinds, Scored, Standing, Totals, TripRow};

use crate::config::{HarshParams, acceleration_floor, unknown_signal};
use crate::facts::{Harsh, TripFact};
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::fixed::div_round;
use drivetrain_schemas::policy::{
    Band, Compare, Counting, Direction, EventKind, EventRule, Normalisation, Policy, Status, Weighting,
};
use drivetrain_schemas::time::{TimeError, parse_duration, parse_rfc3339};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

/// (1e-6 km/h) × µs in one kilometre.
const KILOMETRE: i128 = 3_600_000_000_000_000;
/// µs in one hour.
const HOUR: i128 = 3_600_000_000;

/// Why a policy cannot be used; says which field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    #[error("events[{0}].signal: {1}")]
    Signal(usize, String),
    #[error(
        "events[{index}].threshold: {threshold} is not on the grid of 0.001 {unit} on which trips keep their samples; \
         round it to three decimals"
    )]
    Grid { index: usize, threshold: String, unit: String },
    #[error(
        "events[{index}].threshold: {threshold} is below {floor} {unit}, the floor from which on trips keep their \
         samples; raise it"
    )]
    Floor { index: usize, threshold: String, floor: String, unit: String },
    #[error(
        "events[{index}].threshold: {threshold} is below {floor} {unit}, from which on trips keep their samples of \
         {signal:?} (the smallest threshold that [policy] of the configuration has on it); raise it, or lower that one"
    )]
    Kept { index: usize, threshold: String, floor: String, unit: String, signal: Arc<str> },
    #[error(
        "events[{index}].signal: trips keep no samples of {signal:?}, which is no acceleration and in no rule of \
         [policy] of the configuration; add a rule on it there (of weight 0 if it is to cost nothing there)"
    )]
    NotKept { index: usize, signal: Arc<str> },
    #[error("events[{0}].counting: \"excursion\" is not supported in scores yet; use \"sample\"")]
    Excursion(usize),
    #[error("events[{0}].weight: must not be negative")]
    Weight(usize),
    #[error("{0}: {1}")]
    Time(&'static str, TimeError),
    #[error("valid_from is not before valid_to: the policy would govern nothing")]
    Validity,
    #[error("floor {0} is above base {1}")]
    Range(i64, i64),
    #[error("base and floor must be within ±1000000")]
    Size,
    #[error("driver.min_exposure: must not be negative")]
    Exposure,
}

/// A policy whose names are indices and whose times are µs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolvedPolicy {
    pub policy_id: Arc<str>,
    pub version: i64,
    /// Trips that start in [valid_from, valid_to), µs.
    pub valid_from: i64,
    pub valid_to: i64,
    pub scope: Option<Arc<str>>,
    pub status: Status,
    /// Points.
    pub base: i64,
    pub floor: i64,
    pub rules: Vec<ResolvedRule>,
    pub normalisation: Normalisation,
    pub driver: ResolvedDriver,
}

/// A rule by which samples count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolvedRule {
    pub kind: EventKind,
    pub signal: u16,
    pub direction: Direction,
    /// In thousandths of the signal's unit.
    pub threshold: i32,
    pub compare: Compare,
    /// Points that one sample costs, in 1e-6.
    pub weight: i64,
    /// Whole km/h. Samples whose speed is not known don't count where there is one.
    pub min_speed: Option<i16>,
}

/// How trips make a driver's score.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolvedDriver {
    /// µs.
    pub horizon: i64,
    pub weighting: Weighting,
    /// In the unit of [`TripScore::exposure`], rounded up.
    pub min_exposure: i128,
    /// From the best down.
    pub bands: Vec<Band>,
}

impl ResolvedDriver {
    /// The band of a score at six decimals.
    pub fn band(&self, score: i64) -> Option<Arc<str>> {
        self.bands.iter().find(|band| score >= band.from.0).map(|band| band.name.clone())
    }
}

/// A trip's score under one policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TripScore {
    /// At six decimals.
    pub score: i64,
    /// Samples counted by kind, in the order of [`EventKind`].
    pub counts: [i64; 6],
    /// Points that each rule of the policy takes, in its order, at six decimals.
    pub penalties: Vec<i64>,
    /// What the trip weighs in the driver's score: µs, (1e-6 km/h) × µs, or 1.
    pub exposure: i128,
}

/// Why a score is what it is: one rule's part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Why {
    pub kind: EventKind,
    pub count: i64,
    /// Points, at six decimals.
    pub penalty: i64,
    /// Its part of all penalties, at six decimals; 0 where there are none.
    pub share: i64,
}

impl ResolvedPolicy {
    /// Checks a policy against the catalogue, and against what trips keep (`kept`, of
    /// [`crate::config::TripParams::harsh`]): a rule on samples that are not kept would count too few, and nobody would
    /// see it.
    ///
    /// # Errors
    /// [`PolicyError`]: the field, what stood there, and the remedy.
    pub fn new(policy: &Policy, catalogue: &Catalogue, kept: &[HarshParams]) -> Result<Self, PolicyError> {
        let time = |field, text: &Option<String>, default| match text {
            None => Ok(default),
            Some(text) => parse_rfc3339(text).map_err(|e| PolicyError::Time(field, e)),
        };
        let (valid_from, valid_to) =
            (time("valid_from", &policy.valid_from, i64::MIN)?, time("valid_to", &policy.valid_to, i64::MAX)?);
        if valid_from >= valid_to {
            return Err(PolicyError::Validity);
        }
        if policy.base.abs().max(policy.floor.saturating_abs()) > 1_000_000 {
            return Err(PolicyError::Size);
        }
        if policy.floor > policy.base {
            return Err(PolicyError::Range(policy.floor, policy.base));
        }
        let rules = policy.events.iter().enumerate().map(|(i, r)| rule(i, r, catalogue, kept));
        let rules = rules.collect::<Result<_, _>>()?;
        let mut bands = policy.driver.bands.clone();
        bands.sort_by(|a, b| b.from.cmp(&a.from).then_with(|| a.name.cmp(&b.name)));
        let least = i128::from(policy.driver.min_exposure.0);
        if least < 0 {
            return Err(PolicyError::Exposure);
        }
        Ok(Self {
            policy_id: policy.policy_id.clone(),
            version: policy.version,
            valid_from,
            valid_to,
            scope: policy.scope.clone(),
            status: policy.status,
            base: policy.base,
            floor: policy.floor,
            rules,
            normalisation: policy.normalisation,
            driver: ResolvedDriver {
                horizon: parse_duration(&policy.driver.horizon).map_err(|e| PolicyError::Time("driver.horizon", e))?,
                weighting: policy.driver.weighting,
                min_exposure: match policy.driver.weighting {
                    // Seconds at six decimals are µs.
                    Weighting::Duration => least,
                    Weighting::Distance => least * (KILOMETRE / 1_000_000),
                    Weighting::Trip => (least + 999_999) / 1_000_000,
                },
                bands,
            },
        })
    }
}

fn rule(index: usize, r: &EventRule, catalogue: &Catalogue, kept: &[HarshParams]) -> Result<ResolvedRule, PolicyError> {
    let unknown = || PolicyError::Signal(index, unknown_signal(&r.signal, catalogue));
    let signal = catalogue.index(&r.signal).ok_or_else(unknown)?;
    let declared = catalogue.signals.get(usize::from(signal)).ok_or_else(unknown)?;
    if declared.kind != SignalType::Number {
        return Err(PolicyError::Signal(index, format!("{:?} is not a number", r.signal)));
    }
    if r.counting == Counting::Excursion {
        return Err(PolicyError::Excursion(index));
    }
    if r.weight.0 < 0 {
        return Err(PolicyError::Weight(index));
    }
    let Some(kept) = kept.iter().find(|k| k.signal == signal) else {
        return Err(PolicyError::NotKept { index, signal: r.signal.clone() });
    };
    let unit = declared.unit.clone().unwrap_or_default();
    let written = drivetrain_schemas::fixed::format(r.threshold.0.into(), 6);
    let threshold = written.trim_end_matches('0').trim_end_matches('.').to_string();
    if r.threshold < kept.least {
        let floor = drivetrain_schemas::fixed::format((kept.least.0 / 1000).into(), 3);
        return Err(match acceleration_floor(declared.unit.as_deref()) {
            Some(_) => PolicyError::Floor { index, threshold, floor, unit },
            None => PolicyError::Kept { index, threshold, floor, unit, signal: r.signal.clone() },
        });
    }
    let on_grid = (r.threshold.0 % 1000 == 0).then(|| i32::try_from(r.threshold.0 / 1000).ok()).flatten();
    let Some(thousandths) = on_grid.filter(|t| *t < i32::MAX / 4) else {
        return Err(PolicyError::Grid { index, threshold, unit });
    };
    Ok(ResolvedRule {
        kind: r.kind,
        signal,
        direction: r.direction,
        threshold: thousandths,
        compare: r.compare,
        weight: r.weight.0,
        min_speed: r.min_speed.map(|v| i16::try_from(v).unwrap_or(i16::MAX)),
    })
}

impl ResolvedRule {
    /// Whether the samples of a bin count: exact for both comparisons, see [`Harsh::bin`].
    fn passes(&self, h: &Harsh) -> bool {
        let edge = 2 * i64::from(self.threshold) + i64::from(self.compare == Compare::Gt);
        let bin = i64::from(h.bin);
        let beyond = match self.direction {
            Direction::Positive => bin >= edge,
            Direction::Negative => bin <= -edge,
            Direction::Both => bin >= edge || bin <= -edge,
        };
        h.signal == self.signal && beyond && self.min_speed.is_none_or(|least| h.speed >= least)
    }
}

/// How many samples of a trip count by a rule.
pub fn count(rule: &ResolvedRule, harsh: &[Harsh]) -> i64 {
    harsh.iter().filter(|h| rule.passes(h)).map(|h| i64::from(h.count)).sum()
}

/// Scores a trip: base less count × weight by rule, not below the floor.
///
/// Normalised per 100 km or per hour, what a trip costs is divided by its distance or duration; a trip whose distance
/// or duration is not known or zero is not normalised.
pub fn score(policy: &ResolvedPolicy, trip: &TripFact) -> TripScore {
    let (numerator, denominator) = match policy.normalisation {
        Normalisation::None => (1, 1),
        Normalisation::Per100Km => (100 * KILOMETRE, trip.distance.unwrap_or(0)),
        Normalisation::PerHour => (HOUR, i128::from(trip.duration)),
    };
    let (numerator, denominator) = if denominator > 0 { reduced(numerator, denominator) } else { (1, 1) };
    let mut counts = [0; 6];
    let mut costs = Vec::with_capacity(policy.rules.len());
    for rule in &policy.rules {
        let n = count(rule, &trip.harsh);
        counts[rule.kind as usize] += n;
        costs.push(i128::from(n) * i128::from(rule.weight));
    }
    let normalised = |cost: i128| {
        let cost = cost.saturating_mul(numerator);
        // Costs beyond these bounds are far below every floor.
        div_round(cost.min(i128::MAX / 4), denominator.min(i128::MAX / 4)).clamp(0, 1 << 62)
    };
    let total = normalised(costs.iter().sum());
    let points = |p: i64| i128::from(p) * 1_000_000;
    let score = (points(policy.base) - total).max(points(policy.floor)) as i64;
    let exposure = match policy.driver.weighting {
        Weighting::Duration => i128::from(trip.duration),
        Weighting::Distance => trip.distance.unwrap_or(0),
        Weighting::Trip => 1,
    };
    let penalties = costs.into_iter().map(|cost| normalised(cost) as i64).collect();
    TripScore { score, counts, penalties, exposure }
}

fn reduced(a: i128, b: i128) -> (i128, i128) {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1), b / x.max(1))
}

/// The parts of a trip's score, by rule of its policy.
pub fn why(policy: &ResolvedPolicy, trip: &TripFact, score: &TripScore) -> Vec<Why> {
    let all: i128 = score.penalties.iter().map(|p| i128::from(*p)).sum();
    let share = |penalty: i64| if all > 0 { div_round(i128::from(penalty) * 1_000_000, all) as i64 } else { 0 };
    let parts = policy.rules.iter().zip(&score.penalties);
    let part = |(rule, penalty): (&ResolvedRule, &i64)| Why {
        kind: rule.kind,
        count: count(rule, &trip.harsh),
        penalty: *penalty,
        share: share(*penalty),
    };
    parts.map(part).collect()
}

/// A driver's score at six decimals: Σ score × exposure / Σ exposure; None without exposure, or with too little.
pub fn driver_score(policy: &ResolvedPolicy, weighted: i128, exposure: i128) -> Option<i64> {
    if exposure <= 0 || exposure < policy.driver.min_exposure {
        return None;
    }
    i64::try_from(div_round(weighted, exposure)).ok()
}

#[cfg(test)]
mod tests;
