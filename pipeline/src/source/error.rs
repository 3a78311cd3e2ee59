//! What can go wrong while reading input. Each message says what stood there and what to do.

use std::path::PathBuf;
use thiserror::Error;

/// Why the input can't be read (on). [`SourceError::is_usage`] tells the user's mistakes, found before anything is
/// written, from failures of the job.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error("{path}: no such file or directory; check the path")]
    Missing { path: PathBuf },
    #[error("{path}: can't be read: {reason}; check the file and its permissions")]
    Unreadable { path: PathBuf, reason: String },
    #[error(
        "{path}: the name does not tell the format; use .jsonl, .ndjson, .json, .csv, .txt or .parquet (also with .gz \
         or .zst behind), or set `format` of the source {from:?}"
    )]
    Extension { path: PathBuf, from: String },
    #[error("{path}: the directory has no file that can be read (.jsonl, .ndjson, .json, .csv, .txt, .parquet)")]
    EmptyDirectory { path: PathBuf },
    #[error("{path}: given twice; name each file once")]
    Twice { path: PathBuf },
    #[error("{input}: which source is it? Write SOURCE=PATH; the sources are {sources}")]
    Ambiguous { input: String, sources: String },
    #[error("no source is configured; add a [sources.<name>] section")]
    NoSource,
    #[error("{path}: not a {form} file: {reason}")]
    Form { path: PathBuf, form: &'static str, reason: String },
    #[error("{path}: broken after {position} ({reason}); restore the file, or take it out of the input")]
    Corrupt { path: PathBuf, position: String, reason: String },
    #[error("sources.{from}.{field}: {reason}")]
    Config { from: String, field: &'static str, reason: String },
    #[error("kafka: no broker of {brokers} answers: {reason}; check kafka.brokers, the network and TLS or SASL")]
    Brokers { brokers: String, reason: String },
    #[error("kafka: {0}")]
    Client(String),
    #[error("kafka: topic {topic:?} does not exist; create it, or correct `topics` of the source")]
    UnknownTopic { topic: String },
    #[error("kafka: topic {topic:?} was deleted and created again (id {was}, now {is}); start over with --fresh")]
    Recreated { topic: String, was: String, is: String },
    #[error(
        "kafka: the broker does not tell the id of topic {topic:?}, which was {was}: it may have been deleted and created \
         again. Let the client describe the topic, and start again"
    )]
    NoId { topic: String, was: String },
    #[error(
        "kafka: {topic}/{partition}: offset {offset} is needed but no longer there (the topic was truncated, or \
         deleted and created again, or its retention is too short): {reason}; start over with --fresh, or raise retention.ms"
    )]
    Truncated { topic: String, partition: i32, offset: i64, reason: String },
    #[error("{path}, line {line}: {reason}; give the bindings that a run has archived")]
    Bindings { path: PathBuf, line: usize, reason: String },
    #[error(
        "{path}: no epoch is recorded there; give the directory <data>/bindings of a run, or a file of it that begins with \
         epoch 0"
    )]
    NoEpochs { path: PathBuf },
    #[error(
        "{path}: the recorded epochs are {epoch} (ended {ended}) to {last}, and a run can be repeated only from epoch 0 on, \
         since what an epoch comes to depends on all before it. Give the whole directory <data>/bindings; if it is, the \
         earlier ones have expired: `history.bindings` says how long they are kept"
    )]
    Expired { path: PathBuf, epoch: i64, ended: String, last: i64 },
    #[error(
        "kafka: {reason}: so the recorded run can't be repeated. Bindings say which records were read; the topics must \
         still have them (retention.ms)"
    )]
    Unrepeatable { reason: String },
    #[error("epoch {epoch}: the input is not the recorded one: {reason}")]
    Differs { epoch: i64, reason: String },
    #[error("a worker or the committer has gone")]
    Disconnected,
    #[error("a thread can't be started: {0}")]
    Thread(std::io::Error),
}

impl SourceError {
    /// Whether the command line or the configuration is wrong (exit code 2).
    pub fn is_usage(&self) -> bool {
        use SourceError::*;
        matches!(
            self,
            Missing { .. }
                | Unreadable { .. }
                | Extension { .. }
                | EmptyDirectory { .. }
                | Twice { .. }
                | Ambiguous { .. }
                | NoSource
                | Form { .. }
                | Config { .. }
                | Bindings { .. }
                | NoEpochs { .. }
                | Expired { .. }
        )
    }

    /// As it is said where a recorded run is repeated: there is nothing to start over.
    pub(crate) fn of_repeat(self) -> Self {
        use SourceError::*;
        let reason = match self {
            UnknownTopic { topic } => format!("topic {topic:?} does not exist any more"),
            Recreated { topic, was, is } => {
                format!("topic {topic:?} was deleted and created again since (id {was}, now {is})")
            }
            Truncated { topic, partition, offset, reason } => format!(
                "{topic}/{partition}: the records from offset {offset} on are no longer there (taken by retention, or the \
                 topic was truncated): {reason}"
            ),
            other => return other,
        };
        Unrepeatable { reason }
    }
}
