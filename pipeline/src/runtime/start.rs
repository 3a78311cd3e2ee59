//! The beginning of a job: input looked at first, then the data directory claimed, then the threads.

use super::repeat;
use super::restore::restore;
use super::{JobError, JobOptions, Mode};
use crate::clock::wall_micros;
use crate::config::Resolved;
use crate::source::{
    self, EpochSettings, Input, Job, KafkaSettings, Outlet, Peek, Plan, Progress, Reference, Resume, SourceError,
    SourceSummary, StartAt, ToWorker,
};
use crossbeam_channel::Sender;
use drivetrain_operators::flow::keep::Restored;
use drivetrain_schemas::decode::{Decoder, Record};
use drivetrain_schemas::mapping::Layout;
use drivetrain_sinks::commit::{Committer, CommitterConfig, CommitterHandle};
use drivetrain_sinks::kafka::{self, Reader, TransactionalSink};
use drivetrain_sinks::live::LocalOutlet;
use drivetrain_sinks::message::Ticket;
use drivetrain_sinks::outlet;
use drivetrain_sinks::progress::data::{DataDir, DataError, Held};
use drivetrain_sinks::recovery::{self, Identity, RecoveryError, Resumed, Start};
use drivetrain_sinks::store::{Remote, Storage};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

/// What is to be read, found and checked; nothing has been written.
pub(super) struct Prepared {
    input: Input,
    plan: Plan,
    reference: Reference,
    mode: source::Mode,
    peeks: Vec<Peek>,
    max_record: usize,
    epochs: EpochSettings,
    sources: Vec<source::SourceSpec>,
}

/// Finds the input.
pub(super) fn prepare(options: &JobOptions, resolved: &Resolved) -> Result<Prepared, JobError> {
    if options.data.exists() && !options.data.is_dir() {
        let message =
            format!("--data {}: not a directory; name a directory, or one to be made", options.data.display());
        return Err(JobError::Config(message));
    }
    let mut input = Input::default();
    let mut plan = Plan::default();
    let mut mode = source::Mode::Run;
    let mut reference = Reference::default();
    // Recorded epochs have their reference data in them.
    let recorded = matches!(&options.mode, Mode::Replay { bindings: Some(_), .. });
    for (kind, files, topic) in resolved.reference.iter().filter(|_| !recorded) {
        if let Some(missing) = files.iter().find(|file| !file.exists()) {
            return Err(JobError::Config(format!(
                "reference.{}: {}: no such file; paths start from the configuration's directory",
                kind.name(),
                missing.display()
            )));
        }
        reference.files.extend(files.iter().map(|file| (*kind, file.clone())));
        reference.topics.extend(topic.iter().map(|topic| (*kind, topic.clone())));
    }
    match &options.mode {
        Mode::Run | Mode::Local => input.kafka = Some(kafka_settings(options)?),
        Mode::Replay { inputs, bindings } => {
            mode = source::Mode::Replay;
            inputs.iter().try_for_each(|input| known_source(input, resolved))?;
            if !inputs.is_empty() {
                input.files = source::files::resolve(inputs, &resolved.sources)?;
            }
            // Without a broker, reference data comes from files only.
            reference.topics.clear();
            if let Some(path) = bindings {
                repeat::is_elsewhere(path, &options.data)?;
                plan = Plan { tickets: source::read_bindings(path)?, go_on: false };
                if repeat::is_of_topics(options, &plan.tickets)? {
                    input.kafka = Some(KafkaSettings { commit_offsets: false, ..kafka_settings(options)? });
                }
            }
        }
    }
    Ok(Prepared {
        input,
        plan,
        reference,
        mode,
        peeks: resolved.decoders().into_iter().map(peek).collect(),
        max_record: options.config.limits.max_record,
        epochs: resolved.epochs,
        sources: resolved.sources.clone(),
    })
}

/// `SOURCE=PATH` names a source of the configuration, unless there is a file of that name.
fn known_source(input: &str, resolved: &Resolved) -> Result<(), JobError> {
    let Some((name, path)) = input.split_once('=') else { return Ok(()) };
    let names: Vec<&str> = resolved.sources.iter().map(|s| &*s.name).collect();
    if names.contains(&name) || Path::new(input).exists() || !Path::new(path).exists() {
        return Ok(());
    }
    let names = names.join(", ");
    Err(JobError::Config(format!("{input}: there is no source {name:?}; the sources are {names}")))
}

/// What trip payloads without a time stand at, said once the job really starts.
fn warn_of_record_time(options: &JobOptions) {
    let untimed = |s: &source::SourceConfig| s.layout == Layout::Trip && s.fields.record_time.is_none();
    let files = matches!(&options.mode, Mode::Replay { inputs, .. } if !inputs.is_empty());
    if files && options.at.is_none() && options.config.sources.values().any(untimed) {
        eprintln!("trip payloads that bear no time stand at 1970-01-01T00:00:00Z; --at TIME sets another");
    }
}

fn peek(mut decoder: Decoder) -> Peek {
    Box::new(move |record: &Record<'_>| decoder.peek_time(record))
}

fn kafka_settings(options: &JobOptions) -> Result<KafkaSettings, JobError> {
    let config = &options.config;
    if config.kafka.brokers.is_empty() {
        let message = "kafka.brokers is not set; name the brokers, such as \"localhost:9092\"".to_string();
        return Err(JobError::Config(message));
    }
    if config.sources.values().all(|source| source.topics.is_empty()) {
        let message = "no source has topics; set `topics` of a source, or use `replay` for files".to_string();
        return Err(JobError::Config(message));
    }
    let mut settings = KafkaSettings::new(&config.kafka.brokers, &config.job.name);
    settings.start = StartAt::parse(&config.kafka.start).map_err(|e| JobError::Config(format!("kafka.start: {e}")))?;
    settings.direct = config.kafka.reader == Reader::Auto;
    settings.properties = config.kafka.properties.clone();
    Ok(settings)
}

/// What a job begins with.
pub(super) struct Begun {
    pub(super) committer: CommitterHandle,
    /// By worker.
    pub(super) restored: Vec<Restored>,
    /// Where the job goes on; None: at its beginning.
    pub(super) resumed: Option<Resumed>,
}

/// Claims the data directory (and the job's topics), finds where an earlier run has come to, and starts the committer.
pub(super) fn begin(options: &JobOptions, resolved: &Resolved, workers: usize) -> Result<Begun, JobError> {
    let job = &options.config.job.name;
    // With Kafka an instance that hangs is overtaken: the broker lets it commit nothing more.
    let held = if matches!(options.mode, Mode::Run) && !options.fresh { Held::TakeOver } else { Held::Refuse };
    let remote = store(options)?;
    let data = DataDir::lock(&options.data, job, wall_micros(), held)?.with_store(remote);
    if options.fresh {
        let deleted = data.fresh()?;
        if !deleted.is_empty() && !matches!(options.mode, Mode::Local) {
            eprintln!("--fresh: deleted in {}: {}", options.data.display(), deleted.join(", "));
        }
    }
    let mut outlet: Box<dyn outlet::Outlet> = match options.mode {
        Mode::Run => {
            let config = &options.config.kafka;
            let failed = |error| JobError::Kafka { brokers: config.brokers.clone(), error };
            if options.fresh {
                let deleted = kafka::fresh(config, job).map_err(failed)?;
                if !deleted.is_empty() {
                    eprintln!("--fresh: deleted and created again on {}: {}", config.brokers, deleted.join(", "));
                }
            }
            kafka::ensure_topics(config, job).map_err(failed)?;
            Box::new(TransactionalSink::connect(config, job).map_err(failed)?)
        }
        Mode::Local | Mode::Replay { .. } => Box::new(LocalOutlet::open(&data)?),
    };
    let identity = Identity {
        job: job.clone(),
        config_hash: resolved.hash.clone(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        sections: resolved.sections.clone(),
    };
    let (generation, mut resumed) = match recovery::start(&data, outlet.as_mut(), &identity)? {
        Start::New { generation } => (generation, None),
        Start::Resumed(resumed) => (resumed.generation, Some(*resumed)),
        Start::Finished { job, .. } => return Err(DataError::HasProgress { place: place(options), job }.into()),
    };
    let checkpoint = resumed.as_ref().and_then(|r| r.checkpoint.as_ref());
    let restored = restore(data.storage(), checkpoint, workers).map_err(RecoveryError::from)?;
    save_catalogue(options, data.storage(), generation)?;
    warn_of_record_time(options);
    let config = CommitterConfig {
        data,
        generation,
        identity,
        workers,
        catalogue: resolved.catalogue.clone(),
        history: options.config.history.clone(),
        resume: resumed.as_mut().map(|r| std::mem::take(&mut r.committer)),
    };
    Ok(Begun { committer: Committer::start(config, outlet)?, restored, resumed })
}

/// The store that `[storage]` names. It must answer before anything is done: above all before an instance that works well
/// is overtaken.
fn store(options: &JobOptions) -> Result<Option<Remote>, JobError> {
    let base = options.config_path.parent().unwrap_or(Path::new(""));
    let remote = options.config.storage.clone().based_on(base).open().map_err(JobError::Config)?;
    remote.iter().try_for_each(Remote::probe).map_err(DataError::from)?;
    Ok(remote)
}

/// Where the job's progress stands, for a message.
fn place(options: &JobOptions) -> String {
    match options.mode {
        Mode::Run => format!("topic {}", kafka::progress_topic(&options.config.kafka, &options.config.job.name)),
        Mode::Local | Mode::Replay { .. } => options.data.display().to_string(),
    }
}

/// What the source repeats, and where it begins: the epochs after the checkpoint up to the last committed one come first.
/// Without a checkpoint they begin with epoch 0, which has where the partitions began.
fn go_on(resumed: Resumed, plan: &mut Plan) -> Option<Resume> {
    let Resumed { checkpoint, tickets, next_epoch, positions, control, rejects, idle, wall, .. } = resumed;
    // A recorded run that is repeated goes on where it was cut off, and ends where the record does.
    let rest = plan.tickets.drain(..).filter(|t| t.epoch >= next_epoch + tickets.len() as i64);
    let rest: Vec<Ticket> = rest.collect();
    plan.tickets = tickets.into_iter().chain(rest).collect();
    checkpoint.map(|_| Resume { next_epoch, bindings: positions, control, rejects, idle, wall })
}

/// `drivetrain sql` finds the signals' types here before there is a file of readings.
fn save_catalogue(options: &JobOptions, storage: &Storage, generation: u64) -> Result<(), JobError> {
    let text = serde_json::to_string_pretty(&options.config.signals).unwrap_or_default();
    if let Some(remote) = storage.remote() {
        return Ok(remote.save_catalogue(generation, text).map_err(DataError::from)?);
    }
    let path = options.data.join("catalogue.json");
    std::fs::write(&path, text).map_err(|e| JobError::Config(format!("{}: {e}", path.display())))
}

/// The source thread and what it tells of its progress.
pub(super) struct Reading {
    thread: JoinHandle<Result<SourceSummary, SourceError>>,
    pub(super) progress: Arc<Progress>,
}

impl Reading {
    pub(super) fn join(self) -> Result<SourceSummary, SourceError> {
        self.thread.join().unwrap_or(Err(SourceError::Disconnected))
    }
}

/// Starts the source thread.
pub(super) fn source(
    mut prepared: Prepared,
    resumed: Option<Resumed>,
    stop: Arc<AtomicBool>,
    committer: &CommitterHandle,
    workers: Vec<Sender<ToWorker>>,
) -> Result<Reading, JobError> {
    let progress = Arc::new(Progress::default());
    let resume = resumed.and_then(|r| go_on(r, &mut prepared.plan));
    let job = Job {
        sources: prepared.sources,
        input: prepared.input,
        reference: prepared.reference,
        epochs: prepared.epochs,
        max_record: prepared.max_record,
        mode: prepared.mode,
        resume,
        plan: prepared.plan,
        peeks: prepared.peeks,
        wall: Box::new(wall_micros),
        committed: committer.committed(),
        stop,
        progress: progress.clone(),
    };
    let outlet = Outlet { workers, committer: committer.sender(), wake: Box::new(|_| {}) };
    let thread = source::start(job, outlet)?;
    Ok(Reading { thread, progress })
}
