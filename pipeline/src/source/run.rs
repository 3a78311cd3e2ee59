//! The source thread itself.
//!
//! ```text
//!  open ─► repeat the recorded epochs ─► reference data ─► loop { control, fill, hand out, close when due } ─► last epoch
//! ```

mod lag;
mod repeat;

use super::align::Peek;
use super::bindings::Plan;
use super::config::SourceSpec;
use super::control::{Changes, Control, Reference};
use super::error::SourceError;
use super::feed::Progress;
use super::files::{self, FileInput};
use super::kafka::{Client, KafkaSettings, Opened, Role, Unbound, Wanted};
use super::lanes::{Lane, Lanes};
use super::outlet::{Outlet, Turns};
use super::ticker::{EpochSettings, Mode, Ticker};
use drivetrain_schemas::control::ControlChange;
use drivetrain_schemas::reading::{Origin, Reject};
use drivetrain_sinks::message::{Binding, Ticket};
use lag::Lag;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long control topics may take to be read to their end at the start.
const CONTROL_PATIENCE: Duration = Duration::from_secs(60);
/// How often control topics, new partitions and librdkafka's callbacks are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(20);

/// What is read.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// From [`files::resolve`]. When there are any, the sources' topics are not read.
    pub files: Vec<FileInput>,
    /// The cluster of the sources' topics and of the control topics.
    pub kafka: Option<KafkaSettings>,
}

/// Where a restarted job goes on.
#[derive(Clone, Debug, Default)]
pub struct Resume {
    /// The first epoch to be made: the one after the checkpoint (or after the recorded ones of the plan).
    pub next_epoch: i64,
    /// Where each origin was at the checkpoint.
    pub bindings: Vec<Binding>,
    /// The control documents that are known at the checkpoint, each as a change.
    pub control: Vec<ControlChange>,
    /// The control documents that were rejected before.
    pub rejects: Vec<Reject>,
    /// The idle set at the checkpoint.
    pub idle: Vec<Arc<Origin>>,
    /// Recorded wall time of the last epoch, µs; `None` before the first.
    pub wall: Option<i64>,
}

/// Everything that the source thread needs to know.
pub struct Job {
    /// In the order of [`super::Chunk::source`].
    pub sources: Vec<SourceSpec>,
    pub input: Input,
    pub reference: Reference,
    pub epochs: EpochSettings,
    /// Largest record in bytes (`limits.max_record`).
    pub max_record: usize,
    pub mode: Mode,
    pub resume: Option<Resume>,
    pub plan: Plan,
    /// One a source: event time of a record, such as `Decoder::peek_time`.
    pub peeks: Vec<Peek>,
    /// The job's wall clock, µs since 1970 UTC.
    pub wall: Box<dyn Fn() -> i64 + Send>,
    /// The last committed epoch; -1 before the first.
    pub committed: Arc<AtomicI64>,
    /// Set to end cleanly.
    pub stop: Arc<AtomicBool>,
    pub progress: Arc<Progress>,
}

/// What the source thread has done when it ends without an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceSummary {
    /// Records handed out.
    pub records: u64,
    /// The last epoch; None when there was none.
    pub last_epoch: Option<i64>,
    /// The input has ended (else the job was stopped).
    pub ended: bool,
}

/// Starts the source thread. It ends when the input has ended or `stop` is set; then the channels are closed, and the
/// committer has been told ([`drivetrain_sinks::message::Message::Stop`], unless the last ticket was the end). On an
/// error the committer is told ([`drivetrain_sinks::message::Message::Failed`]), no epoch is closed any more, and the
/// thread returns it.
///
/// # Errors
/// When the thread can't be started.
pub fn start(job: Job, outlet: Outlet) -> Result<JoinHandle<Result<SourceSummary, SourceError>>, SourceError> {
    let thread = move || {
        let turns = Turns::new(outlet);
        let only_repeats = !job.plan.go_on;
        let mut reader = Reader::new(job, turns);
        let result = reader.run().map_err(|error| if only_repeats { error.of_repeat() } else { error });
        match &result {
            Err(error) => reader.turns.failed(error),
            Ok(summary) if !summary.ended => reader.turns.stopped(),
            Ok(_) => {}
        }
        if result.is_ok() {
            reader.say_last();
        }
        result
    };
    std::thread::Builder::new().name("source".into()).spawn(thread).map_err(SourceError::Thread)
}

struct Reader {
    job: Job,
    turns: Turns,
    lanes: Lanes,
    ticker: Ticker,
    control: Control,
    client: Option<Client>,
    /// Bindings of the open epoch, in the order in which their origins were first read in it.
    bound: Vec<Binding>,
    changes: Vec<ControlChange>,
    rejects: Vec<Reject>,
    idle: Vec<Arc<Origin>>,
    wall: i64,
    housekept: Instant,
    /// When an epoch was last flagged as a checkpoint.
    checkpointed: Instant,
    lag: Lag,
    summary: SourceSummary,
}

impl Reader {
    fn new(mut job: Job, turns: Turns) -> Self {
        let now = Instant::now();
        let next = job.resume.as_ref().map_or(0, |r| r.next_epoch);
        let peeks = std::mem::take(&mut job.peeks);
        Self {
            lanes: Lanes::new(peeks, job.epochs.max_skew, job.epochs.idle_after),
            ticker: Ticker::new(job.epochs, job.mode, next, now),
            job,
            turns,
            control: Control::default(),
            client: None,
            bound: Vec::new(),
            changes: Vec::new(),
            rejects: Vec::new(),
            idle: Vec::new(),
            wall: i64::MIN,
            housekept: now,
            checkpointed: now,
            lag: Lag::default(),
            summary: SourceSummary::default(),
        }
    }

    fn run(&mut self) -> Result<SourceSummary, SourceError> {
        self.open()?;
        let plan = std::mem::take(&mut self.job.plan);
        for ticket in plan.tickets.iter() {
            if !self.repeat(ticket)? {
                return Ok(self.summary);
            }
        }
        if plan.go_on {
            self.lag.begin(self.lanes.lanes.iter().filter_map(|lane| lane.at.clone()));
            self.reference()?;
            self.follow()?;
            self.finish()?;
        }
        Ok(self.summary)
    }

    fn stopped(&self) -> bool {
        self.job.stop.load(Ordering::Relaxed)
    }

    // --- opening -----------------------------------------------------------------------------------------------------

    fn open(&mut self) -> Result<(), SourceError> {
        let resumed = self.job.resume.is_some();
        let mut starts = self.job.plan.starts();
        let unbound = match &self.job.plan {
            plan if !plan.go_on => Unbound::Left,
            plan if resumed || plan.is_from_the_start() => Unbound::Earliest,
            _ => Unbound::Configured,
        };
        if let Some(resume) = &self.job.resume {
            starts.extend(resume.bindings.iter().map(|b| (b.origin.clone(), b.clone())));
            self.control.recall(&resume.control);
            self.control.recall_rejects(&resume.rejects);
            self.idle.clone_from(&resume.idle);
            self.wall = self.wall.max(resume.wall.unwrap_or(i64::MIN));
        }
        self.open_files(&starts)?;
        if let Some(settings) = self.job.input.kafka.clone() {
            let mut wanted = self.wanted();
            let is_bound = |w: &Wanted| starts.keys().any(|o| o.source == w.source && *o.name == *w.topic);
            wanted.retain(|w| unbound != Unbound::Left || is_bound(w));
            if !wanted.is_empty() {
                let (client, opened) = Client::open(settings, wanted, &starts, unbound, std::thread::current())?;
                self.client = Some(client);
                self.admit(opened, &starts);
            }
        } else if let Some((kind, topic)) = self.job.reference.topics.first() {
            tracing::warn!(topic, kind = kind.name(), "control topics are not read: there is no broker in this run");
        }
        Ok(())
    }

    fn open_files(&mut self, starts: &BTreeMap<Arc<Origin>, Binding>) -> Result<(), SourceError> {
        for (i, spec) in self.job.sources.iter().enumerate() {
            let source = i as u16;
            let files: Vec<FileInput> = self.job.input.files.iter().filter(|f| f.source == source).cloned().collect();
            if files.is_empty() {
                continue;
            }
            self.job.progress.total_bytes.fetch_add(files.iter().map(|f| f.size).sum(), Ordering::Relaxed);
            let partition = files::partition(&spec.name);
            let own = || starts.values().filter(|b| b.origin.source == spec.name);
            let clock = own().filter_map(|b| b.clock).max();
            let feed = files::open(files::Reading {
                source,
                partition: partition.clone(),
                spec: spec.clone(),
                files,
                done: own().map(|b| (b.origin.clone(), b.end)).collect(),
                limit: self.job.max_record,
                progress: self.job.progress.clone(),
                wake: std::thread::current(),
            })?;
            self.lanes.lanes.push(Lane::new(partition, None, None, clock, feed));
        }
        Ok(())
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        let sources = if self.job.input.files.is_empty() { self.job.sources.as_slice() } else { &[] };
        for (i, spec) in sources.iter().enumerate() {
            wanted.extend(spec.topics.iter().map(|topic| Wanted {
                topic: topic.clone(),
                role: Role::Source(i as u16),
                source: spec.name.clone(),
                header: spec.message_header(),
                wants_headers: spec.wants_headers,
            }));
        }
        wanted.extend(self.job.reference.topics.iter().map(|(kind, topic)| Wanted {
            topic: topic.clone(),
            role: Role::Control(*kind),
            source: "reference".into(),
            header: None,
            wants_headers: false,
        }));
        wanted
    }

    fn admit(&mut self, opened: Vec<Opened>, starts: &BTreeMap<Arc<Origin>, Binding>) {
        for o in opened {
            match o.role {
                Role::Control(kind) => self.control.follow(kind, o.feed),
                Role::Source(_) => {
                    let known = starts.get(&o.origin);
                    let (clock, begins) = (known.and_then(|b| b.clock), known.is_none().then_some(o.start));
                    let mut lane = Lane::new(o.origin, o.topic_id, Some(o.start), clock, o.feed);
                    lane.begins = begins;
                    self.lanes.lanes.push(lane);
                }
            }
        }
    }

    fn count(&mut self, records: usize) {
        self.summary.records += records as u64;
        self.job.progress.records.fetch_add(records as u64, Ordering::Relaxed);
    }

    // --- reading on --------------------------------------------------------------------------------------------------

    /// The reference data as it is now; in epoch 0 also where the partitions begin.
    fn reference(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        let changes = self.control.start(&self.job.reference.files, CONTROL_PATIENCE)?;
        let fresh = self.job.resume.is_none() && self.ticker.epoch() == 0;
        if fresh {
            for lane in &mut self.lanes.lanes {
                lane.begins = None;
                if let Some((origin, end)) = &lane.at {
                    let topic_id = lane.topic_id.clone();
                    self.bound.push(Binding { origin: origin.clone(), topic_id, start: None, end: *end, clock: None });
                }
            }
        }
        self.give_control(changes, now)?;
        if fresh {
            self.ticker.begin(now);
            self.close(now, false, false)?;
        }
        Ok(())
    }

    fn give_control(&mut self, changes: Changes, now: Instant) -> Result<(), SourceError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.ticker.begin(now);
        self.changes.extend(changes.changes.iter().cloned());
        self.rejects.extend(changes.rejects.iter().cloned());
        self.turns.control(self.ticker.epoch(), changes.changes, changes.rejects)
    }

    fn follow(&mut self) -> Result<(), SourceError> {
        while !self.stopped() {
            let now = Instant::now();
            if !self.ticker.is_open() && !self.ticker.may_begin(self.job.committed.load(Ordering::Acquire)) {
                std::thread::park_timeout(Duration::from_millis(1));
                continue;
            }
            if now.duration_since(self.housekept) >= HOUSEKEEPING {
                self.housekept = now;
                self.housekeep(now)?;
            }
            self.lanes.fill(self.job.epochs.chunk_records, now)?;
            if self.job.mode == Mode::Replay && self.lanes.have_ended() {
                self.summary.ended = true;
                return Ok(());
            }
            let gave = self.give(now)?;
            // In a replay the idle set is looked at when an epoch closes: time must not make epochs.
            if self.job.mode == Mode::Run && self.lanes.idle(now) != self.idle {
                self.ticker.begin(now);
                self.idle = self.lanes.idle(now);
            }
            // What cannot go now (it is not here yet, or is ahead of others) lets no epoch wait for it.
            let waiting = || if gave { self.lanes.waiting() } else { 0 };
            if self.ticker.due(now, waiting) || self.ticker.wants_empty(now) {
                self.close(now, false, false)?;
            } else if !gave {
                std::thread::park_timeout(self.ticker.patience(now).min(HOUSEKEEPING));
            }
        }
        Ok(())
    }

    /// Hands out one chunk, if one may go.
    fn give(&mut self, now: Instant) -> Result<bool, SourceError> {
        // In a replay nothing goes until every partition shows its next record: so the order depends on content only.
        if self.job.mode == Mode::Replay && !self.lanes.is_settled() {
            return Ok(false);
        }
        let max = self.ticker.room().min(self.job.epochs.chunk_records);
        let Some((index, chunk)) = self.lanes.take(max, now) else { return Ok(false) };
        self.ticker.begin(now);
        self.ticker.gave(chunk.len());
        self.count(chunk.len());
        if let (Some(lane), Some(end)) = (self.lanes.lanes.get_mut(index), chunk.end()) {
            let known = self.bound.iter_mut().rev().find(|b| Arc::ptr_eq(&b.origin, &chunk.origin));
            match known {
                Some(binding) => (binding.end, binding.clock) = (end, lane.clock),
                None => self.bound.push(Binding {
                    origin: chunk.origin.clone(),
                    topic_id: lane.topic_id.clone(),
                    start: lane.begins.take(),
                    end,
                    clock: lane.clock,
                }),
            }
        }
        self.turns.chunk(self.ticker.epoch(), chunk)?;
        Ok(true)
    }

    fn close(&mut self, now: Instant, stop: bool, end: bool) -> Result<(), SourceError> {
        if self.job.mode == Mode::Replay {
            self.idle = self.lanes.idle(now);
        }
        let epoch = self.ticker.close(now);
        self.wall = self.wall.max((self.job.wall)());
        let bindings = std::mem::take(&mut self.bound);
        if self.client.is_some() {
            self.lag.closed(epoch, &bindings);
        }
        let (control, rejects) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.rejects));
        let (wall, idle) = (self.wall, self.idle.clone());
        let every = self.job.epochs.checkpoint_every;
        let due = every.is_some_and(|every| now.duration_since(self.checkpointed) >= every);
        // A clean stop leaves nothing to be repeated; behind the end nothing can come.
        let checkpoint = every.is_some() && !end && (due || stop);
        if checkpoint {
            self.checkpointed = now;
        }
        let ticket = Ticket { epoch, wall, bindings, control, rejects, idle, end, stop, checkpoint };
        self.summary.last_epoch = Some(epoch);
        self.job.progress.epochs.fetch_add(1, Ordering::Relaxed);
        self.turns.close(ticket)
    }

    fn housekeep(&mut self, now: Instant) -> Result<(), SourceError> {
        let changes = self.control.poll()?;
        self.give_control(changes, now)?;
        let Some(client) = &self.client else { return Ok(()) };
        self.lag.say(client, self.job.committed.load(Ordering::Acquire), now);
        self.watch_topics()
    }

    /// Topics that are not what they were, and new partitions, are noticed while recorded epochs are repeated, too.
    fn watch(&mut self, now: Instant) -> Result<(), SourceError> {
        if now.duration_since(self.housekept) < HOUSEKEEPING {
            return Ok(());
        }
        self.housekept = now;
        self.watch_topics()
    }

    fn watch_topics(&mut self) -> Result<(), SourceError> {
        let Some(client) = &mut self.client else { return Ok(()) };
        client.serve();
        let opened = client.discovered()?;
        for o in &opened {
            tracing::info!(topic = %o.origin.name, partition = o.origin.partition, "a new partition is read");
        }
        self.admit(opened, &BTreeMap::new());
        Ok(())
    }

    /// The last epoch: everything closes when the input has ended; a job that is stopped leaves all open.
    fn finish(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        self.ticker.begin(now);
        self.close(now, !self.summary.ended, self.summary.ended)
    }
}
