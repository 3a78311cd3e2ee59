//! `drivetrain bench`: how fast this machine is at it, with nothing but the program.
//!
//! ```text
//!  simulated readings ─► one file ─┬─► stages: parsing, decoding, kernels, columns, Parquet   (one thread)
//!                                  └─► job:    `replay` of the file, 1 … N workers, with readings in the history or without
//!  each in a process of its own, so that its CPU time and its peak memory are its own; in turn, for several rounds
//! ```
//!
//! `--guard` compares the parts of one run with each other ([`guard`]) and never with a clock of another day.

mod chart;
mod guard;
mod job;
mod report;
mod rows;
mod stages;
mod usage;

use crate::cli::Failure;
use crate::config::{Config, parse};
use crate::simulate::{SimulateOptions, Simulator};
use clap::Args;
use drivetrain_schemas::time::parse_duration;
use report::{Report, Setting};
use serde::{Deserialize, Serialize};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The job: everything on, nine signals. Shipped with the program.
const CONFIG: &str = include_str!("../../../../configs/fleet.toml");
const CONFIG_NAME: &str = "fleet.toml";
/// Fewer say nothing of a spread.
const LEAST_ROUNDS: usize = 3;
/// Where a vehicle's event time would end; records end before.
const EVER: i64 = 10 * 365 * 86_400_000_000;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// How long to go on with rounds, such as 60s; each measurement is made at least three times.
    #[arg(long = "for", value_name = "TIME", default_value = "60s")]
    duration: String,
    /// Worker threads of the whole job: measured with 1, 2, 4 … up to this many [default: the machine's cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Vehicles in the simulated fleet.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    vehicles: u32,
    /// Readings of a measurement; they take about 0.7 GB of memory and disk a million.
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..))]
    readings: u32,
    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw them in this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Where input and results are kept until the end [default: the system's temporary directory].
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// End with code 1 when a part costs more than it may, measured by another part of the same run; with the default
    /// vehicles and readings and one worker, for which it is known what is usual.
    #[arg(long, conflicts_with_all = ["workers", "vehicles", "readings"])]
    guard: bool,
    /// What a process that `bench` has started measures.
    #[arg(long, hide = true, requires_all = ["scratch", "input"])]
    measure: Option<Target>,
    #[arg(long, hide = true)]
    input: Option<PathBuf>,
}

/// What one process measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The parts of the work, one after the other.
    Stages,
    /// The whole job.
    Job {
        workers: u16,
        /// Whether the history keeps the readings.
        readings: bool,
    },
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Stages => f.write_str("stages"),
            Target::Job { workers, readings } => write!(f, "{}/{workers}", if *readings { "job" } else { "answers" }),
        }
    }
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("{text:?} is none of stages, job/N, answers/N");
        if text == "stages" {
            return Ok(Target::Stages);
        }
        let (kind, workers) = text.split_once('/').ok_or_else(unknown)?;
        let workers = workers.parse().map_err(|_| unknown())?;
        match kind {
            "job" => Ok(Target::Job { workers, readings: true }),
            "answers" => Ok(Target::Job { workers, readings: false }),
            _ => Err(unknown()),
        }
    }
}

/// The parts that are measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// Each record to a `serde_json::Value` and nothing else: what everything is compared with.
    Parse,
    /// Records to readings.
    Decode,
    /// Order, windows, trips, events, detectors, quality.
    Kernels,
    /// Readings sorted and gathered into Arrow columns, as the history does it.
    Columns,
    /// The same row by row: the slow way, to compare with.
    Rows,
    /// The history's thread with readings only: sorted, encoded, compressed, written.
    History,
    /// The whole job without the readings themselves in the history.
    Answers,
    /// The whole job.
    Job,
}

/// What one process has found out about one part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Measured {
    part: Part,
    /// Threads that compute; 1 for stages.
    workers: u16,
    readings: u64,
    wall_s: f64,
    /// User and system time of the process; absent where the system doesn't say.
    cpu_s: Option<f64>,
    /// Of the process, at its end; absent for stages, which hold their input.
    peak_bytes: Option<u64>,
}

pub fn bench(args: BenchArgs) -> Result<(), Failure> {
    match (args.measure, &args.scratch, &args.input) {
        (Some(target), Some(scratch), Some(input)) => measure(target, scratch, input),
        _ => compare(&args),
    }
}

/// What `bench` starts itself for: measures, and prints what it has found as JSON.
fn measure(target: Target, scratch: &Path, input: &Path) -> Result<(), Failure> {
    let measured = match target {
        Target::Stages => stages::measure(&config()?, scratch, input)?,
        Target::Job { workers, readings } => vec![job::measure(config()?, scratch, input, workers, readings)?],
    };
    println!("{}", serde_json::to_string(&measured).map_err(Failure::job)?);
    Ok(())
}

fn config() -> Result<Config, Failure> {
    // Not the environment's overrides: they are of somebody's job.
    parse(CONFIG_NAME, CONFIG, std::iter::empty()).map_err(Failure::job)
}

fn compare(args: &BenchArgs) -> Result<(), Failure> {
    let limit = parse_duration(&args.duration).map_err(|e| Failure::usage(format!("--for: {e}")))?;
    let limit = Duration::from_micros(limit.unsigned_abs());
    let workers = if args.guard { 1 } else { args.workers.unwrap_or_else(cores) };
    let targets = targets(workers);
    let stop = super::stop_on_signals()?;
    let scratch = scratch(args.scratch.as_deref())?;
    let input = scratch.path().join("readings.jsonl");
    let bytes = simulate(args, &input).map_err(|e| Failure::job(format!("{}: {e}", input.display())))?;
    let setting = Setting::new(args.vehicles, args.readings, bytes);
    println!("{setting}\n");
    let began = Instant::now();
    let (mut found, mut rounds) = (Vec::new(), 0);
    while rounds < LEAST_ROUNDS || (began.elapsed() + began.elapsed() / rounds as u32) <= limit {
        for target in &targets {
            found.extend(child(*target, scratch.path(), &input, &stop)?);
        }
        rounds += 1;
    }
    let report = Report::new(setting, rounds, &found);
    print!("{}", report.table());
    if let Some(path) = &args.json {
        write(path, &report.json())?;
    }
    if let Some(path) = &args.svg {
        write(path, &chart::chart(&report))?;
    }
    if !args.guard {
        return Ok(());
    }
    print!("\n{}", guard::table(&report.ratios));
    guard::check(&report.ratios).map_err(Failure::job)
}

/// Powers of two up to `workers`, and `workers`: each with and without readings in the history, behind the stages.
fn targets(workers: u16) -> Vec<Target> {
    let powers = (0..).map(|n| 1u16 << n).take_while(|n| *n < workers).chain([workers]);
    let job = |workers| [false, true].map(|readings| Target::Job { workers, readings });
    std::iter::once(Target::Stages).chain(powers.flat_map(job)).collect()
}

fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(256).min(256))
}

/// A directory that goes when the command ends, however it ends by itself.
fn scratch(within: Option<&Path>) -> Result<tempfile::TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("drivetrain-bench-");
    let made = match within {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    };
    made.map_err(|e| {
        Failure::usage(format!("no directory for input and results can be made: {e}; name one: --scratch"))
    })
}

/// Writes the readings, a record a line. Returns the bytes of the records.
fn simulate(args: &BenchArgs, path: &Path) -> std::io::Result<u64> {
    let options = SimulateOptions {
        vehicles: args.vehicles as usize,
        duration: EVER,
        faults: true,
        ..SimulateOptions::default()
    };
    let mut simulator = Simulator::new(options);
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    let (mut record, mut bytes) = (Vec::new(), 0);
    for _ in 0..args.readings {
        if simulator.next_into(&mut record).is_none() {
            break;
        }
        bytes += record.len() as u64;
        record.push(b'\n');
        file.write_all(&record)?;
    }
    file.flush()?;
    Ok(bytes)
}

/// Measures in a process of its own.
fn child(target: Target, scratch: &Path, input: &Path, stop: &Arc<AtomicBool>) -> Result<Vec<Measured>, Failure> {
    let interrupted = || stop.load(Ordering::Relaxed).then(|| Failure { code: 130, message: "interrupted".into() });
    if let Some(failure) = interrupted() {
        return Err(failure);
    }
    let data = scratch.join("data");
    std::fs::create_dir_all(&data).map_err(|e| Failure::job(format!("{}: {e}", data.display())))?;
    let program = std::env::current_exe().map_err(Failure::job)?;
    let mut command = Command::new(program);
    command.args(["bench", "--log-level", "warn", "--measure", &target.to_string(), "--scratch"]).arg(&data);
    command.arg("--input").arg(input).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(Failure::job)?;
    let removed = std::fs::remove_dir_all(&data);
    if let Some(failure) = interrupted() {
        return Err(failure);
    }
    if !output.status.success() {
        return Err(Failure::job(format!("measuring {target} ended with {}", output.status)));
    }
    removed.map_err(|e| Failure::job(format!("{}: {e}", data.display())))?;
    serde_json::from_slice(&output.stdout).map_err(|e| Failure::job(format!("measuring {target}: {e}")))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|e| Failure::job(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests;
