//! The progress log: the only truth about what has happened (DESIGN §8).
//!
//! ```text
//!  Claim(g=1)  Commit  Commit  Commit …   Claim(g=2)  Commit …
//! ```
//!
//! An entry is appended once and never changed. A [`Claim`] says who may write from here on; a [`ProgressRecord`] says
//! which epochs have happened, with which input, and which history files belong to them. Without Kafka the log is a
//! file ([`local::LocalLog`]), with Kafka a topic written inside the transaction ([`crate::kafka`]).

pub mod data;
pub mod lines;
pub mod local;

use crate::files::FileError;
use crate::message::Ticket;
use drivetrain_schemas::table::TableId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

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
    pub generation: u64,
    pub job: String,
    pub config_hash: String,
    pub version: String,
    /// The epochs, ascending, with their input. Empty when only files are published.
    pub epochs: Vec<Ticket>,
    /// The newest epoch that has happened, this commit included; -1 before the first.
    pub committed_epoch: i64,
    /// History files that become visible with this commit.
    pub published: Vec<FileEntry>,
    /// All history rows of this epoch and those before it are in files published by this commit or earlier ones.
    pub history_epoch: i64,
    /// Records written to each topic since the log began, this commit included.
    pub topics: BTreeMap<String, u64>,
    /// The run ended here by itself: everything is committed and published.
    #[serde(default)]
    pub end: bool,
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

    /// All entries, in order. A last one that was torn by a crash never happened and is left out.
    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError>;
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
    let generation = |e: &ProgressEntry| match e {
        ProgressEntry::Claim(c) => c.generation,
        ProgressEntry::Commit(r) => r.generation,
    };
    let last = entries.iter().map(generation).max().unwrap_or(0);
    (last + 1, entries.iter().any(|e| matches!(e, ProgressEntry::Commit(_))))
}
