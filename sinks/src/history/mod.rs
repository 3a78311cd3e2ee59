//! The history: change logs of all tables as Parquet files, partitioned by day.
//!
//! ```text
//!                     ┌──────────────────── own thread ────────────────────┐
//!  epoch's rows ──►   │ buffers by (table, date) ──► open files ──► closed │ ──► Closed files ──► committer names
//!  (bounded queue)    │        sorted row groups      in staging    fsynced │                      them, then publish
//!                     └─────────────────────────────────────────────────────┘
//! ```
//!
//! Contract: epochs come in ascending order and only when they are finished; all rows of an epoch come in one
//! [`EpochRows`]. At a restart epochs come again; rows that published files hold already ([`Published`]) are left out. A closed file holds epochs that were handed over before, so it may be named in the progress record of
//! the last of them or any later one. Rows are never lost by closing: [`HistoryWriter::drain`] closes everything.
//!
//! Memory: `history.buffer` for waiting rows (the largest buffer is written when it is exceeded), 16 MB of
//! epochs in the queue ([`queue::MOST`]), and the row group being encoded. When the thread falls behind,
//! [`HistoryWriter::add`] blocks.

mod buffer;
pub mod config;
mod encoder;
mod file;
mod published;
mod queue;
mod upload;

pub use config::{HistoryConfig, KeepReadings};
pub(crate) use file::{GroupStats, OpenFile, Place, clear_staging, discard_staging, publish};
pub use published::Published;

use crate::background;
use crate::failpoint;
use crate::files::FileError;
use crate::progress::FileEntry;
use crate::store::Storage;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use drivetrain_schemas::arrow::ArrowError;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::reading::ReadingBatch;
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::TableId;
use drivetrain_schemas::time::{format_date, parse_rfc3339};
use parquet::errors::ParquetError;
use queue::Feeder;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use thiserror::Error;

/// µs of a day.
const DAY: i64 = 86_400_000_000;

#[derive(Debug, Error)]
pub enum HistoryError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot write {path}: {source}")]
    Parquet { path: PathBuf, source: ParquetError },
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error("{0}")]
    Config(String),
    #[error("cannot start the history's thread: {0}")]
    Thread(std::io::Error),
    #[error("the history's thread ended unexpectedly")]
    Gone,
}

impl HistoryError {
    /// The writer wraps what the disk says; a person needs that, and the remedy.
    fn parquet(path: &Path, source: ParquetError) -> Self {
        match source {
            ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
                Ok(source) => FileError { action: "cannot write", path: path.to_path_buf(), source: *source }.into(),
                Err(inner) => HistoryError::Parquet { path: path.to_path_buf(), source: ParquetError::External(inner) },
            },
            source => HistoryError::Parquet { path: path.to_path_buf(), source },
        }
    }
}

/// All history rows of one finished epoch, consolidated.
#[derive(Debug, Default)]
pub struct EpochRows {
    pub epoch: i64,
    /// Changes of each table but `readings`.
    pub rows: Vec<(TableId, Vec<(Row, i64)>)>,
    /// Readings with their `diff`.
    pub readings: Vec<(Arc<ReadingBatch>, i64)>,
}

/// Files that are whole, and how far the history reaches once they are published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    pub files: Vec<FileEntry>,
    /// All rows up to this epoch are in closed files.
    pub history_epoch: i64,
}

/// The UTC day of a partition, in days since 1970; [`DateKey::NONE`] for tables without a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateKey(i64);

impl DateKey {
    pub const NONE: DateKey = DateKey(0);

    /// The day of a time in µs. Years that a path cannot hold fall on 1970-01-01, as null does.
    pub fn of(at: i64) -> Self {
        let day = at.div_euclid(DAY);
        // 0001-01-01 to 9999-12-31
        if (-719_162..=2_932_896).contains(&day) { DateKey(day) } else { Self::NONE }
    }

    /// `YYYY-MM-DD`.
    pub fn text(self) -> String {
        format_date(self.0 * DAY)
    }

    /// So many days earlier.
    pub(crate) fn minus(self, days: i64) -> Self {
        DateKey(self.0 - days)
    }

    /// The inverse of [`Self::text`].
    pub fn parse(text: &str) -> Option<Self> {
        let at = parse_rfc3339(&format!("{text}T00:00:00Z")).ok()?;
        let key = Self::of(at);
        (key.text() == text).then_some(key)
    }
}

type Files = Result<Closed, HistoryError>;
type Between = (Sender<Files>, Receiver<Files>, Option<JoinHandle<()>>);

enum Command {
    Add(EpochRows),
    Roll,
    Drain,
}

/// The history's thread, as its owner sees it.
#[derive(Debug)]
pub struct HistoryWriter {
    commands: Option<Feeder>,
    closed: Receiver<Files>,
    threads: Vec<JoinHandle<()>>,
}

impl HistoryWriter {
    /// Starts the thread. Files go below `staging/g<generation>/`, in the data directory and then, if there is one, in the
    /// store. `published`: what need not be written again.
    pub fn start(
        storage: impl Into<Storage>,
        generation: u64,
        catalogue: Arc<Catalogue>,
        config: HistoryConfig,
        published: Published,
    ) -> Result<Self, HistoryError> {
        config.validate().map_err(HistoryError::Config)?;
        let storage = storage.into();
        let (commands, inbox) = queue::queue();
        let (outbox, closed, uploading) = upload(&storage, generation)?;
        let place = Place::staging(storage.local(), generation);
        let encoder = encoder::Encoder::new(place, catalogue, config, published);
        let plan = failpoint::current();
        let serve = move || {
            failpoint::adopt(plan);
            background::yield_to_others();
            encoder.run(&inbox, &outbox);
        };
        let thread = std::thread::Builder::new().name("history".into()).spawn(serve).map_err(HistoryError::Thread)?;
        Ok(Self { commands: Some(commands), closed, threads: std::iter::once(thread).chain(uploading).collect() })
    }

    /// Hands over an epoch; waits while the thread is behind.
    pub fn add(&mut self, rows: EpochRows) -> Result<(), HistoryError> {
        self.send(Command::Add(rows))
    }

    /// Closes what is open now, however young; the files come by [`Self::closed`].
    pub fn roll(&mut self) -> Result<(), HistoryError> {
        self.send(Command::Roll)
    }

    /// Files that were closed since the last call; `None` when there are none.
    pub fn closed(&mut self) -> Result<Option<Closed>, HistoryError> {
        let mut all: Option<Closed> = None;
        while let Ok(closed) = self.closed.try_recv() {
            merge(&mut all, closed?);
        }
        Ok(all)
    }

    /// Closes everything and ends the thread. Returns what was closed since the last call of [`Self::closed`].
    pub fn drain(&mut self) -> Result<Closed, HistoryError> {
        self.send(Command::Drain)?;
        self.commands = None;
        let mut all = None;
        while let Ok(closed) = self.closed.recv() {
            merge(&mut all, closed?);
        }
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| HistoryError::Gone)?;
        }
        all.ok_or(HistoryError::Gone)
    }

    fn send(&mut self, command: Command) -> Result<(), HistoryError> {
        let sent = self.commands.as_ref().is_some_and(|c| c.send(command));
        if sent {
            return Ok(());
        }
        // The thread has ended: it says why, if it can.
        while let Ok(closed) = self.closed.recv() {
            closed?;
        }
        Err(HistoryError::Gone)
    }
}

/// What passes closed files on to the committer, as a sender for the encoder, the committer's receiver and the thread
/// between them: without a store nothing is between.
fn upload(storage: &Storage, generation: u64) -> Result<Between, HistoryError> {
    let (outbox, closed) = unbounded();
    let Some(remote) = storage.remote() else { return Ok((outbox, closed, None)) };
    let uploader = upload::Uploader { remote: remote.clone(), data: storage.local().to_path_buf(), generation };
    let (encoder, inbox) = bounded(upload::QUEUE);
    let plan = failpoint::current();
    let serve = move || {
        failpoint::adopt(plan);
        uploader.run(&inbox, &outbox);
    };
    let thread = std::thread::Builder::new().name("upload".into()).spawn(serve).map_err(HistoryError::Thread)?;
    Ok((encoder, closed, Some(thread)))
}

impl Drop for HistoryWriter {
    fn drop(&mut self) {
        self.commands = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Closed {
    /// Adds what was closed later.
    pub(crate) fn merge(&mut self, later: Closed) {
        self.files.extend(later.files);
        self.history_epoch = later.history_epoch;
    }
}

fn merge(all: &mut Option<Closed>, closed: Closed) {
    match all {
        None => *all = Some(closed),
        Some(all) => all.merge(closed),
    }
}

#[cfg(test)]
mod tests;
