//! The whole job, as `replay` runs it, into a new directory.

use super::usage::{Watch, peak};
use super::{CONFIG_NAME, Measured, Part};
use crate::cli::Failure;
use crate::config::Config;
use crate::runtime::{JobOptions, Mode, run_job};
use drivetrain_sinks::history::KeepReadings;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// From the first byte read to the last file published.
pub(super) fn measure(
    mut config: Config,
    scratch: &Path,
    input: &Path,
    workers: u16,
    readings: bool,
) -> Result<Measured, Failure> {
    config.history.readings = if readings { KeepReadings::All } else { KeepReadings::None };
    let options = JobOptions {
        mode: Mode::Replay { inputs: vec![input.display().to_string()], bindings: None },
        config,
        config_path: scratch.join(CONFIG_NAME),
        data: scratch.join("job"),
        workers: Some(usize::from(workers)),
        cluster: None,
        fresh: false,
        at: None,
        stop: Arc::new(AtomicBool::new(false)),
        progress: false,
    };
    let watch = Watch::start();
    let report = run_job(options)?;
    let (wall_s, cpu_s) = watch.read();
    let counts = report.commit.intake.values();
    let (records, used) = counts.fold((0, 0), |(records, used), c| (records + c.records, used + c.used));
    if records != used || records == 0 {
        return Err(Failure::job(format!("the job used {used} of {records} simulated readings, not all")));
    }
    let part = if readings { Part::Job } else { Part::Answers };
    Ok(Measured { part, workers, readings: used.unsigned_abs(), wall_s, cpu_s, peak_bytes: peak() })
}
