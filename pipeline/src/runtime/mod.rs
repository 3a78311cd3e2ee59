//! Runs a job: the source thread, the workers, the committer, and their end.
//!
//! ```text
//!  source thread ──chunks──► worker 0..n (timely) ──outputs──► committer ──► history, live, progress
//!        ▲  └────────────────tickets───────────────────────────────▲│
//!        └──────────────── committed epoch (back-pressure) ─────────┘
//! ```
//!
//! With several processes some of the workers are elsewhere ([`cluster`]); nothing else differs.
//!
//! Whoever fails first ends the others: a source error closes the workers' channels, a worker's end closes its frontier,
//! the committer's error stops the source.

mod bar;
pub mod cluster;
pub mod emit;
mod repeat;
mod restore;
pub mod source_operator;
mod start;
mod work;

use crate::cli::Failure;
use crate::config::{Config, Resolved};
use crate::source::{self, ToWorker};
use bar::Bar;
use cluster::{ClusterError, Leader, Shape};
use crossbeam_channel::bounded;
use drivetrain_sinks::commit::{CommitError, Summary};
use drivetrain_sinks::kafka::KafkaError;
use drivetrain_sinks::message::Message;
use drivetrain_sinks::outlet::OutletError;
use drivetrain_sinks::progress::data::DataError;
use drivetrain_sinks::recovery::RecoveryError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use thiserror::Error;
use work::{Begin, work};

/// Messages that may wait for a worker. A chunk is at most 1,024 records, so that this bounds memory.
const WORKER_QUEUE: usize = 16;

/// Why a job ended other than by its input's end or a signal; exit code 1 (2 for what the user can mend at once).
#[derive(Debug, Error)]
pub enum JobError {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Source(#[from] source::SourceError),
    #[error("{0}{remedy}", remedy = again(.0))]
    Commit(#[from] CommitError),
    #[error("{0}")]
    Data(#[from] DataError),
    #[error("{0}")]
    Outlet(#[from] OutletError),
    #[error("{0}")]
    Recovery(#[from] RecoveryError),
    /// Before anything was written.
    #[error("kafka at {brokers}: {error}{}", hint(error))]
    Kafka { brokers: String, error: KafkaError },
    #[error("a worker failed: {0}")]
    Worker(String),
    #[error("{0}")]
    Cluster(#[from] ClusterError),
}

/// What to do about an error that a start may meet.
fn hint(error: &KafkaError) -> &'static str {
    if error.is_retryable() { "; check kafka.brokers, the network, and TLS or SASL in kafka.properties" } else { "" }
}

/// What to do about a broker that was away for too long.
fn again(error: &CommitError) -> &'static str {
    match error {
        CommitError::Outlet(e) if e.is_retryable() => {
            ". What was not committed is taken back; start it again: nothing is lost"
        }
        _ => "",
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let usage = match &error {
            JobError::Config(_) => true,
            JobError::Source(e) => e.is_usage(),
            JobError::Commit(CommitError::Data(e)) | JobError::Data(e) => e.is_usage(),
            JobError::Commit(_) => false,
            JobError::Recovery(e) => e.is_usage(),
            JobError::Cluster(ClusterError::Stopped) => return Failure { code: 0, message: error.to_string() },
            JobError::Cluster(e) => e.is_usage(),
            JobError::Worker(_) | JobError::Outlet(_) | JobError::Kafka { .. } => false,
        };
        if usage { Failure::usage(error) } else { Failure::job(error) }
    }
}

/// Where input comes from.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Topics to topics and history, until stopped.
    Run,
    /// Topics to local files, until stopped (the demo).
    Local,
    /// Files, until their end; or what `bindings` say was read, of them or (without inputs) of topics.
    Replay { inputs: Vec<String>, bindings: Option<PathBuf> },
}

/// What a command asks for.
#[derive(Debug)]
pub struct JobOptions {
    pub mode: Mode,
    pub config: Config,
    /// Relative paths of the configuration start from its directory.
    pub config_path: PathBuf,
    pub data: PathBuf,
    /// Of each process.
    pub workers: Option<usize>,
    /// The processes that are this job; None: this one alone.
    pub cluster: Option<Shape>,
    pub fresh: bool,
    /// Record time of records that have none.
    pub at: Option<String>,
    pub stop: Arc<AtomicBool>,
    /// Show a progress bar when stderr is a terminal.
    pub progress: bool,
}

impl JobOptions {
    /// What `sql --data` takes to see the results.
    fn results(&self) -> PathBuf {
        self.config.storage.url.as_ref().map_or_else(|| self.data.clone(), PathBuf::from)
    }
}

/// How a job went.
#[derive(Debug)]
pub struct JobReport {
    /// The data directory, or the store's URL.
    pub data: PathBuf,
    pub commit: Summary,
}

/// Runs a job to its end: of the input, by `stop`, or by a failure. Of several processes this is the one that leads.
///
/// # Errors
/// The first cause, as one message with its remedy.
pub fn run_job(options: JobOptions) -> Result<JobReport, JobError> {
    let (resolved, workers) = resolve(&options)?;
    // What the user can have got wrong is looked at before anything is written.
    let prepared = start::prepare(&options, &resolved)?;
    let Some(shape) = options.cluster.clone() else { return lead(options, &resolved, prepared, workers, None) };
    let config = options.config.shared_hash(options.at.as_deref());
    let mut leader = Leader::assemble(&shape, config, workers, &options.stop)?;
    let result = lead(options, &resolved, prepared, workers, Some(&mut leader));
    leader.end(result.as_ref().map(|_| ()).map_err(JobError::to_string));
    result
}

/// Computes for a job that another process leads, until it has ended.
///
/// # Errors
/// When the processes do not come together, or this one fails. When another one fails or is gone, the process ends.
pub fn follow_job(options: JobOptions) -> Result<(), JobError> {
    let (resolved, workers) = resolve(&options)?;
    let Some(shape) = &options.cluster else { return Ok(()) };
    let config = options.config.shared_hash(options.at.as_deref());
    cluster::follow(shape, &resolved, config, workers, &options.stop)
}

fn resolve(options: &JobOptions) -> Result<(Resolved, usize), JobError> {
    let resolved = Resolved::new(&options.config, &options.config_path, options.at.as_deref())
        .map_err(|e| JobError::Config(e.to_string()))?;
    let workers = options.workers.or(options.config.job.workers).unwrap_or(1);
    if workers == 0 || workers > 256 {
        return Err(JobError::Config(format!("workers = {workers}: choose 1 to 256")));
    }
    Ok((resolved, workers))
}

/// Reads, computes with `workers` of this process and those of the others, and commits.
fn lead(
    options: JobOptions,
    resolved: &Resolved,
    prepared: start::Prepared,
    workers: usize,
    mut leader: Option<&mut Leader>,
) -> Result<JobReport, JobError> {
    let total = leader.as_ref().map_or(workers, |leader| leader.total_workers());
    let start::Begun { committer, mut restored, resumed } = start::begin(&options, resolved, total)?;
    let after = resumed.as_ref().map_or(-1, |r| r.next_epoch - 1);
    let recalled = resumed.as_ref().map_or_else(Vec::new, |r| r.control.clone());
    let (senders, mut receivers): (Vec<_>, Vec<_>) = (0..total).map(|_| bounded::<ToWorker>(WORKER_QUEUE)).unzip();
    let remotes = receivers.split_off(workers).into_iter().zip(restored.split_off(workers)).collect();
    let network = leader.as_mut().map(|leader| leader.begin(remotes, after, &committer.sender())).transpose()?;
    let source = start::source(prepared, resumed, options.stop.clone(), &committer, senders)?;
    let bar = Bar::start(&options, source.progress.clone());
    let begin = Begin { first: 0, total, receivers, restored, recalled, after, network };
    let worked = work(resolved, begin, &committer.sender());
    // Workers end when the source has; if they failed, the source finds its channels closed.
    let read = source.join();
    bar.finish();
    if let Err(error) = &worked {
        drop(committer.sender().send(Message::Failed(error.clone())));
    } else if let Err(error) = &read {
        drop(committer.sender().send(Message::Failed(error.to_string())));
    }
    let commit = committer.join();
    match (worked, read, commit) {
        // The committer's own error is the cause when the others only found it gone.
        (_, _, Err(error)) if !matches!(error, CommitError::Failed(_)) => Err(error.into()),
        (Err(error), _, _) => Err(JobError::Worker(error)),
        (_, Err(error), _) => Err(error.into()),
        (_, _, Err(error)) => Err(error.into()),
        (Ok(()), Ok(_), Ok(commit)) => Ok(JobReport { data: options.results(), commit }),
    }
}
