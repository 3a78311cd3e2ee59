//! `--guard`: no part of the work may cost much more than usual, measured by another part of the same run.
//!
//! A ratio of CPU times of one run is about the same on a fast machine and on a slow one, and, of the least of several
//! rounds, on one that others use. What parts are divided by does not change with our code (parsing by serde_json, the
//! history row by row) or is the part's next neighbour; so a part that gets faster makes no other look slower.
//!
//! When a ratio falls for good, lower its `usual`: else a doubling from there goes unseen.

use super::Part;
use super::report::Line;
use serde::Serialize;
use std::fmt::Write;

/// A ratio may be this many times the usual one. Noise of the least of three rounds stays far below; a doubling does not.
const MARGIN: f64 = 1.75;

/// The CPU time a reading of `part`, one worker, by that of `of`.
#[derive(Clone, Copy, Debug)]
struct Bound {
    part: Part,
    of: Part,
    /// In a release build, with the default vehicles and readings.
    usual: f64,
}

/// What is guarded. A test sees to it that a doubling of each of these parts is found.
const BOUNDS: [Bound; 6] = [
    Bound { part: Part::Decode, of: Part::Parse, usual: 0.36 },
    Bound { part: Part::Kernels, of: Part::Parse, usual: 0.27 },
    Bound { part: Part::Columns, of: Part::Rows, usual: 0.36 },
    Bound { part: Part::History, of: Part::Parse, usual: 0.39 },
    Bound { part: Part::Answers, of: Part::Parse, usual: 1.2 },
    Bound { part: Part::Job, of: Part::Parse, usual: 1.6 },
];

/// How a part stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Ratio {
    pub(super) part: Part,
    pub(super) of: Part,
    /// Of the least CPU times of all rounds; absent where one was not measured.
    pub(super) found: Option<f64>,
    pub(super) usual: f64,
    pub(super) most: f64,
}

impl Ratio {
    fn holds(&self) -> bool {
        self.found.is_some_and(|found| found <= self.most)
    }

    fn title(&self) -> String {
        let name = |part: Part| match part {
            Part::Parse => "serde_json::Value",
            Part::Decode => "decoding",
            Part::Kernels => "kernels",
            Part::Columns => "readings to columns",
            Part::Rows => "the same, row by row",
            Part::History => "Parquet of the readings",
            Part::Answers => "whole job, no readings kept",
            Part::Job => "whole job",
        };
        format!("{} : {}", name(self.part), name(self.of))
    }
}

/// The ratios of one run.
pub(super) fn ratios(lines: &[Line]) -> Vec<Ratio> {
    let least = |part: Part| {
        let line = lines.iter().find(|line| line.part == part && line.workers == 1)?;
        line.cpu_ns_per_reading.map(|cpu| cpu.min).filter(|cpu| *cpu > 0.0)
    };
    let ratio = |bound: &Bound| {
        let found = least(bound.part).zip(least(bound.of)).map(|(part, of)| part / of);
        Ratio { part: bound.part, of: bound.of, found, usual: bound.usual, most: bound.usual * MARGIN }
    };
    BOUNDS.iter().map(ratio).collect()
}

/// For a person.
pub(super) fn table(ratios: &[Ratio]) -> String {
    let title = "CPU a reading, the least of all rounds";
    let mut out = format!("{title:<52} {:>7} {:>7} {:>8}\n", "ratio", "usual", "at most");
    for ratio in ratios {
        let found = ratio.found.map_or_else(|| "-".to_string(), |found| format!("{found:.2}"));
        let wrong = if ratio.holds() { "" } else { "  too much" };
        let _ = writeln!(out, "{:<52} {found:>7} {:>7.2} {:>8.2}{wrong}", ratio.title(), ratio.usual, ratio.most);
    }
    out
}

/// # Errors
/// What costs too much, or could not be measured.
pub(super) fn check(ratios: &[Ratio]) -> Result<(), String> {
    let wrong: Vec<String> = ratios.iter().filter(|ratio| !ratio.holds()).map(Ratio::title).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let what = wrong.join("; ");
    Err(format!(
        "costs more than it may, or was not measured: {what} (`usual` in pipeline/src/commands/bench/guard.rs)"
    ))
}
