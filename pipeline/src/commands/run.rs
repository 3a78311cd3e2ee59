//! `drivetrain run`: Kafka to Kafka and Parquet, until SIGTERM or Ctrl-C.

use super::cluster::{ClusterArgs, is_follower};
use super::{data_directory, load, print_summary, stop_on_signals};
use crate::cli::Failure;
use crate::runtime::{JobOptions, Mode, follow_job, run_job};
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
    /// Worker threads (of each process); results do not depend on it.
    #[arg(long)]
    workers: Option<usize>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Start over: deletes what an earlier run left (in the data directory and in the progress topic), and says what.
    #[arg(long)]
    fresh: bool,
}

pub fn run(args: RunArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let cluster = args.cluster.shape()?;
    let data = data_directory(args.data, &config, &cluster)?;
    let options = JobOptions {
        mode: Mode::Run,
        config,
        config_path: args.config,
        data,
        workers: args.workers,
        cluster,
        fresh: args.fresh,
        at: None,
        stop: stop_on_signals()?,
        progress: false,
    };
    if is_follower(&options.cluster) {
        return Ok(follow_job(options)?);
    }
    let report = run_job(options)?;
    print_summary(&report);
    Ok(())
}
