//! The committer: the one place where results happen.
//!
//! ```text
//!  Message ──► collect ──finished epochs──► epoch ──► history (encodes on its own thread)
//!              (by epoch)                  (consolidates) └──► upserts, dead letters, ticket
//!                                                                     │ all finished epochs together
//!                                      final_files ► begin ► produce ► record ► commit ► publish ► manifest
//! ```
//!
//! # The protocol (DESIGN §8, steps 0 to 5; each step is a function of that name in `steps`)
//!
//! 0. **claim**: generation g+1 goes to the progress log before anything else. Each path written from here on contains
//!    g and is created, never overwritten; so nothing that an earlier process still does can touch a file of ours.
//! 1. **final_files**: history files that are due are complete and synced under their staging names. Only then may the
//!    progress record name them: a record that names a file which a crash could lose would lose rows.
//! 2. **begin** a transaction.
//! 3. **produce**: the newest value of each changed key, tombstones, dead letters; then **record**, the progress record
//!    with the epochs, their input, the files and the counts, in the same transaction.
//! 4. **commit**: the instant at which these epochs have happened, all of them or none.
//! 5. **publish**: the files named get their final names, and **manifest** tells the readers. Done by the committer
//!    alone and idempotent, so that a restart can finish it. It comes after the commit: were it before, a crash in
//!    between would show rows of epochs that never happened.
//!
//! An error in any step ends the committer: a commit whose outcome is unknown is never staged anew in the same process.
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

mod collect;
mod epoch;
mod intake;
mod steps;

use crate::files::FileError;
use crate::history::{HistoryConfig, HistoryError};
use crate::message::Message;
use crate::outlet::{Outlet, OutletError};
use crate::progress::data::{DataDir, DataError};
use crossbeam_channel::{Sender, bounded};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::reading::{IntakeCounts, Origin};
use drivetrain_schemas::table::TableId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::thread::JoinHandle;
use thiserror::Error;

/// Messages that wait for the committer.
const INBOX: usize = 1024;

/// What the committer needs to know.
#[derive(Debug)]
pub struct CommitterConfig {
    /// The data directory under our lock.
    pub data: DataDir,
    /// From [`DataDir::next_generation`] or [`crate::progress::next_generation`].
    pub generation: u64,
    pub job: String,
    pub config_hash: String,
    pub version: String,
    /// Workers that send frontiers, over all processes.
    pub workers: usize,
    pub catalogue: Arc<Catalogue>,
    pub history: HistoryConfig,
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
    /// Records of each live topic, tombstones and dead letters included.
    pub topics: BTreeMap<String, u64>,
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
    File(#[from] FileError),
    #[error(transparent)]
    Data(#[from] DataError),
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
    /// Whether starting again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, CommitError::Outlet(e) if e.is_retryable())
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
    /// Claims the generation and starts the committer's thread.
    ///
    /// # Errors
    /// When the claim or the history's configuration fails.
    pub fn start(config: CommitterConfig, mut outlet: Box<dyn Outlet>) -> Result<CommitterHandle, CommitError> {
        steps::claim(&config, outlet.as_mut())?;
        let (sender, inbox) = bounded(INBOX);
        let committed = Arc::new(AtomicI64::new(-1));
        let steps = steps::Steps::new(config, outlet, committed.clone())?;
        let thread = std::thread::Builder::new()
            .name("committer".into())
            .spawn(move || steps.run(&inbox))
            .map_err(CommitError::Thread)?;
        Ok(CommitterHandle { sender, committed, thread })
    }
}

impl CommitterHandle {
    /// A sender for a worker or the source; the committer ends when all are gone. Sending waits while the inbox is full
    /// and fails when the committer has ended ([`Self::join`] says why).
    pub fn sender(&self) -> Sender<Message> {
        self.sender.clone()
    }

    /// The newest committed epoch, -1 before the first; stored with `Release`.
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
