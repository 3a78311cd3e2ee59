//! `drivetrain run`: Kafka to Kafka and Parquet, until SIGTERM or Ctrl-C.

use super::{data_directory, load, print_summary, stop_on_signals};
use crate::cli::Failure;
use crate::runtime::{JobOptions, Mode, run_job};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// The data directory of the history.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Worker threads; results do not depend on it.
    #[arg(long)]
    workers: Option<usize>,
    /// Start over: deletes what an earlier run left (in the data directory and in the progress topic), and says what.
    #[arg(long)]
    fresh: bool,
}

pub fn run(args: RunArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let data = data_directory(args.data, &config)?;
    let options = JobOptions {
        mode: Mode::Run,
        config,
        config_path: args.config,
        data,
        workers: args.workers,
        fresh: args.fresh,
        at: None,
        stop: stop_on_signals()?,
        progress: false,
    };
    let report = run_job(options)?;
    print_summary(&report);
    Ok(())
}
