//! The committer's thread: the protocol's steps, in their order.

use super::checkpoints::Checkpoints;
use super::collect::{Collector, Finished};
use super::epoch::{Consolidated, consolidate, last_of_each_key};
use super::state::State;
use super::{CommitError, CommitterConfig, Resume, Summary};
use crate::checkpoint::{CheckpointEntry, PackedPart};
use crate::digest::{Digester, Digests};
use crate::failpoint;
use crate::history::{Closed, HistoryWriter, KeepReadings, clear_staging, publish};
use crate::manifest::{ManifestWriter, Publication};
use crate::message::{Message, Ticket};
use crate::outlet::{LiveOutput, Outlet};
use crate::progress::{FORMAT, FileEntry, ProgressRecord, overtaken};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use drivetrain_schemas::control::BAD_DOCUMENT;
use drivetrain_schemas::table::DEAD_LETTER;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Messages taken before finished epochs are looked for again.
const BATCH: usize = 1024;

/// How long a closed history file may wait to be published.
const PATIENCE: Duration = Duration::from_millis(50);

/// The committer's state.
pub(super) struct Steps {
    config: CommitterConfig,
    outlet: Box<dyn Outlet>,
    history: HistoryWriter,
    /// Files that are closed and not published.
    closed: Option<Closed>,
    manifest: ManifestWriter,
    checkpoints: Checkpoints,
    /// Our own state after flagged epochs of which not all parts have come.
    captured: BTreeMap<i64, PackedPart>,
    collector: Collector,
    state: State,
    digester: Digester,
    /// Epochs up to the committed one are being repeated.
    repeat: Option<Repeat>,
    committed: Arc<AtomicI64>,
    /// How far the closed files reach.
    history_epoch: i64,
    /// Number of the last commit.
    number: u64,
    summary: Summary,
}

/// What repeating must come to.
struct Repeat {
    until: i64,
    digests: Digests,
}

/// Everything of one commit.
#[derive(Default)]
struct Group {
    tickets: Vec<Ticket>,
    live: LiveOutput,
    files: Vec<FileEntry>,
    checkpoint: Option<CheckpointEntry>,
    /// The committer ends with it.
    last: bool,
}

impl Group {
    /// The input has ended by itself.
    fn end(&self) -> bool {
        self.tickets.last().is_some_and(|t| t.end)
    }
}

impl Steps {
    pub(super) fn new(
        mut config: CommitterConfig,
        outlet: Box<dyn Outlet>,
        committed: Arc<AtomicI64>,
    ) -> Result<Self, CommitError> {
        let storage = config.data.storage().clone();
        let Resume { checkpoint, state, record, published } = config.resume.take().unwrap_or_default();
        let after = checkpoint.as_ref().map_or(-1, |c| c.epoch);
        let repeat = Repeat { until: record.committed_epoch, digests: record.digests };
        if repeat.until == after {
            agree(&repeat, &state.digests)?;
        }
        let (catalogue, history) = (config.catalogue.clone(), config.history.clone());
        let history = HistoryWriter::start(&storage, config.generation, catalogue, history, published)?;
        let manifest =
            ManifestWriter::open(&storage, config.generation, config.history.bindings.0.max(config.history.as_of.0))?;
        let checkpoints = Checkpoints::start(&storage, config.generation, checkpoint)?;
        committed.store(after, Ordering::Release);
        let summary = Summary { committed_epoch: record.committed_epoch, topics: record.topics, ..Summary::default() };
        Ok(Self {
            collector: Collector::new(config.workers, after),
            config,
            outlet,
            history,
            closed: None,
            manifest,
            checkpoints,
            captured: BTreeMap::new(),
            state,
            digester: Digester::default(),
            repeat: (repeat.until > after).then_some(repeat),
            committed,
            history_epoch: record.history_epoch,
            number: record.commit,
            summary,
        })
    }

    /// Serves messages to the end.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) -> Result<Summary, CommitError> {
        match self.serve(inbox) {
            Ok(()) => Ok(self.summary),
            // A successor clears away what it does not need, so that files of ours are gone: that is not the cause.
            Err(error) if error.is_of_files() && overtaken(self.outlet.as_ref(), self.config.generation) => {
                tracing::debug!(%error, "while another instance took over");
                Err(CommitError::Overtaken { job: self.config.identity.job })
            }
            Err(error) => Err(error),
        }
    }

    fn serve(&mut self, inbox: &Receiver<Message>) -> Result<(), CommitError> {
        let mut open = true;
        loop {
            self.checkpoint()?;
            let finished = self.collector.take()?;
            let last = self.collector.is_done();
            if let Some(closed) = if last { None } else { self.history.closed()? } {
                self.keep(closed);
            }
            let files = self.closed.is_some() && self.repeat.is_none();
            if !finished.is_empty() || files || last {
                self.commit_all(finished, last)?;
            } else if open {
                open = self.receive(inbox)?;
            } else {
                return Err(CommitError::Abandoned(self.collector.taken()));
            }
            if last {
                self.summary.intake = self.state.intake.sums.clone();
                return Ok(());
            }
            if open {
                open = self.receive_more(inbox)?;
            }
        }
    }

    /// Waits for a message, but not for long: a history file may have been closed. False when nobody can send any more.
    fn receive(&mut self, inbox: &Receiver<Message>) -> Result<bool, CommitError> {
        match inbox.recv_timeout(PATIENCE) {
            Ok(message) => self.collector.push(message).map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(true),
            Err(RecvTimeoutError::Disconnected) => Ok(false),
        }
    }

    /// Takes what has come meanwhile, without waiting.
    fn receive_more(&mut self, inbox: &Receiver<Message>) -> Result<bool, CommitError> {
        for _ in 0..BATCH {
            match inbox.try_recv() {
                Ok(message) => self.collector.push(message)?,
                Err(crossbeam_channel::TryRecvError::Empty) => return Ok(true),
                Err(crossbeam_channel::TryRecvError::Disconnected) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Closed files wait for the next commit.
    fn keep(&mut self, closed: Closed) {
        match &mut self.closed {
            Some(waiting) => waiting.merge(closed),
            none => *none = Some(closed),
        }
    }

    /// One commit of all finished epochs, and of the history files that were closed.
    fn commit_all(&mut self, finished: Vec<Finished>, last: bool) -> Result<(), CommitError> {
        let mut group = self.consolidate(finished, last)?;
        // What was committed before is not said again, and nothing is before all of it has been compared.
        if let Some(Repeat { until, .. }) = self.repeat.as_ref().filter(|_| last) {
            tracing::warn!("stopped before all epochs up to {until} were repeated; the next start repeats them again");
        }
        if self.repeat.is_some() || (group.tickets.is_empty() && self.closed.is_none() && !last) {
            return Ok(());
        }
        self.final_files(&mut group)?;
        self.begin()?;
        self.produce(&group)?;
        self.record(&group)?;
        self.commit(&group)?;
        self.publish(&group)?;
        self.manifest(&group)?;
        self.trim(&group)?;
        Ok(self.outlet.settle()?)
    }

    /// Consolidates the epochs, and hands their rows to the history.
    fn consolidate(&mut self, finished: Vec<Finished>, last: bool) -> Result<Group, CommitError> {
        let mut group = Group { last, ..Group::default() };
        let mut changes = Vec::new();
        let readings = self.config.history.readings == KeepReadings::All;
        for epoch in finished {
            let consolidated = consolidate(epoch, &mut self.state.intake);
            consolidated.digest(&mut self.digester, &mut self.state.digests, readings);
            let Consolidated { ticket, history, changes: more, dead_letters } = consolidated;
            self.history.add(history)?;
            self.state.pass(&ticket);
            if ticket.checkpoint {
                self.captured.insert(ticket.epoch, self.state.capture().into());
                self.checkpoint()?;
            }
            if self.repeat.is_some() {
                self.repeated(ticket.epoch)?;
                continue;
            }
            changes.extend(more);
            group.live.dead_letters.extend(dead_letters);
            group.tickets.push(ticket);
        }
        group.live.changes = last_of_each_key(changes);
        Ok(group)
    }

    /// Checkpoints of which all parts have come go to their thread.
    fn checkpoint(&mut self) -> Result<(), CommitError> {
        while let Some(first) = self.captured.first_entry()
            && let Some(mut parts) = self.collector.whole(*first.key())
        {
            let (epoch, own) = first.remove_entry();
            parts.push(own);
            self.checkpoints.write(epoch, parts)?;
        }
        Ok(())
    }

    /// An epoch that was committed before has passed again. After the last of them the results must be the same.
    fn repeated(&mut self, epoch: i64) -> Result<(), CommitError> {
        self.committed.store(epoch, Ordering::Release);
        let Some(repeat) = self.repeat.take_if(|repeat| repeat.until <= epoch) else { return Ok(()) };
        agree(&repeat, &self.state.digests)?;
        // A checkpoint counts once the history has reached it. Files begin their age anew with each start: were they left
        // open, a job that is killed again and again before they are due would have more to repeat each time.
        self.history.roll()?;
        tracing::info!(epoch, "what was committed before has been repeated; going on");
        Ok(())
    }

    /// Step 1: the files to publish are whole and synced. At the end, all of them. And which checkpoint counts with them.
    fn final_files(&mut self, group: &mut Group) -> Result<(), CommitError> {
        if group.last {
            let drained = self.history.drain()?;
            self.keep(drained);
        }
        if let Some(Closed { files, history_epoch }) = self.closed.take() {
            group.files = files;
            self.history_epoch = history_epoch.max(self.history_epoch);
        }
        group.checkpoint = self.checkpoints.eligible(self.history_epoch, group.last)?;
        Ok(failpoint::hit("final_files")?)
    }

    /// Step 2.
    fn begin(&mut self) -> Result<(), CommitError> {
        self.outlet.begin()?;
        Ok(failpoint::hit("begin")?)
    }

    /// Step 3: what the topics say.
    fn produce(&mut self, group: &Group) -> Result<(), CommitError> {
        failpoint::hit("produce.before")?;
        Ok(self.outlet.produce(&group.live)?)
    }

    /// Step 3: the progress record.
    fn record(&mut self, group: &Group) -> Result<(), CommitError> {
        let topics = &mut self.summary.topics;
        for change in &group.live.changes {
            *count(topics, change.topic.name(), self.outlet.partition(change.topic, &change.key)) += 1;
        }
        let bad = group.live.dead_letters.iter().filter(|letter| &*letter.reject.reason == BAD_DOCUMENT);
        self.summary.bad_documents += bad.count() as u64;
        for letter in &group.live.dead_letters {
            *count(topics, DEAD_LETTER, self.outlet.dead_letter_partition(letter)) += 1;
        }
        self.number += 1;
        let identity = &self.config.identity;
        let record = ProgressRecord {
            format: FORMAT,
            generation: self.config.generation,
            job: identity.job.clone(),
            config_hash: identity.config_hash.clone(),
            version: identity.version.clone(),
            commit: self.number,
            epochs: group.tickets.clone(),
            committed_epoch: group.tickets.last().map_or(self.summary.committed_epoch, |t| t.epoch),
            published: group.files.clone(),
            history_epoch: self.history_epoch,
            topics: topics.clone(),
            digests: self.state.digests.clone(),
            sections: group.checkpoint.iter().flat_map(|_| identity.sections.clone()).collect(),
            checkpoint: group.checkpoint.clone(),
            end: group.end(),
        };
        self.outlet.append(&record).map_err(|e| CommitError::Outlet(e.into()))?;
        Ok(failpoint::hit("record")?)
    }

    /// Step 4: now it has happened.
    fn commit(&mut self, group: &Group) -> Result<(), CommitError> {
        failpoint::hit("commit.before")?;
        self.outlet.commit()?;
        failpoint::hit("commit.after")?;
        self.summary.commits += 1;
        tracing::debug!(epochs = group.tickets.len(), files = group.files.len(), "committed");
        self.summary.epochs += group.tickets.len() as u64;
        if let Some(ticket) = group.tickets.last() {
            self.summary.committed_epoch = ticket.epoch;
            self.committed.store(ticket.epoch, Ordering::Release);
        }
        Ok(())
    }

    /// Step 5: the files get their final names.
    fn publish(&mut self, group: &Group) -> Result<(), CommitError> {
        failpoint::hit("publish.before")?;
        publish(self.config.data.storage(), self.config.generation, &group.files)?;
        for file in &group.files {
            self.summary.files += 1;
            self.summary.file_bytes += file.bytes;
            tracing::debug!(path = file.path, rows = file.rows, bytes = file.bytes, "published");
            *self.summary.rows.entry(file.table).or_default() += file.rows;
        }
        Ok(failpoint::hit("publish.after")?)
    }

    /// Step 5: readers are told; the tickets are kept for `--as-of` and `replay --bindings`.
    fn manifest(&mut self, group: &Group) -> Result<(), CommitError> {
        failpoint::hit("manifest.before")?;
        self.manifest.bind(&group.tickets)?;
        failpoint::hit("manifest.between")?;
        if !group.files.is_empty() || group.last {
            let publication = Publication {
                format: FORMAT,
                generation: self.config.generation,
                commit: self.number,
                committed_epoch: self.summary.committed_epoch,
                history_epoch: self.history_epoch,
                files: group.files.clone(),
                end: group.end(),
            };
            self.manifest.publish(&publication)?;
        }
        failpoint::hit("manifest.after")?;
        if group.last {
            self.manifest.sync()?;
            clear_staging(self.config.data.storage(), self.config.generation)?;
        }
        Ok(())
    }

    /// Step 6, at its end: a checkpoint counts, and what it makes needless goes. Files and tickets that only the progress
    /// log had are durable elsewhere by now.
    fn trim(&mut self, group: &Group) -> Result<(), CommitError> {
        let Some(entry) = &group.checkpoint else { return Ok(()) };
        failpoint::hit("trim.before")?;
        self.manifest.sync()?;
        self.checkpoints.named(entry);
        self.outlet.trim(entry.epoch).map_err(|e| CommitError::Outlet(e.into()))?;
        tracing::debug!(epoch = entry.epoch, files = entry.files.len(), "a checkpoint counts");
        Ok(failpoint::hit("trim.after")?)
    }
}

/// Compares what was repeated with what was committed.
fn agree(repeat: &Repeat, digests: &Digests) -> Result<(), CommitError> {
    match repeat.digests.difference(digests) {
        None => Ok(()),
        Some((name, expected, found)) => Err(CommitError::Differs { epoch: repeat.until, name, expected, found }),
    }
}

/// The count of a topic's partition.
fn count<'a>(topics: &'a mut BTreeMap<String, Vec<u64>>, name: &str, partition: usize) -> &'a mut u64 {
    let counts = topics.entry(name.to_string()).or_default();
    if counts.len() <= partition {
        counts.resize(partition + 1, 0);
    }
    &mut counts[partition]
}
