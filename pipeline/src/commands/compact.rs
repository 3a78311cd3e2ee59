//! `drivetrain compact`: housekeeping of the history, while a job runs on it or not.

use super::{data_directory, load, stop_on_signals};
use crate::cli::Failure;
use crate::clock::wall_micros;
use clap::Args;
use drivetrain_schemas::time::{format_rfc3339, parse_duration};
use drivetrain_sinks::history::HistoryConfig;
use drivetrain_sinks::housekeeping::{
    Done, Housekeeper, HousekeepingError, Options, RetentionConfig, Status, plan, status,
};
use drivetrain_sinks::units::Span;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Merges small history files; with a configuration also takes away what `[history.retention]` does not keep, and cancels
/// changes older than `history.as_of` against each other.
///
/// May run at any time, from cron for instance: the job and readers go on. Files that were replaced are deleted
/// `history.grace` later, by the next run or, with --wait, by this one.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// The job's configuration. Without one, files are merged and nothing else.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The job's data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long replaced files stay for readers that have begun before; overrides history.grace.
    #[arg(long, value_name = "DURATION")]
    grace: Option<String>,
    /// Wait until replaced files can be deleted, and delete them.
    #[arg(long)]
    wait: bool,
    /// Print what there is to do, and change nothing.
    #[arg(long, conflicts_with = "status")]
    dry_run: bool,
    /// Print how the history stands and what retention has taken away, and change nothing.
    #[arg(long)]
    status: bool,
}

pub fn compact(args: CompactArgs) -> Result<(), Failure> {
    let config = args.config.as_deref().map(load).transpose()?;
    let data = match (&config, args.data) {
        (Some(config), data) => data_directory(data, config, &None)?,
        (None, Some(data)) => data,
        (None, None) => {
            return Err(Failure::usage("which directory? Give --data DIR, or --config with `data` in [job]"));
        }
    };
    let stored = config.as_ref().is_some_and(|config| config.storage.url.is_some());
    if stored || data.to_string_lossy().contains("://") {
        return Err(Failure::usage(
            "the history of this job is in a store, and there `compact` does not work yet: it merges files and takes old ones \
             away in a data directory only",
        ));
    }
    if !data.is_dir() {
        return Err(Failure::usage(format!("{}: there is no such data directory", data.display())));
    }
    let consolidate = config.is_some();
    let history = match config {
        Some(config) => config.history,
        None => HistoryConfig { retention: RetentionConfig::forever(), ..HistoryConfig::default() },
    };
    history.validate().map_err(Failure::usage)?;
    let grace = match args.grace {
        Some(text) => parse_duration(&text).map(Span).map_err(|e| Failure::usage(format!("--grace: {e}")))?,
        None => history.grace,
    };
    let options = Options { history, consolidate };
    match (args.status, args.dry_run) {
        (true, _) => print_status(&status(&data).map_err(failure)?),
        (_, true) => print!("{}", plan(&data, &options, wall_micros()).map_err(failure)?),
        _ => run(&data, &options, grace, args.wait)?,
    }
    Ok(())
}

fn failure(error: HousekeepingError) -> Failure {
    match error {
        HousekeepingError::NoManifest { .. } => Failure::usage(error),
        _ => Failure::job(error),
    }
}

fn run(data: &Path, options: &Options, grace: Span, wait: bool) -> Result<(), Failure> {
    let mut keeper = Housekeeper::open(data).map_err(failure)?;
    // What earlier runs have left makes room before more is needed.
    let (mut files, mut bytes) = keeper.settle(grace.0, wall_micros()).map_err(failure)?;
    let done = keeper.run(options, wall_micros()).map_err(failure)?;
    print_done(&done);
    let stop = stop_on_signals()?;
    while wait && !stop.load(Ordering::Relaxed) {
        let patience = keeper.patience(grace.0, wall_micros());
        if patience == 0 {
            break;
        }
        std::thread::park_timeout(Duration::from_micros(patience.unsigned_abs()).min(Duration::from_millis(200)));
    }
    let (more_files, more_bytes) = keeper.settle(grace.0, wall_micros()).map_err(failure)?;
    (files, bytes) = (files + more_files, bytes + more_bytes);
    println!("{files} files ({bytes} bytes) that were replaced or taken away are deleted");
    let left = status(data).map_err(failure)?.replaced;
    if left > 0 {
        let wait = Duration::from_micros(keeper.patience(grace.0, wall_micros()).unsigned_abs()).as_secs();
        println!("{left} stay for readers that may have begun with them; a run in {wait} s or later deletes them");
    }
    Ok(())
}

fn print_done(done: &Done) {
    println!(
        "{} files became {}; {} changes that cancelled each other are gone",
        done.merged, done.into, done.cancelled
    );
    if done.expired > 0 {
        println!("retention took {} files with {} rows away", done.expired, done.expired_rows);
    }
}

fn print_status(status: &Status) {
    println!("{:<20} {:>8} {:>14} {:>16}", "table", "files", "rows", "bytes");
    for (table, (files, rows, bytes)) in &status.tables {
        println!("{:<20} {files:>8} {rows:>14} {bytes:>16}", table.name());
    }
    match status.oldest_epoch {
        -1 => println!("the past: whole; sql --as-of reaches back to the first epoch"),
        epoch => println!("the past: sql --as-of reaches back to epoch {epoch}"),
    }
    for (table, expired) in &status.expired {
        println!(
            "retention: {} has no days before {}; {} rows are gone, last at {}",
            table.name(),
            expired.before,
            expired.rows,
            format_rfc3339(expired.at)
        );
    }
    if status.expired.is_empty() {
        println!("retention: nothing was taken away");
    }
    if status.replaced > 0 {
        println!("{} files that were replaced or taken away are not deleted yet", status.replaced);
    }
}
