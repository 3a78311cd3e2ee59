//! Where live answers and the progress log go together: local files ([`crate::live`]) or Kafka ([`crate::kafka`]).
//!
//! Contract: first the progress log is read, the claim appended, and `resume` called ([`crate::recovery`]); then, in this
//! order for each commit: `begin`, `produce`, `append` (the progress record), `commit`, and later
//! `settle`. When `commit` has returned, all of it has happened; when any step fails or the process dies before, none
//! of it has, whatever a reader that honours commits (read committed; the progress log) may see. After an error the
//! outlet is not used again.

use crate::files::FileError;
use crate::kafka::KafkaError;
use crate::live::LiveError;
use crate::progress::{ProgressError, ProgressLog};
use drivetrain_schemas::document::{write_cell, write_string};
use drivetrain_schemas::reading::{NULL, Origin, Reject};
use drivetrain_schemas::row::Cell;
use drivetrain_schemas::table::{Kind, Topic};
use drivetrain_schemas::time::format_rfc3339;
use std::fmt::Write;
use std::sync::Arc;
use thiserror::Error;

/// Version of the live values' form; fields are only ever added to it.
pub const SCHEMA_VERSION: u32 = 1;

/// The new value of a key, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveChange {
    pub topic: Topic,
    pub key: Arc<str>,
    /// The whole JSON value; `None`: a tombstone.
    pub value: Option<String>,
    pub epoch: i64,
}

/// A record that could not be used, on its way to the topic `dead_letter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub epoch: i64,
    pub reject: Reject,
}

impl DeadLetter {
    /// Its headers: what a person needs to find the record again.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let Reject { origin, position, record_time, reason, detail, .. } = &self.reject;
        let Origin { source, name, partition } = origin.as_ref();
        let mut headers = vec![
            ("reason", reason.to_string()),
            ("detail", detail.clone()),
            ("source", source.to_string()),
            ("origin", name.to_string()),
            ("partition", partition.to_string()),
            ("position", position.to_string()),
            ("epoch", self.epoch.to_string()),
        ];
        if *record_time != NULL {
            headers.push(("record_time", format_rfc3339(*record_time)));
        }
        headers
    }
}

/// What one commit says to the live topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveOutput {
    /// At most one a (topic, key).
    pub changes: Vec<LiveChange>,
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Debug, Error)]
pub enum OutletError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error(transparent)]
    Progress(#[from] ProgressError),
    #[error(transparent)]
    Kafka(#[from] KafkaError),
}

impl OutletError {
    /// Whether starting again may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            OutletError::File(_) | OutletError::Live(_) => false,
            OutletError::Progress(e) => e.is_retryable(),
            OutletError::Kafka(e) => e.is_retryable(),
        }
    }
}

/// See the module.
pub trait Outlet: ProgressLog + Send {
    /// Takes up what earlier runs have said in epochs up to `committed` (-1: nothing); what else they have written never
    /// happened, and is taken back where readers could see it. May be repeated.
    fn resume(&mut self, committed: i64) -> Result<(), OutletError>;
    fn begin(&mut self) -> Result<(), OutletError>;
    fn produce(&mut self, output: &LiveOutput) -> Result<(), OutletError>;
    fn commit(&mut self) -> Result<(), OutletError>;
    /// The partition to which a change of a key goes; 0 where topics have no partitions.
    fn partition(&self, topic: Topic, key: &str) -> usize {
        let _ = (topic, key);
        0
    }
    /// The partition to which a dead letter goes.
    fn dead_letter_partition(&self, letter: &DeadLetter) -> usize {
        let _ = letter;
        0
    }
    /// Housekeeping when nothing is under way, such as compaction.
    fn settle(&mut self) -> Result<(), OutletError> {
        Ok(())
    }
}

/// A live value: the document with `schema`, `epoch` and `updated_at` (the epoch's wall time) behind its own fields.
pub fn complete(document: &str, epoch: i64, wall: i64) -> String {
    let body = document.trim_end().strip_suffix('}').unwrap_or("{");
    let comma = if body.trim_end().ends_with('{') { "" } else { "," };
    let mut out = String::with_capacity(body.len() + 80);
    let _ = write!(out, "{body}{comma}\"schema\":{SCHEMA_VERSION},\"epoch\":{epoch},\"updated_at\":");
    write_cell(&mut out, Cell::Time(wall), Kind::Time);
    out.push('}');
    out
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_when_they_became_true() {
        let tail = r#""schema":1,"epoch":7,"updated_at":"1970-01-01T00:00:01Z"}"#;
        assert_eq!(complete(r#"{"a":1}"#, 7, 1_000_000), format!(r#"{{"a":1,{tail}"#));
        assert_eq!(complete("{}", 7, 1_000_000), format!("{{{tail}"));
    }
}
