//! Tests of the whole source thread, over files and over librdkafka's mock cluster.

mod control;
mod files;
mod kafka;
mod remote;
mod run;

use super::*;
use crossbeam_channel::{Receiver, unbounded};
use drivetrain_schemas::control::ControlChange;
use drivetrain_schemas::decode::{Body, Record};
use drivetrain_schemas::reading::Reject;
use drivetrain_sinks::message::{Message, Ticket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A record as text: origin's name, position, body.
pub(crate) type Seen = (String, i64, String);

/// What a run handed out.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Records by epoch.
    pub(crate) epochs: Vec<(i64, Vec<Seen>)>,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) changes: Vec<(i64, ControlChange)>,
    pub(crate) rejects: Vec<Reject>,
    pub(crate) failed: Option<String>,
    /// The committer was told that no more tickets will come.
    pub(crate) stopped: bool,
}

impl Outcome {
    pub(crate) fn records(&self) -> Vec<Seen> {
        self.epochs.iter().flat_map(|(_, records)| records.clone()).collect()
    }
}

pub(crate) fn body(record: &Record<'_>) -> String {
    match &record.body {
        Body::Tombstone => "tombstone".into(),
        Body::Json(bytes) => String::from_utf8_lossy(bytes).into(),
        Body::Csv { header, line } => format!("{:?} {}", header.names, String::from_utf8_lossy(line)),
        Body::Columns { batch, row } => format!("{:?}", batch.slice(*row, 1).column(0)),
    }
}

/// `{"t":SECONDS}` as event time.
pub(crate) fn peek() -> Peek {
    Box::new(|record| {
        let text = body(record);
        let digits = text.strip_prefix("{\"t\":")?.split(|c: char| !c.is_ascii_digit()).next()?.to_string();
        digits.parse::<i64>().ok().map(|s| s * 1_000_000)
    })
}

pub(crate) fn source(name: &str, config: &str) -> SourceSpec {
    let config: SourceConfig = toml::from_str(config).unwrap();
    SourceSpec::new(name, &config).unwrap()
}

pub(crate) fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path.to_string_lossy().into()
}

pub(crate) fn epochs(config: EpochConfig) -> EpochSettings {
    config.resolve(Pending { quiet: 2_000_000, vehicle_state_every: 1_000_000 }).unwrap()
}

pub(crate) fn job(sources: Vec<SourceSpec>, inputs: &[String]) -> Job {
    let files = super::files::resolve(inputs, &sources).unwrap();
    let peeks = sources.iter().map(|_| peek()).collect();
    let wall = AtomicI64::new(1_000_000);
    Job {
        sources,
        input: Input { files, kafka: None },
        reference: Reference::default(),
        epochs: epochs(EpochConfig { max_records: 10, chunk_records: 4, ..EpochConfig::default() }),
        max_record: 1000,
        mode: Mode::Replay,
        resume: None,
        plan: Plan::default(),
        peeks,
        wall: Box::new(move || wall.fetch_add(20_000, Ordering::Relaxed)),
        committed: Arc::new(AtomicI64::new(-1)),
        stop: Arc::new(AtomicBool::new(false)),
        progress: Arc::new(Progress::default()),
    }
}

/// A running source thread with two workers.
pub(crate) struct Running {
    pub(crate) thread: JoinHandle<Result<SourceSummary, SourceError>>,
    pub(crate) workers: Vec<Receiver<ToWorker>>,
    pub(crate) tickets: Receiver<Message>,
    pub(crate) committed: Arc<AtomicI64>,
    pub(crate) stop: Arc<AtomicBool>,
}

pub(crate) fn launch(job: Job) -> Running {
    let (committed, stop) = (job.committed.clone(), job.stop.clone());
    let (senders, workers): (Vec<_>, Vec<_>) = (0..2).map(|_| unbounded()).unzip();
    let (committer, tickets) = unbounded();
    let thread = start(job, Outlet { workers: senders, committer, wake: Box::new(|_| {}) }).unwrap();
    Running { thread, workers, tickets, committed, stop }
}

impl Running {
    /// Commits what comes until `enough` or the thread's end, then stops it.
    pub(crate) fn finish(self, enough: impl Fn(&[Ticket]) -> bool) -> (Outcome, Result<SourceSummary, SourceError>) {
        let mut outcome = Outcome::default();
        loop {
            match self.tickets.recv_timeout(Duration::from_secs(30)) {
                Ok(Message::Ticket(ticket)) => {
                    self.committed.store(ticket.epoch, Ordering::Release);
                    outcome.tickets.push(ticket);
                    if enough(&outcome.tickets) {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                }
                Ok(Message::Failed(error)) => outcome.failed = Some(error),
                Ok(Message::Stop) => outcome.stopped = true,
                Ok(other) => panic!("{other:?}"),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => panic!("stuck after {:?}", outcome.tickets.last()),
                Err(_) => break,
            }
        }
        let result = self.thread.join().unwrap();
        collect(&self.workers, &mut outcome);
        (outcome, result)
    }
}

/// Reads the workers' channels and checks their contract: epochs in order, nothing of an epoch behind its end.
fn collect(workers: &[Receiver<ToWorker>], outcome: &mut Outcome) {
    let mut epochs = std::collections::BTreeMap::<i64, Vec<Seen>>::new();
    for (worker, receiver) in workers.iter().enumerate() {
        let mut closed = Vec::new();
        for message in receiver.try_iter() {
            let last = closed.last().copied().unwrap_or(i64::MIN);
            match message {
                ToWorker::Chunk { epoch, chunk } => {
                    assert!(epoch > last);
                    let seen = epochs.entry(epoch).or_default();
                    let before = seen.len();
                    chunk.for_each(|r| seen.push((chunk.origin.name.to_string(), r.position, body(&r))));
                    assert_eq!(seen.len() - before, chunk.len());
                }
                ToWorker::Control { epoch, changes, rejects } => {
                    assert!(epoch > last && worker == 0);
                    outcome.changes.extend(changes.into_iter().map(|c| (epoch, c)));
                    outcome.rejects.extend(rejects);
                }
                ToWorker::Epoch { epoch, wall, end, .. } => {
                    let ticket = outcome.tickets.iter().find(|t| t.epoch == epoch).unwrap();
                    assert!(epoch > last && ticket.wall == wall && ticket.end == end);
                    closed.push(epoch);
                }
            }
        }
        assert_eq!(closed, outcome.tickets.iter().map(|t| t.epoch).collect::<Vec<_>>(), "every epoch, to every worker");
    }
    outcome.epochs = epochs.into_iter().collect();
    for (_, records) in &mut outcome.epochs {
        records.sort();
    }
}

pub(crate) fn replay(job: Job) -> Outcome {
    let (outcome, result) = launch(job).finish(|_| false);
    let summary = result.unwrap();
    assert_eq!(summary.records as usize, outcome.records().len());
    outcome
}
