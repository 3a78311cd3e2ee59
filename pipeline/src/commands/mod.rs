//! The commands that run a job.

pub mod bench;
pub mod check;
mod cluster;
pub mod compact;
pub mod demo;
pub mod replay;
pub mod run;

use crate::cli::Failure;
use crate::config::{Config, ConfigError};
use crate::runtime::JobReport;
use crate::runtime::cluster::Shape;
use drivetrain_schemas::control::BAD_DOCUMENT;
use drivetrain_schemas::reading::{IntakeCounts, Origin};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Sets a flag on SIGTERM and SIGINT; a second signal ends the process at once.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    // Others set `stop`, too (another process of the cluster): then the first signal is not the second.
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // In this order: the first signal finds the flag unset and sets it, the second finds it set.
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 130, signalled.clone())
            .and_then(|_| signal_hook::flag::register(signal, signalled.clone()))
            .and_then(|_| signal_hook::flag::register(signal, stop.clone()));
        registered.map_err(|e| Failure::job(format!("signals can't be handled: {e}")))?;
    }
    Ok(stop)
}

/// The configuration of a command.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    crate::config::load(path).map_err(|e: ConfigError| Failure::usage(e))
}

/// The data directory: the command line's, else the configuration's. A process that only computes needs none.
fn data_directory(argument: Option<PathBuf>, config: &Config, cluster: &Option<Shape>) -> Result<PathBuf, Failure> {
    if cluster::is_follower(cluster) {
        return Ok(PathBuf::new());
    }
    argument
        .or_else(|| config.job.data.clone())
        .ok_or_else(|| Failure::usage("where to? Give --data DIR, or set `data` in the configuration's [job] section"))
}

/// What became of the input, for a person.
pub(crate) fn print_summary(report: &JobReport) {
    print_intake(&report.commit.intake);
    let bad = report.commit.bad_documents;
    if bad > 0 {
        println!(
            "{bad} control documents could not be used: drivetrain sql --data {} \"select origin, position, detail from \
             rejects where reason = '{BAD_DOCUMENT}'\"",
            report.data.display()
        );
    }
}

/// The table `intake`.
fn print_intake(intake: &BTreeMap<Arc<Origin>, IntakeCounts>) {
    let mut total = IntakeCounts::default();
    println!(
        "{:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "intake", "records", "readings", "used", "duplicates", "rejected", "late", "invalid"
    );
    let line = |name: &str, c: &IntakeCounts| {
        println!(
            "{name:<40} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
            c.records, c.readings, c.used, c.duplicates, c.rejected, c.late, c.invalid_values
        );
    };
    for (origin, counts) in intake {
        total += counts;
        let name = match origin.partition {
            0 => origin.name.to_string(),
            p => format!("{}/{p}", origin.name),
        };
        let start = name.char_indices().rev().nth(38).map_or(0, |(i, _)| i);
        line(if start > 0 { &name[start..] } else { &name }, counts);
    }
    if intake.len() != 1 {
        line("total", &total);
    }
}
