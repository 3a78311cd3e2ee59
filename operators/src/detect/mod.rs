//! Kernels: detectors of anomalies. An anomaly opens with its first abnormal reading, is said anew when its worst
//! changes, and closes with the first normal one. Silence closes none: nothing is known of it then.

pub mod range;
pub mod stuck;
pub mod zscore;

use crate::config::KernelConfig;
use crate::facts::{AnomalyFact, AnomalyKind, Detector, Facts};
use crate::sample::Sample;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All detectors of one vehicle, in the order of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    range: Vec<range::State>,
    zscore: Vec<zscore::State>,
    stuck: Vec<stuck::State>,
    /// Speed as last known: (at, 1e-6 km/h).
    speed: Option<(i64, i64)>,
}

impl State {
    /// None: nothing is watched.
    pub fn new(cfg: &KernelConfig) -> Option<Self> {
        let some = !(cfg.range.is_empty() && cfg.zscore.is_empty() && cfg.stuck.is_empty());
        some.then(|| State {
            range: vec![range::State::default(); cfg.range.len()],
            zscore: vec![zscore::State::default(); cfg.zscore.len()],
            stuck: vec![stuck::State::default(); cfg.stuck.len()],
            speed: None,
        })
    }
}

/// Gives a sample to all of them.
pub fn step(cfg: &KernelConfig, vehicle: &Arc<str>, state: &mut State, sample: &Sample<'_>, facts: &mut Facts) {
    if let Some((signal, factor)) = cfg.trip.speed
        && sample.value(signal) != NULL
    {
        state.speed = Some((sample.at, factor.of(sample.value(signal)) as i64));
    }
    for (cfg, state) in cfg.range.iter().zip(&mut state.range) {
        range::step(cfg, vehicle, state, sample, facts);
    }
    for (cfg, state) in cfg.zscore.iter().zip(&mut state.zscore) {
        zscore::step(cfg, vehicle, state, sample, facts);
    }
    for (params, stuck) in cfg.stuck.iter().zip(&mut state.stuck) {
        stuck::step(params, cfg.trip.max_gap, vehicle, stuck, state.speed, sample, facts);
    }
}

/// An open anomaly as last said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    kind: AnomalyKind,
    started_at: i64,
    severity: u8,
    score: i64,
    observed: i64,
    expected: Option<i64>,
    fleet: Option<Arc<str>>,
}

impl Open {
    fn fact(&self, vehicle: &Arc<str>, signal: u16, detector: Detector, ended_at: Option<i64>) -> AnomalyFact {
        AnomalyFact {
            vehicle: vehicle.clone(),
            signal,
            detector,
            kind: self.kind,
            started_at: self.started_at,
            ended_at,
            severity: self.severity,
            score: self.score,
            observed: self.observed,
            expected: self.expected,
            fleet: self.fleet.clone(),
        }
    }
}

/// Of whom an anomaly speaks.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    vehicle: &'a Arc<str>,
    signal: u16,
    detector: Detector,
}

impl Subject<'_> {
    fn open(&self, slot: &mut Option<Box<Open>>, open: Open, facts: &mut Facts) {
        facts.anomalies.push((open.fact(self.vehicle, self.signal, self.detector, None), 1));
        *slot = Some(Box::new(open));
    }

    /// Says the worst anew, if this is worse.
    fn worsen(
        &self,
        open: &mut Open,
        score: i64,
        severity: u8,
        observed: i64,
        expected: Option<i64>,
        facts: &mut Facts,
    ) {
        if score <= open.score {
            return;
        }
        facts.anomalies.push((open.fact(self.vehicle, self.signal, self.detector, None), -1));
        (open.score, open.observed, open.expected) = (score, observed, expected);
        open.severity = severity;
        facts.anomalies.push((open.fact(self.vehicle, self.signal, self.detector, None), 1));
    }

    fn close(&self, slot: &mut Option<Box<Open>>, ended_at: i64, facts: &mut Facts) {
        if let Some(open) = slot.take() {
            facts.anomalies.push((open.fact(self.vehicle, self.signal, self.detector, None), -1));
            facts.anomalies.push((open.fact(self.vehicle, self.signal, self.detector, Some(ended_at)), 1));
        }
    }
}

#[cfg(test)]
mod tests;
