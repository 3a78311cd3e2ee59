//! The progress log: the only truth about what has happened (DESIGN §8).
//!
//! ```text
//!  Claim(g=1)  Commit  Commit  Commit …   Claim(g=2)  Commit …
//! ```
//!
//! An entry is appended once and never changed. A [`Claim`] says who may write from here on; a [`ProgressRecord`] says
//! which epochs have happened, with which input, and which history files belong to them. Without Kafka the log is a
//! file ([`local::LocalLog`]), with Kafka a topic written inside the transaction ([`crate::kafka`]).
//!
//! # What may be trimmed
//!
//! A record has everything cumulative in it (counts, digests, how far the history reaches), so that the last one tells
//! where a job stands. A record may name a checkpoint; a restart needs the last one that does, and the tickets of the
//! epochs after that checkpoint, which stand in this record, in later ones, and in those just before it:
//!
//! ```text
//!  commits, by their epochs    …  [5 6]  [7]  [8 9]  [10, names the checkpoint at 7]  [11]  …
//!                               needless │    needed from here on
//! ```
//!
//! Files named by needless records are in the manifest, and their tickets in the bindings, both durable before the log
//! is trimmed ([`crate::manifest`]).

pub mod data;
pub mod lines;
pub mod local;

use crate::checkpoint::CheckpointEntry;
use crate::digest::Digests;
use crate::files::FileError;
use crate::history::DateKey;
use crate::message::Ticket;
use drivetrain_schemas::table::TableId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

/// Version of the form of [`ProgressRecord`] and of the manifest. A restart reads its own only.
pub const FORMAT: u32 = 3;

/// The beginning of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// From 1; every path written by the run contains it.
    pub generation: u64,
    pub job: String,
    /// Hash of that part of the configuration on which results depend.
    pub config_hash: String,
    /// Version of the code.
    pub version: String,
}

/// One commit: these epochs have happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressRecord {
    /// [`FORMAT`] of the version that wrote it; 0 in records from before it was counted.
    #[serde(default)]
    pub format: u32,
    pub generation: u64,
    pub job: String,
    pub config_hash: String,
    pub version: String,
    /// Number of this commit since the job began, from 1.
    #[serde(default)]
    pub commit: u64,
    /// The epochs, ascending, with their input. Empty when only files are published.
    pub epochs: Vec<Ticket>,
    /// The newest epoch that has happened, this commit included; -1 before the first.
    pub committed_epoch: i64,
    /// History files that become visible with this commit.
    pub published: Vec<FileEntry>,
    /// All history rows of this epoch and those before it are in files published by this commit or earlier ones.
    pub history_epoch: i64,
    /// Records written to each topic since the log began, this commit included, by partition: a reader that has taken so
    /// many of each, read committed, has what was true at `committed_epoch` and nothing else.
    pub topics: BTreeMap<String, Vec<u64>>,
    /// Of all rows and live changes since the job began, up to `committed_epoch`.
    #[serde(default)]
    pub digests: Digests,
    /// The checkpoint that counts from now on; its epoch is at most `history_epoch`. None: that of an earlier record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointEntry>,
    /// With a checkpoint: what it was made with ([`crate::recovery::Identity::sections`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sections: BTreeMap<String, String>,
    /// The input ended here by itself ([`Ticket::end`]): nothing more is to come.
    #[serde(default)]
    pub end: bool,
}

impl ProgressRecord {
    /// The newest epoch that it holds; `None` when it only publishes files.
    pub fn last_epoch(&self) -> Option<i64> {
        self.epochs.last().map(|t| t.epoch)
    }
}

/// A published history file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub table: TableId,
    /// Below the data directory, such as `history/trips_log/date=2026-05-01/g1-1-40-7.parquet`.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    /// Rows with `diff` < 0.
    pub retractions: u64,
    pub min_epoch: i64,
    pub max_epoch: i64,
    /// XXH3-64 of the file's bytes, 16 hex digits.
    pub checksum: String,
}

impl FileEntry {
    /// The table and day whose rows it holds, as its path says; `None` for a path that is not one of ours.
    pub fn partition(&self) -> Option<(TableId, DateKey)> {
        let (dir, _name) = self.path.strip_prefix("history/")?.rsplit_once('/')?;
        let (log, date) = match dir.split_once('/') {
            Some((log, date)) => (log, DateKey::parse(date.strip_prefix("date=")?)?),
            None => (dir, DateKey::NONE),
        };
        let table = TableId::by_name(log.strip_suffix("_log")?)?;
        (table == self.table).then_some((table, date))
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressEntry {
    Claim(Claim),
    Commit(ProgressRecord),
}

/// Where progress is kept.
pub trait ProgressLog {
    /// Appends the claim, durable when this returns: from now on an earlier generation cannot commit.
    fn claim(&mut self, claim: &Claim) -> Result<(), ProgressError>;

    /// Appends a record. It has happened when the outlet's commit has returned, not before.
    fn append(&mut self, record: &ProgressRecord) -> Result<(), ProgressError>;

    /// All entries that are still there, in order. A last one that was torn by a crash never happened and is left out.
    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError>;

    /// A committed record names the checkpoint at this epoch: what a restart from it does not need may go (see the
    /// module). It need not go at once, and when it cannot go that is no error.
    fn trim(&mut self, checkpoint: i64) -> Result<(), ProgressError> {
        let _ = checkpoint;
        Ok(())
    }
}

#[derive(Debug, Error)]
pub enum ProgressError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The log is damaged: to go on would lose or repeat results.
    #[error("{place}: {problem}. The progress log is damaged; restore it from a backup, or start over with --fresh")]
    Corrupt { place: String, problem: String },
    #[error(transparent)]
    Kafka(#[from] crate::kafka::KafkaError),
}

impl ProgressError {
    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, ProgressError::Kafka(e) if e.is_retryable())
    }
}

/// The generation that comes next, and whether anything has been committed before.
pub fn next_generation(entries: &[ProgressEntry]) -> (u64, bool) {
    let last = entries.iter().map(ProgressEntry::generation).max().unwrap_or(0);
    (last + 1, entries.iter().any(|e| matches!(e, ProgressEntry::Commit(_))))
}

impl ProgressEntry {
    pub fn generation(&self) -> u64 {
        match self {
            ProgressEntry::Claim(claim) => claim.generation,
            ProgressEntry::Commit(record) => record.generation,
        }
    }
}

/// Whether a later generation has claimed (as far as the log can be read).
pub(crate) fn overtaken<L: ProgressLog + ?Sized>(log: &L, generation: u64) -> bool {
    log.read_all().is_ok_and(|entries| entries.iter().any(|entry| entry.generation() > generation))
}

/// What an instance says at its end that was overtaken.
pub(crate) fn overtaken_text(job: &str) -> String {
    format!("another instance (a later generation) has taken over job {job:?}; this one has committed nothing more")
}

/// Of commits by their newest epoch, oldest first, the first that a restart from this checkpoint needs; the last one
/// names the checkpoint, and is always needed.
pub(crate) fn first_needed(newest_epochs: impl ExactSizeIterator<Item = Option<i64>>, checkpoint: i64) -> usize {
    let last = newest_epochs.len().saturating_sub(1);
    let mut newest_epochs = newest_epochs;
    newest_epochs.position(|epoch| epoch.is_some_and(|e| e > checkpoint)).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_its_partition() {
        let of = |table, path: &str| {
            let (path, checksum) = (path.to_string(), String::new());
            FileEntry { table, path, rows: 0, bytes: 0, retractions: 0, min_epoch: 0, max_epoch: 0, checksum }
                .partition()
        };
        let trips = |path| of(TableId::Trips, path);
        let date = DateKey::of(20_574 * 86_400_000_000);
        assert_eq!(trips("history/trips_log/date=2026-05-01/g1-1-40-7.parquet"), Some((TableId::Trips, date)));
        assert_eq!(trips("history/trips_log/g1-1-40-7.parquet"), Some((TableId::Trips, DateKey::NONE)));
        assert_eq!(of(TableId::Intake, "history/intake_log/x"), Some((TableId::Intake, DateKey::NONE)));
        for path in [
            "trips_log/date=2026-05-01/x",
            "history/trips/x",
            "history/trips_log",
            "history/events_log/x",
            "history/trips_log/date=2026-05-32/x",
            "history/trips_log/2026-05-01/x",
            "history/trips_log/date=2026-05-01/more/x",
        ] {
            assert_eq!(trips(path), None, "{path}");
        }
        for day in [-719_162, -1, 0, 1, 20_574, 2_932_896] {
            let key = DateKey::of(day * 86_400_000_000);
            assert_eq!(DateKey::parse(&key.text()), Some(key));
        }
    }

    #[test]
    fn what_a_restart_needs_begins_with_the_first_epoch_after_the_checkpoint() {
        let commits = [Some(6), None, Some(7), Some(9), None, Some(10)];
        let needed = |checkpoint| first_needed(commits.iter().copied(), checkpoint);
        assert_eq!((needed(3), needed(6), needed(7), needed(8), needed(9), needed(10)), (0, 2, 3, 3, 5, 5));
    }
}
