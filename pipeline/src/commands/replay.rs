//! `drivetrain replay`: files through the whole graph, in order, without a broker; or a recorded run once more.

use super::cluster::{ClusterArgs, is_follower};
use super::{data_directory, load, print_summary, stop_on_signals};
use crate::cli::Failure;
use crate::runtime::{JobOptions, Mode, follow_job, run_job};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The configuration.
    #[arg(long)]
    config: PathBuf,
    /// The data directory: history, live values and progress go there.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Worker threads (of each process); results do not depend on it.
    #[arg(long)]
    workers: Option<usize>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Start over: deletes what an earlier run left in the data directory, and says what.
    #[arg(long)]
    fresh: bool,
    /// Record time of records that have none.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Repeat a recorded run, epoch by epoch: its `<data>/bindings`. Of a `run` on Kafka leave INPUT out: the topics are
    /// read again at the recorded offsets (brokers: as in `run`), nothing is written to Kafka and no offset committed;
    /// results go to --data, a new directory.
    #[arg(long, value_name = "LOG")]
    bindings: Option<PathBuf>,
    /// Files or directories (sorted), or SOURCE=PATH where there are several sources.
    #[arg(required_unless_present = "bindings", value_name = "INPUT")]
    inputs: Vec<String>,
}

pub fn replay(args: ReplayArgs) -> Result<(), Failure> {
    let config = load(&args.config)?;
    let cluster = args.cluster.shape()?;
    let data = data_directory(args.data, &config, &cluster)?;
    let options = JobOptions {
        mode: Mode::Replay { inputs: args.inputs, bindings: args.bindings },
        config,
        config_path: args.config,
        data,
        workers: args.workers,
        cluster,
        fresh: args.fresh,
        at: args.at,
        stop: stop_on_signals()?,
        progress: true,
    };
    if is_follower(&options.cluster) {
        return Ok(follow_job(options)?);
    }
    let began = Instant::now();
    let report = run_job(options)?;
    print_summary(&report);
    let records: i64 = report.commit.intake.values().map(|c| c.records).sum();
    let seconds = began.elapsed().as_secs_f64();
    let rate = records as f64 / seconds.max(1e-9);
    println!("{records} records in {seconds:.1} s: {rate:.0} records/s, {} epochs", report.commit.epochs);
    println!("try: drivetrain sql --data {} \"select * from trips limit 10\"", report.data.display());
    Ok(())
}
