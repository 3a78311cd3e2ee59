//! What has been measured: medians and spread over the rounds, as a table and as JSON.

use super::guard::{self, Ratio};
use super::{Measured, Part};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What was measured with, and on what.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Setting {
    pub(super) version: &'static str,
    /// A build with debug assertions, whose figures say little.
    pub(super) development_build: bool,
    pub(super) cores: u16,
    pub(super) vehicles: u32,
    pub(super) readings: u32,
    /// On average, without the line end.
    pub(super) record_bytes: f64,
}

impl Setting {
    pub(super) fn new(vehicles: u32, readings: u32, bytes: u64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            development_build: cfg!(debug_assertions),
            cores: super::cores(),
            vehicles,
            readings,
            record_bytes: bytes as f64 / f64::from(readings.max(1)),
        }
    }
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Setting { version, cores, vehicles, readings, record_bytes, .. } = self;
        write!(
            f,
            "drivetrain {version}, {cores} cores; {readings} simulated readings of {vehicles} vehicles, {record_bytes:.0} B each"
        )?;
        if self.development_build {
            f.write_str("\na development build: its figures say nothing of a release")?;
        }
        Ok(())
    }
}

/// Of some rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Spread {
    /// None of no values, and where a round has none.
    fn of(values: impl Iterator<Item = Option<f64>>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = |at: usize| values.get(at).copied().unwrap_or(min);
        let median = (middle((values.len() - 1) / 2) + middle(values.len() / 2)) / 2.0;
        Some(Self { median, min, max })
    }
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Line {
    pub(super) part: Part,
    pub(super) workers: u16,
    pub(super) readings_per_second: Spread,
    pub(super) cpu_ns_per_reading: Option<Spread>,
    pub(super) peak_bytes: Option<Spread>,
}

impl Line {
    fn of(part: Part, workers: u16, found: &[&Measured]) -> Option<Self> {
        let each = |of: &dyn Fn(&Measured) -> Option<f64>| Spread::of(found.iter().map(|m| of(m)));
        Some(Line {
            part,
            workers,
            readings_per_second: each(&|m| Some(m.readings as f64 / m.wall_s.max(1e-9)))?,
            cpu_ns_per_reading: each(&|m| Some(m.cpu_s? * 1e9 / m.readings.max(1) as f64)),
            peak_bytes: each(&|m| Some(m.peak_bytes? as f64)),
        })
    }

    /// What was measured, for a person.
    pub(super) fn title(&self) -> String {
        let workers = if self.workers == 1 { "1 worker".to_string() } else { format!("{} workers", self.workers) };
        match self.part {
            Part::Parse => "serde_json::Value of each record".into(),
            Part::Decode => "decoding".into(),
            Part::Kernels => "kernels".into(),
            Part::Columns => "readings to columns".into(),
            Part::Rows => "the same, row by row".into(),
            Part::History => "Parquet of the readings".into(),
            Part::Answers => format!("whole job, no readings kept, {workers}"),
            Part::Job => format!("whole job, {workers}"),
        }
    }
}

/// Everything.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) setting: Setting,
    pub(super) rounds: usize,
    /// In the order of [`Part`], then by workers.
    pub(super) measurements: Vec<Line>,
    /// What `--guard` looks at.
    pub(super) ratios: Vec<Ratio>,
}

impl Report {
    pub(super) fn new(setting: Setting, rounds: usize, found: &[Measured]) -> Self {
        let mut groups: BTreeMap<(Part, u16), Vec<&Measured>> = BTreeMap::new();
        found.iter().for_each(|m| groups.entry((m.part, m.workers)).or_default().push(m));
        let lines = groups.iter().filter_map(|((part, workers), some)| Line::of(*part, *workers, some));
        let measurements: Vec<Line> = lines.collect();
        let ratios = guard::ratios(&measurements);
        Self { setting, rounds, measurements, ratios }
    }

    pub(super) fn table(&self) -> String {
        let mut out = format!(
            "{:<42} {:>11} {:>15} {:>15} {:>8}\n",
            format!("median of {} rounds", self.rounds),
            "readings/s",
            "from … to",
            "CPU ns/reading",
            "peak MB"
        );
        for line in &self.measurements {
            let rate = line.readings_per_second;
            let cell = |spread: Option<Spread>, unit: f64| {
                spread.map_or_else(|| "-".to_string(), |s| format!("{:.0}", s.median / unit))
            };
            let _ = writeln!(
                out,
                "{:<42} {:>11} {:>15} {:>15} {:>8}",
                line.title(),
                rounded(rate.median),
                format!("{} … {}", rounded(rate.min), rounded(rate.max)),
                cell(line.cpu_ns_per_reading, 1.0),
                cell(line.peak_bytes, 1e6)
            );
        }
        out
    }

    pub(super) fn json(&self) -> String {
        // Numbers and our own words only, which always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Three digits: `1.23M`, `456k`.
pub(super) fn rounded(rate: f64) -> String {
    let (value, unit) = if rate >= 999_500.0 {
        (rate / 1e6, "M")
    } else if rate >= 999.5 {
        (rate / 1e3, "k")
    } else {
        (rate, "")
    };
    let decimals = if unit.is_empty() || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$}{unit}")
}
