//! Live topics without Kafka: local compacted logs that `drivetrain live` and `sql` read.
//!
//! ```text
//! <data>/live/<topic>/0000000001.jsonl     {"epoch":5,"key":"d1","value":{…}}     null: the key ends
//! <data>/live/dead_letter/0000000001.jsonl {"epoch":5,"headers":{…},"payload_base64":"…"}     never compacted
//! ```
//!
//! Order of a commit: the records are appended and synced first, then the progress record; that one is the commit.
//! A reader therefore reads the segments first and the newest committed epoch afterwards, and leaves out records of
//! later epochs: it never sees what has not happened, and whatever a crash leaves behind the last commit counts for
//! nothing. When a start has come between the two (the log's generation is another one) it reads again: the new run's
//! epochs have the numbers of those that the crash has left. A topic is compacted into a new segment (written aside, renamed, then the old one deleted) right after a
//! commit, when all that it holds is committed. A restart cuts off what was not committed ([`TopicLog::open`]).

mod head;
mod log;
mod outlet;
mod read;

pub use log::TopicLog;
pub use outlet::LocalOutlet;
pub use read::{Follower, LiveRecord, read_dead_letters, read_latest};

use crate::files::{FileError, list};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// A local topic cannot be taken up again.
#[derive(Debug, Error)]
pub enum LiveError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{path}, line {line}: not a record. The topic is damaged; restore it from a backup, or start over with --fresh"
    )]
    Damaged { path: PathBuf, line: u64 },
}

/// The segments of a topic's directory, ascending.
fn segments(dir: &Path) -> Result<Vec<u64>, FileError> {
    let number = |name: &String| name.strip_suffix(".jsonl").and_then(|n| n.parse().ok());
    Ok(list(dir)?.iter().filter_map(number).collect())
}

fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.jsonl"))
}

#[cfg(test)]
mod tests;
