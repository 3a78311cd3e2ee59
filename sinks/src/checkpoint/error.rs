//! What can go wrong with checkpoints.

use super::format::FORMAT;
use crate::files::FileError;
use drivetrain_schemas::records::RecordKind;
use std::path::PathBuf;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The disk is full, gone or not ours.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what was written. `offset`: where its damaged part begins, in bytes.
    #[error(
        "checkpoint file {path}, byte {offset}: {problem}. Restore the file from a backup, or start over with --fresh"
    )]
    Damaged { path: PathBuf, offset: u64, problem: String },
    /// A file that the checkpoint names is not there.
    #[error("checkpoint file {path} is missing. Restore it from a backup, or start over with --fresh")]
    Missing { path: PathBuf },
    /// Another version of the code wrote it: `writer`, such as `drivetrain 0.2.0`.
    #[error(
        "{place} has format {found}, written by {writer}; this version understands format {FORMAT} only. Run {writer}, or \
         start over with --fresh"
    )]
    Format { place: String, found: u32, writer: String },
    /// The operator's records were of another kind before: its code has changed.
    #[error(
        "operator {operator}: {place} holds records of kind {found:?}, not {expected:?}. Run the version that wrote it, or \
         start over with --fresh"
    )]
    Kind { operator: String, place: String, found: RecordKind, expected: RecordKind },
    /// A record that no block can hold.
    #[error("operator {operator}: one record has {bytes} bytes; a checkpoint holds records of at most 2 GiB")]
    TooLarge { operator: String, bytes: u64 },
    /// A fault of the program.
    #[error("a checkpoint of epoch {epoch} cannot follow one of epoch {last}")]
    Order { epoch: i64, last: i64 },
    #[error("cannot start the checkpoints' thread: {0}")]
    Thread(std::io::Error),
    #[error("the checkpoints' thread ended unexpectedly")]
    Gone,
}

impl CheckpointError {
    /// Whether trying again may help without anybody's doing: room on a disk comes and goes.
    pub fn is_retryable(&self) -> bool {
        matches!(self, CheckpointError::File(e) if e.is_retryable())
    }
}
