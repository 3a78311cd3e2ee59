//! Values unlike those before them: the robust z-score |x - median| / (1.4826 × MAD) over the last normal values
//! (Iglewicz and Hoaglin 1993; 1.4826 makes the MAD of a normal distribution its standard deviation), in integers. Of
//! an even number of values the lower one of the middle is the median; the MAD is at least 0.001 of the unit.
//!
//! An abnormal value opens `spike` and does not enter the window; `score` is the z-score in thousandths, `expected`
//! the median; severity medium from twice the threshold, high from four times. It ends at the first of three normal
//! values in a row. After `window` abnormal values in a row what is normal is learnt anew.

use super::{Open, Subject};
use crate::config::ZscoreParams;
use crate::facts::{AnomalyKind, Detector, Facts};
use crate::sample::Sample;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Normal values in a row that end an anomaly.
const CALM: u32 = 3;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    ring: Arc<Ring>,
    open: Option<Box<Open>>,
    /// Abnormal values in a row.
    abnormal: usize,
    /// Normal values in a row while an anomaly is open, and when the first of them was.
    calm: u32,
    calm_since: i64,
}

/// The last normal values, in order of time and of size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<i64>")]
struct Ring {
    arrived: VecDeque<i64>,
    #[serde(skip)]
    sorted: Vec<i64>,
}

impl From<Vec<i64>> for Ring {
    fn from(arrived: Vec<i64>) -> Self {
        let mut sorted = arrived.clone();
        sorted.sort_unstable();
        Ring { arrived: arrived.into(), sorted }
    }
}

impl Ring {
    fn push(&mut self, value: i64, window: usize) {
        if self.arrived.len() >= window
            && let Some(old) = self.arrived.pop_front()
            && let Ok(place) = self.sorted.binary_search(&old)
        {
            self.sorted.remove(place);
        }
        self.arrived.push_back(value);
        let place = self.sorted.partition_point(|v| *v < value);
        self.sorted.insert(place, value);
    }

    fn median(&self) -> i64 {
        self.sorted.get(self.sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0)
    }

    /// Whether the lower median of |v - median| is at least `distance`: whether no more than half of the values are nearer
    /// to the median. Two searches, where [`Ring::mad`] walks through half of the values.
    fn is_mad_at_least(&self, distance: i64, median: i64) -> bool {
        let low = self.sorted.partition_point(|v| *v <= median.saturating_sub(distance));
        let high = self.sorted.partition_point(|v| *v < median.saturating_add(distance));
        high.saturating_sub(low) <= self.sorted.len().saturating_sub(1) / 2
    }

    /// The lower median of |v - median|: the distances ascend on both sides of the median, so they are merged.
    fn mad(&self, median: i64) -> i64 {
        let split = self.sorted.partition_point(|v| *v < median);
        let (below, above) = self.sorted.split_at(split);
        let mut below = below.iter().rev().map(|v| median.saturating_sub(*v)).peekable();
        let mut above = above.iter().map(|v| v.saturating_sub(median)).peekable();
        let mut distance = 0;
        for _ in 0..=self.sorted.len().saturating_sub(1) / 2 {
            let next = match (below.peek(), above.peek()) {
                (Some(a), Some(b)) if a < b => below.next(),
                (_, Some(_)) => above.next(),
                _ => below.next(),
            };
            distance = next.unwrap_or(distance);
        }
        distance
    }
}

/// Adds a sample.
pub fn step(cfg: &ZscoreParams, vehicle: &Arc<str>, state: &mut State, sample: &Sample<'_>, facts: &mut Facts) {
    let value = sample.value(cfg.signal);
    if value == NULL {
        return;
    }
    let subject = Subject { vehicle, signal: cfg.signal, detector: Detector::Zscore };
    let judged = if state.ring.arrived.len() >= cfg.min_samples { judge(cfg, &state.ring, value) } else { None };
    match judged {
        Some((score, median)) => abnormal(cfg, &subject, state, sample, (value, score, median), facts),
        None => normal(cfg, &subject, state, sample.at, value, facts),
    }
}

/// The z-score in thousandths and the median, when the value is abnormal.
fn judge(cfg: &ZscoreParams, ring: &Ring, value: i64) -> Option<(i64, i64)> {
    let median = ring.median();
    let off = (i128::from(value) - i128::from(median)).abs();
    // Abnormal: off / (1.4826 × mad) > threshold / 10^6; so a value is normal from this MAD on.
    let unit = i128::from(cfg.threshold) * 14_826;
    let enough = (off * 10_000_000_000 + unit - 1) / unit.max(1);
    let least = cfg.least_mad.max(1);
    if enough <= i128::from(least) {
        return None;
    }
    let enough = i64::try_from(enough).unwrap_or(i64::MAX);
    if ring.is_mad_at_least(enough, median) {
        return None;
    }
    let mad = i128::from(ring.mad(median).max(least));
    let score = i64::try_from(off * 10_000_000 / (14_826 * mad)).unwrap_or(i64::MAX);
    Some((score, median))
}

fn abnormal(
    cfg: &ZscoreParams,
    subject: &Subject<'_>,
    state: &mut State,
    sample: &Sample<'_>,
    (value, score, median): (i64, i64, i64),
    facts: &mut Facts,
) {
    state.calm = 0;
    state.abnormal += 1;
    if state.abnormal > cfg.window {
        subject.close(&mut state.open, sample.at, facts);
        state.ring = Arc::default();
        normal(cfg, subject, state, sample.at, value, facts);
        return;
    }
    let times = i128::from(score) * 1000 / i128::from(cfg.threshold.max(1));
    let severity = u8::from(times >= 2) + u8::from(times >= 4);
    match &mut state.open {
        Some(open) => subject.worsen(open, score, severity, value, Some(median), facts),
        None => {
            let open = Open {
                kind: AnomalyKind::Spike,
                started_at: sample.at,
                severity,
                score,
                observed: value,
                expected: Some(median),
                fleet: sample.meta.fleet.clone(),
            };
            subject.open(&mut state.open, open, facts);
        }
    }
}

fn normal(cfg: &ZscoreParams, subject: &Subject<'_>, state: &mut State, at: i64, value: i64, facts: &mut Facts) {
    state.abnormal = 0;
    Arc::make_mut(&mut state.ring).push(value, cfg.window);
    if state.open.is_some() {
        if state.calm == 0 {
            state.calm_since = at;
        }
        state.calm += 1;
        if state.calm >= CALM {
            subject.close(&mut state.open, state.calm_since, facts);
            state.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Median and MAD against sorting.
        #[test]
        fn ring_is_sorting(values in prop::collection::vec(-1000i64..1000, 1..200), window in 1usize..40) {
            let mut ring = Ring::default();
            for (i, v) in values.iter().enumerate() {
                ring.push(*v, window);
                let mut last = values[(i + 1).saturating_sub(window)..=i].to_vec();
                last.sort_unstable();
                let median = last[(last.len() - 1) / 2];
                let mut off: Vec<_> = last.iter().map(|v| (v - median).abs()).collect();
                off.sort_unstable();
                prop_assert_eq!(ring.median(), median);
                let mad = off[(off.len() - 1) / 2];
                prop_assert_eq!(ring.mad(median), mad);
                for distance in [1, mad - 1, mad, mad + 1, i64::MAX] {
                    prop_assert!(distance < 1 || ring.is_mad_at_least(distance, median) == (mad >= distance));
                }
            }
        }
    }
}
