//! The committer: the one place where results happen.
//!
//! ```text
//!  Message ──► collect ──finished epochs──► epoch ──► history (encodes on its own thread)
//!              (by epoch)                  (consolidates) ├──► upserts, dead letters, ticket
//!                                                         └──► flagged epochs, when all parts are here ──► checkpoints
//!                                                                     │ all finished epochs together
//!                                final_files ► begin ► produce ► record ► commit ► publish ► manifest ► trim
//! ```
//!
//! # The protocol (DESIGN §8; each step is a function of that name in `steps`, or in [`crate::recovery`])
//!
//! 0. **claim**: generation g+1 goes to the progress log before anything else. Each path written from here on contains
//!    g and is created, never overwritten; so nothing that an earlier process still does can touch a file of ours.
//! 1. **final_files**: history files that are due are complete and synced under their staging names. Only then may the
//!    progress record name them: a record that names a file which a crash could lose would lose rows.
//! 2. **begin** a transaction.
//! 3. **produce**: the newest value of each changed key, tombstones, dead letters; then **record**, the progress record
//!    with the epochs, their input, the files, the counts and digests, in the same transaction.
//! 4. **commit**: the instant at which these epochs have happened, all of them or none.
//! 5. **publish**: the files named get their final names, and **manifest** tells the readers. Done by the committer
//!    alone and idempotent, so that a restart can finish it. It comes after the commit: were it before, a crash in
//!    between would show rows of epochs that never happened.
//! 6. **checkpoint**: after an epoch whose ticket says so, the parts of all operators, which may come later than the epoch
//!    is committed, and the committer's own state after it ([`state`]) go to the checkpoints' thread. When they are
//!    durable *and* the history is published up to that epoch, the next record names the checkpoint; after that commit what
//!    it makes needless goes (**trim**).
//!
//! An error in any step ends the committer: a commit whose outcome is unknown is never staged anew in the same process.
//!
//! # After a restart
//!
//! The committer begins with the state of the checkpoint at c ([`Resume`]) and is handed the epochs after it again. Up to
//! the last committed one, L, they are consolidated as ever (so counts, digests, checkpoints and rows that were not
//! published are what they were), but nothing is committed. After L its digests must be those that the last record has,
//! else it ends with [`CommitError::Differs`]; nothing has been written then that anybody reads. From there on it goes on.
//!
//! # Who may still write after the commit
//!
//! An instance can be stopped after its commit, overtaken, and continued (with Kafka; without, the lock prevents it). Then
//! each of its further steps must change nothing that is read: **publish** moves only from its own staging, and finds the
//! file at its place or gone (on a store it may copy the same bytes to the same name once more, and deletes from its own
//! staging only); **manifest** writes to its own generation's files, whose successors count; **trim** deletes
//! checkpoint files that the record it has committed does not need, and log entries before that record; none of them is
//! needed by a successor, which begins with that record or a later one. Its next commit fails.
//!
//! # What an epoch becomes
//!
//! An epoch is finished when its ticket has come and every worker's frontier is beyond it. Its rows are consolidated by
//! content, so that neither the number of workers nor the order of messages matters; a row that became and ceased to be
//! true within it disappears. Different epochs are never merged in the log. Of a key's live values the last epoch's
//! counts. The number of epochs in one commit depends on timing, and nothing in any output does.
//!
//! # Back-pressure
//!
//! The inbox is bounded, and so is the history's queue: when the disk or the broker is slow, the committer commits
//! later, `committed` stands still, and the source, which stays a bounded number of epochs ahead of it, waits.

mod checkpoints;
mod collect;
mod epoch;
mod intake;
pub(crate) mod state;
mod steps;

use crate::checkpoint::{CheckpointEntry, CheckpointError};
use crate::failpoint;
use crate::files::FileError;
use crate::history::{HistoryConfig, HistoryError, Published};
use crate::message::Message;
use crate::outlet::{Outlet, OutletError};
use crate::progress::ProgressRecord;
use crate::progress::data::{DataDir, DataError};
use crate::recovery::Identity;
use crossbeam_channel::{Sender, bounded};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::reading::{IntakeCounts, Origin};
use drivetrain_schemas::table::TableId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use thiserror::Error;

/// Messages that wait for the committer.
const INBOX: usize = 1024;

/// What the committer needs to know.
#[derive(Debug)]
pub struct CommitterConfig {
    /// The data directory under our lock.
    pub data: DataDir,
    /// Claimed by [`crate::recovery::start`].
    pub generation: u64,
    /// Whose job it is: goes into each progress record, its sections with each checkpoint.
    pub identity: Identity,
    /// Workers that send frontiers, over all processes.
    pub workers: usize,
    pub catalogue: Arc<Catalogue>,
    pub history: HistoryConfig,
    /// From [`crate::recovery::Resumed`]; `None` when nothing was committed before.
    pub resume: Option<Resume>,
}

/// Where an earlier run has come to, for the committer. Made by [`crate::recovery`].
#[derive(Debug)]
pub struct Resume {
    pub(crate) checkpoint: Option<CheckpointEntry>,
    /// After the checkpoint's epoch, or at the beginning.
    pub(crate) state: state::State,
    /// The last one that was committed.
    pub(crate) record: ProgressRecord,
    /// What the history holds.
    pub(crate) published: Published,
}

impl Default for Resume {
    /// Nothing has happened before.
    fn default() -> Self {
        let record = ProgressRecord { committed_epoch: -1, history_epoch: -1, ..ProgressRecord::default() };
        Self { checkpoint: None, state: state::State::default(), record, published: Published::default() }
    }
}

/// What a committer has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The newest committed epoch; -1 when there was none.
    pub committed_epoch: i64,
    pub epochs: u64,
    pub commits: u64,
    pub files: u64,
    pub file_bytes: u64,
    /// Published rows of each table, retractions included.
    pub rows: BTreeMap<TableId, u64>,
    /// Records of each live topic by partition, tombstones and dead letters included.
    pub topics: BTreeMap<String, Vec<u64>>,
    /// Control documents that could not be used: reason [`BAD_DOCUMENT`](drivetrain_schemas::control::BAD_DOCUMENT) in `rejects`. They belong to no source, so
    /// that `intake` has none of them.
    pub bad_documents: u64,
    /// What became of the records of each origin.
    pub intake: BTreeMap<Arc<Origin>, IntakeCounts>,
}

#[derive(Debug, Error)]
pub enum CommitError {
    #[error(transparent)]
    Outlet(#[from] OutletError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Data(#[from] DataError),
    /// What was committed before came out otherwise when it was repeated.
    #[error(
        "repeating the epochs up to {epoch} gave other results than were committed: the digest of {name} is {found}, not \
         {expected}. Nothing was written. Run the version and configuration that wrote them, on the same input; if it is \
         they, this is a bug or damaged state: start over with --fresh, and keep the data directory for a report"
    )]
    Differs { epoch: i64, name: String, expected: String, found: String },
    #[error("{}", crate::progress::overtaken_text(.job))]
    Overtaken { job: String },
    /// A worker or source said so ([`Message::Failed`]).
    #[error("{0}")]
    Failed(String),
    /// Workers and source have gone away without saying that they were done.
    #[error("the dataflow went away at epoch {0} without ending")]
    Abandoned(i64),
    /// A fault of the program.
    #[error("epoch {epoch}: {problem}")]
    Protocol { epoch: i64, problem: String },
    #[error("cannot start the committer's thread: {0}")]
    Thread(std::io::Error),
    #[error("the committer ended unexpectedly")]
    Gone,
}

impl CommitError {
    /// Whether it is about files of ours.
    fn is_of_files(&self) -> bool {
        matches!(self, CommitError::History(_) | CommitError::Checkpoint(_) | CommitError::File(_))
    }

    /// Whether starting again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            CommitError::Outlet(e) => e.is_retryable(),
            CommitError::Checkpoint(e) => e.is_retryable(),
            CommitError::File(e) | CommitError::History(HistoryError::File(e)) => e.is_retryable(),
            _ => false,
        }
    }
}

/// Starts committers.
#[derive(Debug)]
pub struct Committer;

/// A running committer.
#[derive(Debug)]
pub struct CommitterHandle {
    sender: Sender<Message>,
    committed: Arc<AtomicI64>,
    thread: JoinHandle<Result<Summary, CommitError>>,
}

impl Committer {
    /// Starts the committer's thread, with an outlet that [`crate::recovery::start`] has made ready.
    ///
    /// # Errors
    /// When the history's configuration is wrong, a file cannot be opened, or the loaded state is not the committed one.
    pub fn start(config: CommitterConfig, outlet: Box<dyn Outlet>) -> Result<CommitterHandle, CommitError> {
        let (sender, inbox) = bounded(INBOX);
        let committed = Arc::new(AtomicI64::new(-1));
        let steps = steps::Steps::new(config, outlet, committed.clone())?;
        let failed = committed.clone();
        let plan = failpoint::current();
        let run = move || {
            failpoint::adopt(plan);
            let result = steps.run(&inbox);
            if result.is_err() {
                // Nobody waits for a commit any more: the next message finds the channel closed.
                failed.store(i64::MAX, Ordering::Release);
            }
            result
        };
        let thread = std::thread::Builder::new().name("committer".into()).spawn(run).map_err(CommitError::Thread)?;
        Ok(CommitterHandle { sender, committed, thread })
    }
}

impl CommitterHandle {
    /// A sender for a worker or the source; the committer ends when all are gone. Sending waits while the inbox is full
    /// and fails when the committer has ended ([`Self::join`] says why).
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// The newest epoch that is committed and that this run has dealt with; -1 before the first, the checkpoint's epoch
    /// at first after a restart; `i64::MAX` when the committer has failed. Stored with `Release`.
    pub fn committed(&self) -> Arc<AtomicI64> {
        self.committed.clone()
    }

    /// Whether the thread has ended, well or badly.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end: after [`crate::message::Ticket::end`] or [`Message::Stop`] everything is committed and
    /// published.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub fn join(self) -> Result<Summary, CommitError> {
        let Self { sender, thread, .. } = self;
        drop(sender);
        thread.join().map_err(|_| CommitError::Gone)?
    }
}

#[cfg(test)]
mod tests;
