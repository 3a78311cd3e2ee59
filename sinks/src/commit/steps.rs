//! The committer's thread: the protocol's steps, in their order.

use super::collect::{Collector, Finished};
use super::epoch::{Consolidated, consolidate, consolidate_rows, last_of_each_key};
use super::intake::Intake;
use super::{CommitError, CommitterConfig, Summary};
use crate::history::{Closed, EpochRows, HistoryWriter, clear_staging, publish};
use crate::manifest::{ManifestWriter, Publication};
use crate::message::{Message, Ticket};
use crate::outlet::{LiveOutput, Outlet};
use crate::progress::{Claim, FileEntry, ProgressRecord};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use drivetrain_schemas::table::{DEAD_LETTER, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Messages taken before finished epochs are looked for again.
const BATCH: usize = 1024;

/// How long a closed history file may wait to be published.
const PATIENCE: Duration = Duration::from_millis(50);

/// Step 0: from here on no earlier generation can commit.
pub(super) fn claim(config: &CommitterConfig, outlet: &mut dyn Outlet) -> Result<(), CommitError> {
    let claim = Claim {
        generation: config.generation,
        job: config.job.clone(),
        config_hash: config.config_hash.clone(),
        version: config.version.clone(),
    };
    outlet.claim(&claim).map_err(|e| CommitError::Outlet(e.into()))
}

/// The committer's state.
pub(super) struct Steps {
    config: CommitterConfig,
    outlet: Box<dyn Outlet>,
    history: HistoryWriter,
    manifest: ManifestWriter,
    collector: Collector,
    intake: Intake,
    committed: Arc<AtomicI64>,
    /// How far the closed files reach.
    history_epoch: i64,
    /// Wall time of the newest committed ticket.
    wall: i64,
    summary: Summary,
}

/// Everything of one commit.
#[derive(Default)]
struct Group {
    tickets: Vec<Ticket>,
    live: LiveOutput,
    files: Vec<FileEntry>,
    end: bool,
}

impl Steps {
    pub(super) fn new(
        config: CommitterConfig,
        outlet: Box<dyn Outlet>,
        committed: Arc<AtomicI64>,
    ) -> Result<Self, CommitError> {
        let data = config.data.path();
        let history = HistoryWriter::start(data, config.generation, config.catalogue.clone(), config.history.clone())?;
        let manifest = ManifestWriter::open(data)?;
        let collector = Collector::new(config.workers);
        let summary = Summary { committed_epoch: -1, ..Summary::default() };
        let intake = Intake::default();
        Ok(Self {
            config,
            outlet,
            history,
            manifest,
            collector,
            intake,
            committed,
            history_epoch: -1,
            wall: 0,
            summary,
        })
    }

    /// Serves messages to the end.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) -> Result<Summary, CommitError> {
        let mut open = true;
        loop {
            let finished = self.collector.take()?;
            let end = self.collector.is_done();
            let closed = if end { None } else { self.history.closed()? };
            if !finished.is_empty() || closed.is_some() || end {
                self.commit_all(finished, closed, end)?;
            } else if open {
                open = self.receive(inbox)?;
            } else {
                return Err(CommitError::Abandoned(self.collector.taken()));
            }
            if end {
                return Ok(self.summary);
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

    /// One commit of all finished epochs, and of the history files that were closed.
    fn commit_all(&mut self, finished: Vec<Finished>, closed: Option<Closed>, end: bool) -> Result<(), CommitError> {
        let mut group = self.consolidate(finished, end)?;
        self.final_files(&mut group, closed)?;
        self.begin()?;
        self.produce(&group)?;
        self.record(&group)?;
        self.commit(&group)?;
        self.publish(&group)?;
        self.manifest(&group)?;
        Ok(self.outlet.settle()?)
    }

    /// Consolidates the epochs and hands their rows to the history.
    fn consolidate(&mut self, finished: Vec<Finished>, end: bool) -> Result<Group, CommitError> {
        let mut group = Group { end, ..Group::default() };
        let mut changes = Vec::new();
        let count = finished.len();
        for (i, epoch) in finished.into_iter().enumerate() {
            let last = end && i + 1 == count;
            let Consolidated { ticket, history, changes: more, dead_letters } =
                consolidate(epoch, &mut self.intake, last);
            self.history.add(history)?;
            changes.extend(more);
            group.live.dead_letters.extend(dead_letters);
            self.wall = ticket.wall;
            group.tickets.push(ticket);
        }
        if end && count == 0 {
            self.last_intake()?;
        }
        group.live.changes = last_of_each_key(changes);
        Ok(group)
    }

    /// A stop without a last epoch: the sums stand at the newest one.
    fn last_intake(&mut self) -> Result<(), CommitError> {
        let mut rows = self.intake.changes(self.wall, true);
        consolidate_rows(&mut rows);
        if rows.is_empty() {
            return Ok(());
        }
        let epoch = self.summary.committed_epoch;
        self.history.add(EpochRows { epoch, rows: vec![(TableId::Intake, rows)], readings: Vec::new() })?;
        Ok(())
    }

    /// Step 1: the files to publish are whole and synced. At the end, all of them.
    fn final_files(&mut self, group: &mut Group, closed: Option<Closed>) -> Result<(), CommitError> {
        let closed = if group.end { Some(self.history.drain()?) } else { closed };
        if let Some(Closed { files, history_epoch }) = closed {
            group.files = files;
            self.history_epoch = history_epoch;
        }
        Ok(())
    }

    /// Step 2.
    fn begin(&mut self) -> Result<(), CommitError> {
        Ok(self.outlet.begin()?)
    }

    /// Step 3: what the topics say.
    fn produce(&mut self, group: &Group) -> Result<(), CommitError> {
        Ok(self.outlet.produce(&group.live)?)
    }

    /// Step 3: the progress record.
    fn record(&mut self, group: &Group) -> Result<(), CommitError> {
        let topics = &mut self.summary.topics;
        for change in &group.live.changes {
            *count(topics, change.topic.name()) += 1;
        }
        if !group.live.dead_letters.is_empty() {
            *count(topics, DEAD_LETTER) += group.live.dead_letters.len() as u64;
        }
        let record = ProgressRecord {
            generation: self.config.generation,
            job: self.config.job.clone(),
            config_hash: self.config.config_hash.clone(),
            version: self.config.version.clone(),
            epochs: group.tickets.clone(),
            committed_epoch: group.tickets.last().map_or(self.summary.committed_epoch, |t| t.epoch),
            published: group.files.clone(),
            history_epoch: self.history_epoch,
            topics: topics.clone(),
            end: group.end,
        };
        self.outlet.append(&record).map_err(|e| CommitError::Outlet(e.into()))
    }

    /// Step 4: now it has happened.
    fn commit(&mut self, group: &Group) -> Result<(), CommitError> {
        self.outlet.commit()?;
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
        publish(self.config.data.path(), self.config.generation, &group.files)?;
        for file in &group.files {
            self.summary.files += 1;
            self.summary.file_bytes += file.bytes;
            tracing::debug!(path = file.path, rows = file.rows, bytes = file.bytes, "published");
            *self.summary.rows.entry(file.table).or_default() += file.rows;
        }
        Ok(())
    }

    /// Step 5: readers are told; the tickets are kept for `--as-of` and `replay --bindings`.
    fn manifest(&mut self, group: &Group) -> Result<(), CommitError> {
        self.manifest.bind(&group.tickets)?;
        if group.end {
            self.manifest.sync()?;
            self.summary.intake = self.intake.sums.clone();
        }
        if group.files.is_empty() && !group.end {
            return Ok(());
        }
        let publication = Publication {
            generation: self.config.generation,
            committed_epoch: self.summary.committed_epoch,
            history_epoch: self.history_epoch,
            files: group.files.clone(),
            end: group.end,
        };
        self.manifest.publish(&publication)?;
        if group.end {
            clear_staging(self.config.data.path(), self.config.generation)?;
        }
        Ok(())
    }
}

/// The count of a topic.
fn count<'a>(topics: &'a mut BTreeMap<String, u64>, name: &str) -> &'a mut u64 {
    topics.entry(name.to_string()).or_default()
}
