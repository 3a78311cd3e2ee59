//! Values that don't change any more: for at least `for`, and, with `moving_only`, while the vehicle moved all that
//! time (1 km/h or more). `started_at` is the first of the equal values; `score` is how long it had lasted when last
//! said, in thousandths of `for`: said when it opens and whenever it has doubled. Severity: medium from 4 times `for`,
//! high from 16 times. Ends with a value that differs, or (there is then nothing to say) when the vehicle stops or after
//! a gap of more than `trip.max_gap`.

use super::{Open, Subject};
use crate::config::StuckParams;
use crate::facts::{AnomalyKind, Detector, Facts};
use crate::sample::Sample;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// 1 km/h in 1e-6 km/h.
const MOVING: i64 = 1_000_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The first and last time of the present value, and the value.
    run: Option<(i64, i64, i64)>,
    open: Option<Box<Open>>,
}

/// Adds a sample; `speed` is that last known.
pub fn step(
    cfg: &StuckParams,
    max_gap: i64,
    vehicle: &Arc<str>,
    state: &mut State,
    speed: Option<(i64, i64)>,
    sample: &Sample<'_>,
    facts: &mut Facts,
) {
    let value = sample.value(cfg.signal);
    let subject = Subject { vehicle, signal: cfg.signal, detector: Detector::Stuck };
    let recent = |(at, _): &(i64, i64)| sample.at.saturating_sub(*at) <= sample.gap();
    let moving = speed.filter(recent).is_some_and(|(_, v)| v >= MOVING);
    if cfg.moving_only && !moving {
        subject.close(&mut state.open, sample.at, facts);
        state.run = None;
        return;
    }
    if value == NULL {
        return;
    }
    let since = match state.run {
        Some((since, seen, v)) if v == value && sample.at.saturating_sub(seen) <= max_gap => since,
        _ => {
            subject.close(&mut state.open, sample.at, facts);
            sample.at
        }
    };
    state.run = Some((since, sample.at, value));
    let lasted = sample.at.saturating_sub(since);
    if lasted < cfg.lasting {
        return;
    }
    let score = i64::try_from(i128::from(lasted) * 1000 / i128::from(cfg.lasting.max(1))).unwrap_or(i64::MAX);
    let severity = u8::from(score >= 4000) + u8::from(score >= 16_000);
    match &mut state.open {
        Some(open) if score / 2 >= open.score => subject.worsen(open, score, severity, value, None, facts),
        Some(_) => {}
        None => {
            let (kind, fleet) = (AnomalyKind::Stuck, sample.meta.fleet.clone());
            let open = Open { kind, started_at: since, severity, score, observed: value, expected: None, fleet };
            subject.open(&mut state.open, open, facts);
        }
    }
}
