//! The data directory: whose it is, who writes to it now, and how to start over.
//!
//! ```text
//! <data>/
//!   drivetrain.json   this directory belongs to drivetrain, and to which job
//!   lock              held while a job runs: pid, host, start
//!   progress/         the progress log (without Kafka)
//!   bindings/         g<n>.jsonl: which input each epoch had: `--as-of TIME`, `replay --bindings`
//!   checkpoints/g<n>/ operators' states
//!   staging/g<n>/     history files being written
//!   history/          published history files
//!   live/             the newest values (without Kafka)
//!   manifest/         g<n>.jsonl: the published files; the highest generation's counts
//!   compacted/        what `drivetrain compact` has replaced since, and its new files until they are published
//! ```
//!
//! With a store ([`crate::store`]) `bindings/`, `checkpoints/`, `history/` and `manifest/` are there, and what is here of
//! `staging/` and `checkpoints/` is work in progress that a start deletes.
//!
//! `n` is the generation, one more at each start: an instance that was overtaken (only with Kafka, where it can commit
//! nothing more) writes to paths that nobody reads.

use super::{ProgressError, local};
use crate::checkpoint::CHECKPOINTS;
use crate::files::{At, FileError, create_dir, list, remove_file, sync_dir, write_atomically};
use crate::housekeeping::log::{COMPACTED, LOG as CHANGES};
use crate::housekeeping::place::Lock;
use crate::manifest::is_segment;
use crate::store::{Remote, Storage};
use drivetrain_schemas::table::{DEAD_LETTER, TableId, Topic};
use drivetrain_schemas::time::format_rfc3339;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use thiserror::Error;

pub const MARKER: &str = "drivetrain.json";
pub const LOCK: &str = "lock";
pub const MANIFEST: &str = "manifest";
pub const BINDINGS: &str = "bindings";
pub const HISTORY: &str = "history";
pub const LIVE: &str = "live";
pub const STAGING: &str = "staging";
/// With a store: the signals' types, one object a generation.
pub const CATALOGUE: &str = "catalogue";

#[derive(Debug, Error)]
pub enum DataError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Progress(#[from] ProgressError),
    #[error("{data} is in use by {holder}; stop that job first, or use another data directory")]
    Locked { data: PathBuf, holder: String },
    #[error(
        "{data} holds `{name}`, but no {MARKER}: it was not made by drivetrain. Use another data directory (nothing was \
         changed)"
    )]
    Foreign { data: PathBuf, name: String },
    #[error("{data} is being compacted; wait until `drivetrain compact` has ended")]
    Compacting { data: PathBuf },
    #[error("{place} has progress of an earlier run of job {job:?}; use --fresh to start over, or another place")]
    HasProgress { place: String, job: String },
}

impl DataError {
    /// Whether it is for the user to mend at once, by another command (exit code 2).
    pub fn is_usage(&self) -> bool {
        !matches!(self, DataError::File(_) | DataError::Progress(_))
    }
}

/// Whether a job has written to a directory (or what it wrote was copied there).
pub fn has_data(data: &Path) -> bool {
    [MARKER, MANIFEST, HISTORY, LIVE].iter().any(|name| data.join(name).exists())
}

/// What to do when another process holds the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Refuse: without Kafka the lock is what keeps two jobs apart, and with `--fresh` files in use would be deleted.
    Refuse,
    /// Say so and go on: with Kafka the broker sees to it that the other one can commit nothing more, and it may hang.
    TakeOver,
}

/// Who holds the lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// RFC 3339.
    started: String,
}

/// What makes a directory ours.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    job: String,
}

/// A data directory under our lock, which is held until this is dropped (or taken over, see [`Held`]).
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    storage: Storage,
    _lock: File,
}

impl DataDir {
    /// Takes the directory for this process; creates it if need be. `started` is the wall time now, µs, and only told
    /// to whoever is refused.
    ///
    /// # Errors
    /// [`DataError::Locked`] when another process has it and `held` is [`Held::Refuse`], [`DataError::Foreign`] when it
    /// holds somebody else's files under our names.
    pub fn lock(data: &Path, job: &str, started: i64, held: Held) -> Result<Self, DataError> {
        create_dir(data)?;
        if !data.join(MARKER).is_file() {
            let ours = [HISTORY, LIVE, STAGING, "progress", BINDINGS, CHECKPOINTS, MANIFEST, COMPACTED, LOCK];
            if let Some(name) = list(data)?.into_iter().find(|n| ours.contains(&n.as_str())) {
                return Err(DataError::Foreign { data: data.to_path_buf(), name });
            }
            write_json(&data.join(MARKER), &Marker { format: 1, job: job.to_string() })?;
        }
        let path = data.join(LOCK);
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).truncate(false).read(true).write(true).open(&path).at("cannot open", &path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) if held == Held::TakeOver => {
                tracing::warn!(data = %data.display(), "taking over from {}", holder(&mut file));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(DataError::Locked { data: data.to_path_buf(), holder: holder(&mut file) });
            }
            Err(std::fs::TryLockError::Error(e)) => Err(e).at("cannot lock", &path)?,
        }
        let holder = Holder { pid: std::process::id(), host: host(), started: format_rfc3339(started) };
        let text = serde_json::to_string(&holder).unwrap_or_default();
        file.set_len(0).and_then(|()| file.rewind()).at("cannot write", &path)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).at("cannot write", &path)?;
        Ok(Self { path: data.to_path_buf(), storage: Storage::from(data), _lock: file })
    }

    /// What outlives the job is in this store; the directory holds what is being worked on.
    #[must_use]
    pub fn with_store(mut self, remote: Option<Remote>) -> Self {
        self.storage = Storage::new(&self.path, remote);
        self
    }

    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Deletes what earlier runs have written here, and nothing else. Returns what was deleted, relative to the
    /// directory, in byte order.
    pub fn fresh(&self) -> Result<Vec<String>, DataError> {
        let mut deleted = Vec::new();
        // What is being compacted would be recorded as part of the new run's history.
        let Some(_compacting) = Lock::take(&self.path)? else {
            return Err(DataError::Compacting { data: self.path.clone() });
        };
        // The manifest and the progress log go first: without them the rest is not looked at, whenever this is cut off.
        // The changes of the manifest go before the progress log, so that no new run finds them.
        self.delete_generations(MANIFEST, &mut deleted)?;
        let changes = Path::new(COMPACTED).join(CHANGES);
        remove_file(&self.path.join(&changes).with_extension("tmp"))?;
        if remove_file(&self.path.join(&changes))? {
            deleted.push(changes.display().to_string());
        }
        if remove_file(&self.path.join(local::LOG))? {
            deleted.push(local::LOG.to_string());
        }
        self.delete_generations(BINDINGS, &mut deleted)?;
        for name in list(&self.path.join(BINDINGS))?.into_iter().filter(|name| is_segment(name)) {
            remove_file(&self.path.join(BINDINGS).join(&name))?;
            deleted.push(format!("{BINDINGS}/{name}"));
        }
        remove_file(&self.path.join(local::LOG).with_extension("tmp"))?;
        // As they were called before every path had a generation.
        for name in ["manifest.jsonl", "bindings/tickets.jsonl"] {
            if remove_file(&self.path.join(name))? {
                deleted.push(name.to_string());
            }
        }
        let generation = |n: &str| generation_of(n).is_some();
        let table = |n: &str| n.strip_suffix("_log").and_then(TableId::by_name).is_some();
        let topic = |n: &str| n == DEAD_LETTER || Topic::ALL.iter().any(|t| t.name() == n);
        self.delete_dirs(CHECKPOINTS, generation, &mut deleted)?;
        self.delete_dirs(HISTORY, table, &mut deleted)?;
        self.delete_dirs(COMPACTED, table, &mut deleted)?;
        self.delete_dirs(LIVE, topic, &mut deleted)?;
        self.delete_dirs(STAGING, generation, &mut deleted)?;
        for dir in ["progress", BINDINGS, MANIFEST, CHECKPOINTS, HISTORY, LIVE, STAGING] {
            // Stays when something foreign is in it.
            let _ = std::fs::remove_dir(self.path.join(dir));
        }
        sync_dir(&self.path)?;
        self.fresh_store(&mut deleted)?;
        deleted.sort();
        Ok(deleted)
    }

    /// The same in the store, in the same order.
    fn fresh_store(&self, deleted: &mut Vec<String>) -> Result<(), FileError> {
        let Some(remote) = self.storage.remote() else { return Ok(()) };
        for dir in [MANIFEST, BINDINGS, CHECKPOINTS, HISTORY, STAGING, CATALOGUE] {
            let objects: Vec<String> = remote.list(dir)?.into_iter().filter(|path| is_object(path)).collect();
            if !objects.is_empty() {
                deleted.push(format!("{}/{dir}", remote.url()));
            }
            remote.delete(objects)?;
        }
        Ok(())
    }

    fn delete_generations(&self, parent: &str, deleted: &mut Vec<String>) -> Result<(), FileError> {
        let dir = self.path.join(parent);
        for generation in generations(&dir)? {
            let path = generation_file(&dir, generation);
            remove_file(&path.with_extension("tmp"))?;
            remove_file(&path)?;
            deleted.push(format!("{parent}/g{generation}.jsonl"));
        }
        Ok(())
    }

    fn delete_dirs(
        &self,
        parent: &str,
        ours: impl Fn(&str) -> bool,
        deleted: &mut Vec<String>,
    ) -> Result<(), FileError> {
        for name in list(&self.path.join(parent))? {
            let dir = self.path.join(parent).join(&name);
            if ours(&name) && dir.is_dir() {
                std::fs::remove_dir_all(&dir).at("cannot delete", &dir)?;
                deleted.push(format!("{parent}/{name}"));
            }
        }
        Ok(())
    }
}

/// Whether a path in a store is one of ours.
fn is_object(path: &str) -> bool {
    let mut names = path.split('/');
    let (dir, name) = (names.next().unwrap_or_default(), names.next().unwrap_or_default());
    match dir {
        BINDINGS => is_segment(name),
        HISTORY => name.strip_suffix("_log").and_then(TableId::by_name).is_some(),
        _ => generation_of(name.trim_end_matches(".json")).is_some(),
    }
}

/// The generation whose directory bears this name, such as `g3`.
pub(crate) fn generation_of(name: &str) -> Option<u64> {
    name.strip_prefix('g')?.parse().ok()
}

/// The generation of a path such as `staging/g3/…`.
pub(crate) fn generation_of_path(path: &str) -> Option<u64> {
    path.split('/').nth(1).and_then(generation_of)
}

/// The generations that have a file in a directory ([`generation_file`]), ascending.
pub(crate) fn generations(dir: &Path) -> Result<Vec<u64>, FileError> {
    let number = |name: &String| name.strip_prefix('g')?.strip_suffix(".jsonl")?.parse().ok();
    let mut generations: Vec<u64> = list(dir)?.iter().filter_map(number).collect();
    generations.sort_unstable();
    Ok(generations)
}

/// `g<generation>.jsonl` in a directory.
pub(crate) fn generation_file(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("g{generation}.jsonl"))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), FileError> {
    let text = serde_json::to_string(value).unwrap_or_default();
    write_atomically(path, text.as_bytes())
}

/// What the lock's holder has written of itself.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.read_to_string(&mut text);
    match serde_json::from_str::<Holder>(&text) {
        Ok(h) if read.is_ok() => format!("process {} on {}, started {}", h.pid, h.host, h.started),
        _ => "another process".to_string(),
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    name.map_or_else(|| "this machine".to_string(), |n| n.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: PathBuf) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    #[test]
    fn a_second_start_is_refused_and_told_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        let first = DataDir::lock(&data, "j", 0, Held::Refuse).unwrap();
        let error = DataDir::lock(&data, "j", 0, Held::Refuse).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} on ", std::process::id())), "{error}");
        assert!(error.contains("started 1970-01-01T00:00:00Z"), "{error}");
        // With Kafka a holder that hangs is in nobody's way, and the next one is told of its successor.
        let second = DataDir::lock(&data, "j", 1_000_000, Held::TakeOver).unwrap();
        let error = DataDir::lock(&data, "j", 0, Held::Refuse).unwrap_err().to_string();
        assert!(error.contains("started 1970-01-01T00:00:01Z"), "{error}");
        drop((first, second));
        DataDir::lock(&data, "j", 0, Held::Refuse).unwrap();
    }

    #[test]
    fn foreign_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path().join("history/notes.txt"));
        assert!(
            matches!(DataDir::lock(dir.path(), "j", 0, Held::Refuse), Err(DataError::Foreign { name, .. }) if name == "history")
        );
        assert_eq!(list(dir.path()).unwrap(), ["history"]);
    }

    #[test]
    fn fresh_deletes_ours_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap();
        let ours = [
            "history/trips_log/date=2026-01-01/g1-1-1-0.parquet",
            "live/dead_letter/0000000001.jsonl",
            "staging/g3/x",
            "checkpoints/g3/x-0-1-0.ckpt",
            "manifest/g3.jsonl",
            "compacted/log.jsonl",
            "compacted/trips_log/date=2026-01-01/c1-1-1-0.parquet",
            "manifest.jsonl",
            "progress/log.jsonl",
            "bindings/g2.jsonl",
            "bindings/g10.jsonl",
            "bindings/g2-0-17.jsonl.zst",
            "bindings/tickets.jsonl",
        ];
        let foreign = [
            "readme.txt",
            "history/mine/a.parquet",
            "history/trips.csv",
            "live/other/x",
            "staging/x",
            "checkpoints/x",
            "bindings/mine.jsonl",
            "more/y",
        ];
        ours.iter().chain(&foreign).for_each(|f| touch(dir.path().join(f)));
        let deleted = data.fresh().unwrap();
        assert_eq!(
            deleted,
            [
                "bindings/g10.jsonl",
                "bindings/g2-0-17.jsonl.zst",
                "bindings/g2.jsonl",
                "bindings/tickets.jsonl",
                "checkpoints/g3",
                "compacted/log.jsonl",
                "compacted/trips_log",
                "history/trips_log",
                "live/dead_letter",
                "manifest.jsonl",
                "manifest/g3.jsonl",
                "progress/log.jsonl",
                "staging/g3"
            ]
        );
        assert!(ours.iter().all(|f| !dir.path().join(f).exists()));
        assert!(foreign.iter().all(|f| dir.path().join(f).exists()));
        assert!(!dir.path().join("progress").exists());
    }
}
