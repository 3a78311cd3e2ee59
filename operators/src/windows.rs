//! Kernel: exact statistics of each signal over tumbling minutes, hours and days of event time, aligned to UTC.
//!
//! ```text
//!  sample ─► minute ──(its end)──► hour ──(its end)──► waiting ──(watermark)──► facts
//!               │                  day ─────────────────►  ▲
//!               └──────────────────────────────────────────┘
//! ```
//!
//! All signals of a vehicle share the windows' starts; a signal without a known value in a window has no fact.

use crate::config::{TimeParams, WindowParams};
use crate::facts::{Facts, Resolution, Stats, WindowFact};
use crate::sample::Sample;
use drivetrain_schemas::prefetch::prefetch_slice;
use drivetrain_schemas::reading::NULL;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

impl Stats {
    /// Adds the next known value.
    #[inline]
    pub fn add(&mut self, value: i64) {
        if self.count == 0 {
            (self.min, self.max, self.first) = (value, value, value);
        }
        let wide = i128::from(value);
        self.count += 1;
        self.sum += wide;
        self.squares = self.squares.wrapping_add(wide * wide);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.last = value;
    }

    /// Adds those of a later time.
    pub fn merge(&mut self, later: &Stats) {
        if later.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *later;
            return;
        }
        self.count += later.count;
        self.sum += later.sum;
        self.squares = self.squares.wrapping_add(later.squares);
        self.min = self.min.min(later.min);
        self.max = self.max.max(later.max);
        self.last = later.last;
    }
}

/// One window of all signals, by their places in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Window {
    start: i64,
    stats: Vec<Stats>,
    /// How often each value occurred, for the signals with quantiles.
    counts: Vec<BTreeMap<i64, u32>>,
}

impl Window {
    fn new(cfg: &WindowParams, start: i64) -> Self {
        let counts = vec![BTreeMap::new(); cfg.quantile_signals];
        Window { start, stats: vec![Stats::default(); cfg.signals.len()], counts }
    }

    fn merge(&mut self, later: &Window) {
        self.stats.iter_mut().zip(&later.stats).for_each(|(a, b)| a.merge(b));
        for (mine, theirs) in self.counts.iter_mut().zip(&later.counts) {
            for (value, n) in theirs {
                *mine.entry(*value).or_insert(0) += n;
            }
        }
    }

    fn clear(&mut self, start: i64) {
        self.start = start;
        self.stats.fill(Stats::default());
        self.counts.iter_mut().for_each(BTreeMap::clear);
    }

    fn emit(&self, cfg: &WindowParams, vehicle: &Arc<str>, resolution: Resolution, facts: &mut Facts) {
        for (i, stats) in self.stats.iter().enumerate().filter(|(_, s)| s.count > 0) {
            let counts = cfg.quantiles.get(i).copied().flatten().and_then(|q| self.counts.get(q));
            let fact = WindowFact {
                vehicle: vehicle.clone(),
                signal: cfg.signals.get(i).copied().unwrap_or_default(),
                resolution,
                start: self.start,
                stats: *stats,
                quantiles: counts.map(|counts| [50, 95, 99].map(|p| nearest_rank(counts, stats.count, p))),
            };
            facts.windows.push((fact, 1));
        }
    }
}

/// The value at rank ⌈p·n/100⌉ of `n` values given by their counts.
fn nearest_rank(counts: &BTreeMap<i64, u32>, n: i64, p: i64) -> i64 {
    let rank = (p * n + 99) / 100;
    let mut seen = 0;
    for (value, count) in counts {
        seen += i64::from(*count);
        if seen >= rank {
            return *value;
        }
    }
    NULL
}

/// A window whose time is over, waiting for the watermark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    resolution: Resolution,
    window: Arc<Window>,
}

impl Waiting {
    fn end(&self) -> i64 {
        self.window.start.saturating_add(self.resolution.micros())
    }
}

/// The windows of one vehicle. Cheap to clone: only the minute is copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// End of the minute; `i64::MIN` before the first sample.
    end: i64,
    minute: Window,
    /// By place in [`WindowParams::upper`]: without the minute above.
    upper: Vec<Arc<Window>>,
    /// Ascending by end.
    waiting: VecDeque<Waiting>,
    /// End of the first that waits; `i64::MAX` without.
    next: i64,
}

impl State {
    pub fn new(cfg: &WindowParams) -> Self {
        let upper = cfg.upper.iter().map(|_| Arc::new(Window::new(cfg, i64::MIN))).collect();
        State { end: i64::MIN, minute: Window::new(cfg, 0), upper, waiting: VecDeque::new(), next: i64::MAX }
    }

    /// Asks for the memory of what each sample changes.
    #[inline]
    pub fn ask(&self) {
        prefetch_slice(&self.minute.stats);
    }
}

/// Start of the window of `at`.
fn start(resolution: Resolution, at: i64) -> i64 {
    at.saturating_sub(at.rem_euclid(resolution.micros()))
}

/// Adds a sample; emits what the watermark (the sample's time less `out_of_orderness`) has passed.
#[inline]
pub fn step(
    cfg: &WindowParams,
    time: &TimeParams,
    vehicle: &Arc<str>,
    state: &mut State,
    sample: &Sample<'_>,
    facts: &mut Facts,
) {
    if sample.at >= state.end {
        roll(cfg, state, sample.at);
    }
    for (stats, signal) in state.minute.stats.iter_mut().zip(&cfg.signals) {
        let value = sample.value(*signal);
        if value != NULL {
            stats.add(value);
        }
    }
    if cfg.quantile_signals > 0 {
        count(cfg, state, sample);
    }
    let watermark = sample.at.saturating_sub(time.out_of_orderness);
    if watermark >= state.next {
        while let Some(first) = state.waiting.front()
            && first.end() <= watermark
        {
            first.window.emit(cfg, vehicle, first.resolution, facts);
            state.waiting.pop_front();
        }
        state.next = state.waiting.front().map_or(i64::MAX, Waiting::end);
    }
}

fn count(cfg: &WindowParams, state: &mut State, sample: &Sample<'_>) {
    for (signal, place) in cfg.signals.iter().zip(&cfg.quantiles) {
        let value = sample.value(*signal);
        if value != NULL
            && let Some(counts) = place.and_then(|place| state.minute.counts.get_mut(place))
        {
            *counts.entry(value).or_insert(0) += 1;
        }
    }
}

/// The minute of `at` is another: what is over waits, the minute is merged upwards.
fn roll(cfg: &WindowParams, state: &mut State, at: i64) {
    let first = state.end == i64::MIN;
    if !first {
        if cfg.minutes {
            let window = Arc::new(state.minute.clone());
            state.waiting.push_back(Waiting { resolution: Resolution::Minute, window });
        }
        for upper in &mut state.upper {
            Arc::make_mut(upper).merge(&state.minute);
        }
    }
    for (upper, resolution) in state.upper.iter_mut().zip(&cfg.upper) {
        let begin = start(*resolution, at);
        if upper.start == begin {
            continue;
        }
        let next = Arc::new(Window::new(cfg, begin));
        let window = std::mem::replace(upper, next);
        if !first {
            state.waiting.push_back(Waiting { resolution: *resolution, window });
        }
    }
    let begin = start(Resolution::Minute, at);
    state.minute.clear(begin);
    state.end = begin.saturating_add(Resolution::Minute.micros());
    state.next = state.waiting.front().map_or(i64::MAX, Waiting::end);
}

/// Every open window with what it has by now.
fn open<'a>(cfg: &'a WindowParams, state: &'a State) -> impl Iterator<Item = (Resolution, i64, Option<&'a Window>)> {
    let begun = state.end != i64::MIN;
    let minute = (begun && cfg.minutes).then_some((Resolution::Minute, state.minute.start, None));
    let upper = state.upper.iter().zip(&cfg.upper).filter(move |_| begun);
    minute.into_iter().chain(upper.map(|(window, resolution)| (*resolution, window.start, Some(&**window))))
}

/// Emits, as closed, what ends `patience` before `upto` or earlier. Changes nothing.
pub fn close(cfg: &WindowParams, time: &TimeParams, vehicle: &Arc<str>, state: &State, upto: i64, facts: &mut Facts) {
    let due = |end: i64| end.saturating_add(time.patience) <= upto;
    for waiting in state.waiting.iter().filter(|w| due(w.end())) {
        waiting.window.emit(cfg, vehicle, waiting.resolution, facts);
    }
    for (resolution, start, upper) in open(cfg, state) {
        if !due(start.saturating_add(resolution.micros())) {
            continue;
        }
        match upper {
            None => state.minute.emit(cfg, vehicle, resolution, facts),
            Some(window) => {
                let mut whole = window.clone();
                whole.merge(&state.minute);
                whole.emit(cfg, vehicle, resolution, facts);
            }
        }
    }
}

/// The first time after `after` at which [`close`] says more.
pub fn deadline(cfg: &WindowParams, time: &TimeParams, state: &State, after: i64) -> Option<i64> {
    let open = open(cfg, state).map(|(resolution, start, _)| start.saturating_add(resolution.micros()));
    let ends = state.waiting.iter().map(Waiting::end).chain(open);
    ends.map(|end| end.saturating_add(time.patience)).filter(|deadline| *deadline > after).min()
}

/// Bytes that one vehicle's windows take, without quantiles; the part that a clone copies, and the part it shares.
pub fn memory(cfg: &WindowParams) -> (usize, usize) {
    let window = cfg.signals.len() * size_of::<Stats>() + size_of::<Window>();
    (window + size_of::<State>(), window * cfg.upper.len())
}
