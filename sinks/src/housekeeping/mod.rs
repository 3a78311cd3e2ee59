//! Housekeeping of the history: small files become large ones, old changes that cancel each other go, old days go.
//! Another process than the job's; both may run at once, and readers read all the while (`docs/adr/0006-housekeeping.md`).
//!
//! ```text
//!  manifest ─┐                        ┌► merge ──► compacted/… ──┐
//!            ├─► files ──► plan ──────┤                          ├─► change in compacted/log.jsonl ── grace ──► settle
//!  log ──────┘     (per table, day)   └► retention ──────────────┘    ← the instant for `sql`        ← for a listing
//! ```
//!
//! # Contract
//!
//! - **The job is not disturbed.** It writes new files and its own manifest; published files it never touches. Housekeeping
//!   touches nothing else than published files that a synced line of the manifest names, so that nothing which the
//!   progress log may still have to publish is among them.
//! - **Nothing is lost to a restart.** A start leaves out the rows of a partition up to the newest `max_epoch` of its files
//!   ([`crate::history::Published`]): one of the files that come out of a partition says the newest of those that went in,
//!   even when no row is left. The rows of expired days that a restart writes again are no part of the history
//!   ([`Expired`]), and the next run takes them away.
//! - **A reader sees each change whole or not at all** ([`log`]), and what it has begun to read stays for the grace time
//!   ([`place`]).
//! - **A crash anywhere** leaves files that no change names, which the next run deletes, or a change that is not settled,
//!   which it settles. One process at a time: a second one is refused.
//! - **The state at the limit and after** is what it was, row for row; the past before the limit is refused by `sql`.

mod cancel;
mod config;
pub(crate) mod log;
mod merge;
pub(crate) mod place;
mod plan;

pub use config::{Keep, RetentionConfig};
pub use log::Expired;
pub use place::locate;
pub use plan::{Plan, plan};

use crate::failpoint;
use crate::files::{At, FileError, remove_file};
use crate::history::{HistoryConfig, HistoryError};
use crate::manifest::{Manifest, manifest, named};
use crate::progress::data::{MANIFEST, generation_file};
use drivetrain_schemas::table::TableId;
use log::{Change, Log};
use parquet::errors::ParquetError;
use place::Lock;
use plan::{Expiry, Merging};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HousekeepingError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: ParquetError },
    #[error("{0}")]
    Arrow(arrow::error::ArrowError),
    #[error("{path} is damaged: its checksum is {found}, not {expected}; it was left alone. Restore it from a backup")]
    Damaged { path: PathBuf, expected: String, found: String },
    #[error("{data} is being compacted by another process; nothing was changed. Wait until it has ended")]
    Busy { data: PathBuf },
    #[error("{data} has no manifest: no job has written a history here, or an older version has. Nothing was changed")]
    NoManifest { data: PathBuf },
    /// A fault of the program, found before anything was changed.
    #[error("compacting {table} of {date}: {expected} rows became {found}; they were left alone. This is a bug")]
    Rows { table: &'static str, date: String, expected: u64, found: u64 },
}

impl HousekeepingError {
    fn read(path: &Path, source: ParquetError) -> Self {
        HousekeepingError::Read { path: path.to_path_buf(), source }
    }

    fn arrow(source: arrow::error::ArrowError) -> Self {
        HousekeepingError::Arrow(source)
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// `roll_bytes`, the writing options, `as_of` and `retention` count.
    pub history: HistoryConfig,
    /// Cancel changes older than `history.as_of`.
    pub consolidate: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files that gave way to others, and those others.
    pub merged: u64,
    pub into: u64,
    /// Rows of logs that cancelled each other.
    pub cancelled: u64,
    /// Files that retention has taken away, and their rows.
    pub expired: u64,
    pub expired_rows: u64,
}

/// How a data directory stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// By table: files, rows, bytes.
    pub tables: BTreeMap<TableId, (u64, u64, u64)>,
    /// The past before this epoch is not known any more; -1: all of it is.
    pub oldest_epoch: i64,
    /// What retention has taken away, by table.
    pub expired: BTreeMap<TableId, Expired>,
    /// Files that were replaced or taken away and are not deleted yet.
    pub replaced: u64,
}

/// How a data directory stands. Changes nothing, and may be called at any time.
///
/// # Errors
/// When the manifest or the log of changes cannot be read.
pub fn status(data: &Path) -> Result<Status, HousekeepingError> {
    let log = Log::read(data)?;
    let Manifest { files, oldest_epoch, expired, .. } = manifest(data)?;
    let mut status = Status { oldest_epoch, expired, ..Status::default() };
    for file in files {
        let (files, rows, bytes) = status.tables.entry(file.table).or_default();
        *files += 1;
        *rows += file.rows;
        *bytes += file.bytes;
    }
    let unsettled = log.changes.iter().filter(|c| !log.settled.contains_key(&c.number));
    status.replaced = unsettled.map(|c| c.removed.len() as u64).sum();
    Ok(status)
}

/// Does the housekeeping of a data directory, alone.
#[derive(Debug)]
pub struct Housekeeper {
    data: PathBuf,
    log: Log,
    /// Runs merged at once, at most.
    fan_in: usize,
    _lock: Lock,
}

impl Housekeeper {
    /// Takes the directory for housekeeping; a job may run on it.
    ///
    /// # Errors
    /// [`HousekeepingError::Busy`], [`HousekeepingError::NoManifest`].
    pub fn open(data: &Path) -> Result<Self, HousekeepingError> {
        if named(data)?.generation == 0 {
            return Err(HousekeepingError::NoManifest { data: data.to_path_buf() });
        }
        let Some(lock) = Lock::take(data)? else { return Err(HousekeepingError::Busy { data: data.to_path_buf() }) };
        Ok(Self { data: data.to_path_buf(), log: Log::read(data)?, fan_in: merge::FAN_IN, _lock: lock })
    }

    /// Does what is to be done now: `now` is the wall time, µs. Each change holds as soon as it is made; files that give
    /// way are deleted by [`Self::settle`].
    ///
    /// # Errors
    /// What went wrong; the changes made before it hold.
    pub fn run(&mut self, options: &Options, now: i64) -> Result<Done, HousekeepingError> {
        let Plan { expiries, mergings, .. } = plan(&self.data, options, now)?;
        let mut done = Done::default();
        for expiry in expiries {
            self.expire(expiry, now, &mut done)?;
        }
        for merging in mergings {
            self.merge(&merging, &options.history, now, &mut done)?;
        }
        Ok(done)
    }

    /// Deletes what was replaced at least `grace` µs ago and what a crash has left. Returns the files deleted and their
    /// bytes.
    ///
    /// # Errors
    /// When a file cannot be linked or deleted; the next call goes on.
    pub fn settle(&mut self, grace: i64, now: i64) -> Result<(u64, u64), HousekeepingError> {
        let (mut files, mut bytes) = (0, 0);
        for change in self.log.changes.clone() {
            if self.log.settled.contains_key(&change.number) {
                continue;
            }
            if now.saturating_sub(change.at) < grace {
                break;
            }
            bytes += place::settle(&self.data, &change)?;
            files += change.removed.len() as u64;
            self.log.settle(&self.data, change.number, now)?;
            failpoint::hit("housekeeping.settled")?;
        }
        let settled_before = now.saturating_sub(grace);
        place::sweep(&self.data, &self.log, settled_before)?;
        // What a start, or the job meanwhile, has taken into the manifest.
        let needed = self.log.apply(&mut named(&self.data)?.files);
        let over = |n: &u64| self.log.settled.get(n).is_some_and(|at| *at <= settled_before) && !needed.contains(n);
        let over = self.log.changes.iter().map(|c| c.number).filter(over).collect::<std::collections::BTreeSet<u64>>();
        if !over.is_empty() {
            self.log.drop_changes(&self.data, &over)?;
        }
        Ok((files, bytes))
    }

    /// µs until everything can be settled that was done so far; 0: now.
    pub fn patience(&self, grace: i64, now: i64) -> i64 {
        let unsettled = self.log.changes.iter().filter(|c| !self.log.settled.contains_key(&c.number));
        unsettled.map(|c| grace - now.saturating_sub(c.at)).max().unwrap_or(0).max(0)
    }

    /// Takes a table's old days away.
    fn expire(&mut self, expiry: Expiry, now: i64, done: &mut Done) -> Result<(), HousekeepingError> {
        let Expiry { table, before, files } = expiry;
        let rows = files.iter().map(|f| f.rows).sum::<u64>();
        let earlier = self.log.kept.expired.get(&table).map_or(0, |e| e.rows);
        let expired = Expired { before: before.text(), rows: earlier + rows, at: now };
        tracing::info!(table = table.name(), before = expired.before, files = files.len(), rows, "retention");
        done.expired += files.len() as u64;
        done.expired_rows += rows;
        let removed = files.into_iter().map(|f| f.path).collect();
        self.change(now, removed, Vec::new(), -1, Some((table, expired)))
    }

    /// Replaces files of a partition by fewer ones.
    fn merge(
        &mut self,
        merging: &Merging,
        config: &HistoryConfig,
        now: i64,
        done: &mut Done,
    ) -> Result<(), HousekeepingError> {
        let Merging { table, date, files, limit } = merging;
        files.iter().try_for_each(|f| place::verify(&self.data, &f.path, &f.checksum))?;
        let job = merge::Job {
            data: &self.data,
            config,
            number: self.log.kept.next,
            table: *table,
            date: *date,
            files,
            limit: *limit,
            fan_in: self.fan_in,
        };
        let merge::Merged { files: added, cancelled } = merge::merge(&job)?;
        failpoint::hit("housekeeping.written")?;
        if cancelled == 0 && added.len() >= files.len() {
            // Nothing is won: what could not be cancelled here stays as it is.
            return Ok(added.iter().try_for_each(|f| remove_file(&locate(&self.data, &f.path)).map(|_| ()))?);
        }
        tracing::info!(
            table = table.name(),
            date = (*date != crate::history::DateKey::NONE).then(|| date.text()),
            files = files.len(),
            into = added.len(),
            cancelled,
            "compacted"
        );
        done.merged += files.len() as u64;
        done.into += added.len() as u64;
        done.cancelled += cancelled;
        let oldest = limit.filter(|_| cancelled > 0).unwrap_or(-1);
        self.change(now, files.iter().map(|f| f.path.clone()).collect(), added, oldest, None)
    }

    /// Makes a change hold.
    fn change(
        &mut self,
        at: i64,
        removed: Vec<String>,
        added: Vec<crate::progress::FileEntry>,
        oldest: i64,
        expired: Option<(TableId, Expired)>,
    ) -> Result<(), HousekeepingError> {
        // What the job has written and not synced yet could be lost with the machine; then its next start would look for
        // files that are gone.
        let manifest = generation_file(&self.data.join(MANIFEST), named(&self.data)?.generation);
        File::open(&manifest).and_then(|f| f.sync_all()).at("cannot sync", &manifest)?;
        failpoint::hit("housekeeping.synced")?;
        let number = self.log.kept.next;
        self.log.append(&self.data, Change { number, at, removed, added, oldest, expired })?;
        Ok(failpoint::hit("housekeeping.recorded")?)
    }
}

#[cfg(test)]
mod tests;
