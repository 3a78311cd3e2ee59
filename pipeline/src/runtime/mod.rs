//! Runs a job: the source thread, the workers, the committer, and their end.
//!
//! ```text
//!  source thread ──chunks──► worker 0..n (timely) ──outputs──► committer ──► history, live, progress
//!        ▲  └────────────────tickets───────────────────────────────▲│
//!        └──────────────── committed epoch (back-pressure) ─────────┘
//! ```
//!
//! Whoever fails first ends the others: a source error closes the workers' channels, a worker's end closes its frontier,
//! the committer's error stops the source.

mod bar;
pub mod emit;
mod restore;
pub mod source_operator;
mod start;

use crate::cli::Failure;
use crate::config::{Config, Resolved};
use crate::graph::{self, Plan, Restart};
use crate::source::{self, ToWorker};
use bar::Bar;
use crossbeam_channel::{Receiver, Sender, bounded};
use drivetrain_operators::flow::Time;
use drivetrain_operators::flow::keep::{Keep, Restored};
use drivetrain_schemas::control::ControlChange;
use drivetrain_sinks::checkpoint::Part;
use drivetrain_sinks::commit::{CommitError, Summary};
use drivetrain_sinks::kafka::KafkaError;
use drivetrain_sinks::message::Message;
use drivetrain_sinks::outlet::OutletError;
use drivetrain_sinks::progress::data::DataError;
use drivetrain_sinks::recovery::RecoveryError;
use emit::Emit;
use source_operator::Feed;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use thiserror::Error;
use timely::dataflow::operators::probe;
use timely::worker::Worker;

/// Messages that may wait for a worker. A chunk is at most 1,024 records, so that this bounds memory.
const WORKER_QUEUE: usize = 16;
/// How long a worker with nothing to do sleeps at most.
const PARK: Duration = Duration::from_millis(2);

/// Why a job ended other than by its input's end or a signal; exit code 1 (2 for what the user can mend at once).
#[derive(Debug, Error)]
pub enum JobError {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Source(#[from] source::SourceError),
    #[error("{0}")]
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
}

/// What to do about an error that a start may meet.
fn hint(error: &KafkaError) -> &'static str {
    if error.is_retryable() { "; check kafka.brokers, the network, and TLS or SASL in kafka.properties" } else { "" }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        let usage = match &error {
            JobError::Config(_) => true,
            JobError::Source(e) => e.is_usage(),
            JobError::Commit(e) => matches!(e, CommitError::Data(_)),
            JobError::Data(_) => true,
            JobError::Recovery(e) => e.is_usage(),
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
    /// Files, until their end.
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
    pub workers: Option<usize>,
    pub fresh: bool,
    /// Record time of records that have none.
    pub at: Option<String>,
    pub stop: Arc<AtomicBool>,
    /// Show a progress bar when stderr is a terminal.
    pub progress: bool,
}

/// How a job went.
#[derive(Debug)]
pub struct JobReport {
    pub data: PathBuf,
    pub commit: Summary,
}

/// Runs a job to its end: of the input, by `stop`, or by a failure.
///
/// # Errors
/// The first cause, as one message with its remedy.
pub fn run_job(options: JobOptions) -> Result<JobReport, JobError> {
    let resolved = Resolved::new(&options.config, &options.config_path, options.at.as_deref())
        .map_err(|e| JobError::Config(e.to_string()))?;
    let workers = options.workers.or(options.config.job.workers).unwrap_or(1);
    if workers == 0 || workers > 256 {
        return Err(JobError::Config(format!("workers = {workers}: choose 1 to 256")));
    }
    // What the user can have got wrong is looked at before anything is written.
    let prepared = start::prepare(&options, &resolved)?;
    let start::Begun { committer, restored, resumed } = start::begin(&options, &resolved, workers)?;
    let after = resumed.as_ref().map_or(-1, |r| r.next_epoch - 1);
    let recalled = resumed.as_ref().map_or_else(Vec::new, |r| r.control.clone());
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| bounded::<ToWorker>(WORKER_QUEUE)).unzip();
    let source = start::source(prepared, resumed, options.stop.clone(), &committer, senders)?;
    let bar = Bar::start(&options, source.progress.clone());
    let begin = Begin { receivers, restored, recalled, after };
    let worked = work(&resolved, begin, &committer.sender(), workers);
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
        (Ok(()), Ok(_), Ok(commit)) => Ok(JobReport { data: options.data, commit }),
    }
}

/// What the workers begin with.
struct Begin {
    /// By worker, as `restored`.
    receivers: Vec<Receiver<ToWorker>>,
    restored: Vec<Restored>,
    /// The control documents known at the checkpoint.
    recalled: Vec<ControlChange>,
    /// The checkpoint's epoch; -1 without one.
    after: i64,
}

/// Runs the workers until their input has ended and everything has been said.
fn work(resolved: &Resolved, begin: Begin, sender: &Sender<Message>, workers: usize) -> Result<(), String> {
    let Begin { receivers, restored, mut recalled, after } = begin;
    let keeps = resolved.epochs.checkpoint_every.is_some();
    let plan = Plan {
        catalogue: resolved.catalogue.clone(),
        kernels: resolved.kernels.clone(),
        options: resolved.state_options,
        policy: resolved.policy.clone(),
    };
    let feeds: Vec<Option<(Feed, Restored)>> = receivers
        .into_iter()
        .zip(restored)
        .enumerate()
        .map(|(worker, (receiver, restored))| {
            let feed = Feed {
                receiver,
                decoders: resolved.decoders(),
                worker: worker as u64,
                workers: workers as u64,
                width: resolved.catalogue.width(),
                // The first worker's, as all control changes are.
                recalled: std::mem::take(&mut recalled),
            };
            Some((feed, restored))
        })
        .collect();
    let feeds = Mutex::new(feeds);
    let emit = Emit { sender: sender.clone(), catalogue: plan.catalogue.clone(), kernels: plan.kernels.clone(), after };
    let emit = Mutex::new(emit);
    let communication = match workers {
        1 => timely::CommunicationConfig::Thread,
        n => timely::CommunicationConfig::Process(n),
    };
    let mut config = timely::Config { communication, worker: timely::WorkerConfig::default() };
    differential_dataflow::configure(
        &mut config.worker,
        &differential_dataflow::Config { idle_merge_effort: Some(1000) },
    );
    let guards = timely::execute(config, move |worker| {
        let index = worker.index();
        let feed = feeds.lock().ok().and_then(|mut feeds| feeds.get_mut(index).and_then(Option::take));
        let emit = emit.lock().ok().map(|emit| emit.clone());
        if let (Some((feed, restored)), Some(emit)) = (feed, emit) {
            let sender = emit.sender.clone();
            let mut restart = Restart { restored, keep: keeps.then(|| keep(index, sender.clone())) };
            let finished = graph::build(worker, &plan, feed, emit, &mut restart);
            if let Some(problem) = restart.restored.problem() {
                let problem = format!("the checkpoint cannot be read: {problem}");
                drop(sender.send(Message::Failed(problem)));
            }
            drive(worker, &finished, &sender);
        }
    })?;
    let failed = guards.join().into_iter().find_map(Result::err);
    failed.map_or(Ok(()), Err)
}

/// Sends what the operators of a worker keep to the committer.
fn keep(worker: usize, sender: Sender<Message>) -> Keep {
    Rc::new(move |epoch, operator, records| {
        let part = Part { operator: operator.to_string(), worker, records };
        // The committer is gone only when it has failed; its error is reported by whoever joins it.
        drop(sender.send(Message::Part { epoch: epoch as i64, part }));
    })
}

/// Steps a worker and tells the committer which epochs it has finished.
fn drive(worker: &mut Worker, finished: &probe::Handle<Time>, sender: &Sender<Message>) {
    let index = worker.index();
    let mut told = 0;
    loop {
        worker.step_or_park(Some(PARK));
        let frontier = finished.with_frontier(|f| f.first().copied());
        let epoch = frontier.map_or(i64::MAX, |f| f as i64);
        if epoch > told {
            told = epoch;
            if sender.send(Message::Frontier { worker: index, epoch }).is_err() {
                return;
            }
        }
        if epoch == i64::MAX {
            return;
        }
    }
}
