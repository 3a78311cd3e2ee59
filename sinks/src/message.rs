//! What the dataflow's workers say to the committer.
//!
//! ```text
//!  source thread ──► Ticket (epoch, wall time, bindings)  ─┐
//!  worker 0..n   ─┬► Output (rows, upserts, …) of an epoch │
//!                 ├► Part (changed state) of an epoch      ├──► committer
//!                 ├► Parts (more of them come, have come)  │
//!                 └► Frontier (worker, epoch finished)    ─┘
//! ```
//!
//! An epoch is finished when its ticket has come and every worker's frontier is beyond it; channels keep each sender's
//! order, so all its outputs have come by then, and it is known of which parts more come later. Finished epochs are
//! committed in their order; a checkpoint is written when its epoch is finished and all its parts have come.

use crate::checkpoint::PackedPart;
use drivetrain_schemas::reading::{IntakeCounts, Origin, ReadingBatch, Reject};
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::{TableId, Topic};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The epoch's number, what the clock said, and which input it holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    pub epoch: i64,
    /// µs since 1970 UTC, recorded when the epoch was closed.
    pub wall: i64,
    /// For each partition read in this epoch: the end offset (last delivered + 1; for files: the last line).
    pub bindings: Vec<Binding>,
    /// Control changes that take effect in this epoch, by value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<drivetrain_schemas::control::ControlChange>,
    /// Control documents that came in this epoch and cannot be used: their rows of `rejects` are repeated from here, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejects: Vec<Reject>,
    /// Partitions that are idle, from this epoch on (all of them, not the change), as indexes into the job's
    /// partitions in the order in which they were first bound.
    #[serde(default)]
    pub idle: Vec<Arc<Origin>>,
    /// The input has ended: everything open closes in this epoch.
    #[serde(default)]
    pub end: bool,
    /// The state after this epoch is a checkpoint: each operator hands over a [`Message::Part`] of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checkpoint: bool,
    /// The last epoch before a clean stop: vehicle states that were held back are said, and `intake` is logged. Nothing
    /// closes. In a repeated run epochs may come behind it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// One partition's part in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub origin: Arc<Origin>,
    /// Kafka's topic id, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Kafka: where the partition was begun, with the first binding of one that epoch 0 does not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// Last delivered offset + 1, or the number of the last line read.
    pub end: i64,
    /// Largest event time of its readings up to this epoch, µs; absent while none was decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<i64>,
}

/// From any thread to the committer.
#[derive(Debug)]
pub enum Message {
    Ticket(Ticket),
    Output {
        epoch: i64,
        output: Output,
    },
    /// What an operator of a worker has changed in its state since the last flagged epoch, up to this one
    /// ([`Ticket::checkpoint`]). Comes before the worker's frontier is beyond it, or between two [`Message::Parts`].
    Part {
        epoch: i64,
        part: PackedPart,
    },
    /// Of an operator of a worker: parts of this epoch will come after the worker's frontier is beyond it (said before it
    /// is), or (`done`) have come.
    Parts {
        epoch: i64,
        done: bool,
    },
    /// The worker has finished every epoch below this one (`i64::MAX`: all).
    Frontier {
        worker: usize,
        epoch: i64,
    },
    /// No more tickets will come (the last one has [`Ticket::stop`]): commit what has been ticketed once all workers have
    /// finished it, publish everything and end. [`Ticket::end`] needs no `Stop` after it.
    Stop,
    /// A worker or source failed: commit nothing more, end with this error.
    Failed(String),
}

/// Results of one epoch from one worker. The same row may come from two workers with opposite `diff`: the committer
/// consolidates.
#[derive(Debug, Serialize, Deserialize)]
pub enum Output {
    /// Changes of a table (any but `readings`, `rejects`, `late` and `intake`): `diff` +1 becomes, -1 ceases to be true.
    Rows { table: TableId, rows: Vec<(Row, i64)> },
    /// Accepted readings (`diff` +1) or withdrawn ones (-1), for the table `readings`.
    Readings { batch: ReadingBatch, diff: i64 },
    /// Changes of a live topic: (key, JSON document without `schema`, `epoch`, `updated_at`, diff). Of a key, the
    /// document with +1 after consolidation is its new value; none left: a tombstone.
    Upserts { topic: Topic, changes: Vec<(Arc<str>, String, i64)> },
    /// Rejected records: to the table `rejects` and the dead-letter topic.
    Rejects { rejects: Vec<Reject> },
    /// Late readings: to the table `late`.
    Late { late: Vec<Reject> },
    /// Additions to the counts of `intake`.
    Intake { counts: Vec<(Arc<Origin>, IntakeCounts)> },
}
