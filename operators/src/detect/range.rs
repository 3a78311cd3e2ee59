//! Values outside normal operation, though valid. `high` above the maximum, `low` below the minimum; `expected` is
//! that bound; `score` is the distance beyond it in thousandths of the range's width. Severity: medium from a quarter
//! of the width beyond, high from a whole width. Ends with the first value inside.

use super::{Open, Subject};
use crate::config::RangeParams;
use crate::facts::{AnomalyKind, Detector, Facts};
use crate::sample::Sample;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    open: Option<Box<Open>>,
}

/// Adds a sample.
pub fn step(cfg: &RangeParams, vehicle: &Arc<str>, state: &mut State, sample: &Sample<'_>, facts: &mut Facts) {
    let value = sample.value(cfg.signal);
    if value == NULL {
        return;
    }
    let subject = Subject { vehicle, signal: cfg.signal, detector: Detector::Range };
    let (kind, bound) = if value > cfg.max {
        (AnomalyKind::High, cfg.max)
    } else if value < cfg.min {
        (AnomalyKind::Low, cfg.min)
    } else {
        subject.close(&mut state.open, sample.at, facts);
        return;
    };
    let width = (i128::from(cfg.max) - i128::from(cfg.min)).max(1);
    let beyond = (i128::from(value) - i128::from(bound)).abs();
    let score = i64::try_from(beyond * 1000 / width).unwrap_or(i64::MAX);
    let severity = u8::from(score >= 250) + u8::from(score >= 1000);
    if state.open.as_ref().is_some_and(|open| open.kind != kind) {
        subject.close(&mut state.open, sample.at, facts);
    }
    match &mut state.open {
        Some(open) => subject.worsen(open, score, severity, value, Some(bound), facts),
        None => {
            let fleet = sample.meta.fleet.clone();
            let open =
                Open { kind, started_at: sample.at, severity, score, observed: value, expected: Some(bound), fleet };
            subject.open(&mut state.open, open, facts);
        }
    }
}
