//! Where files are, and all that is done to them: the one room to change for another kind of storage.
//!
//! ```text
//!                  written, durable          the change holds           settled (grace time later)      + grace time
//!  new files       compacted/… ───────────── compacted/… ─────────────── history/… and compacted/… ──── history/…
//!  replaced files  history/… ─────────────── history/… ───────────────── deleted
//!  sql reads       replaced files            new files ────────────────────────────────────────────────────────►
//!  a listing       replaced files ────────────────────────────────────── new files ────────────────────────────►
//! ```
//!
//! A reader that has chosen a path keeps it for the grace time, whichever of the two it is.

use super::HousekeepingError;
use super::log::{COMPACTED, Change, LOG, Log};
use crate::failpoint;
use crate::files::{At, FileError, create_dir, list, remove_file, sync_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Held by a process that does the housekeeping, and by `--fresh`.
const LOCK: &str = "lock";

/// The lock, held until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; `None` when another process has it.
    pub(crate) fn take(data: &Path) -> Result<Option<Self>, FileError> {
        let dir = data.join(COMPACTED);
        create_dir(&dir)?;
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(&path).at("cannot open", &path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(e)) => Err(e).at("cannot lock", &path)?,
        }
    }
}

/// Where a file of the manifest lies now; `path` is its [`crate::progress::FileEntry::path`].
pub fn locate(data: &Path, path: &str) -> PathBuf {
    let published = data.join(path);
    if published.exists() {
        return published;
    }
    let aside = aside(data, path);
    // Neither: the published name is what an error should name.
    if aside.exists() { aside } else { published }
}

/// Where a new file lies until it is settled.
fn aside(data: &Path, path: &str) -> PathBuf {
    data.join(COMPACTED).join(path.strip_prefix("history/").unwrap_or(path))
}

/// Refuses a file that is not what was published: its rows would be written anew with a good checksum.
pub(super) fn verify(data: &Path, path: &str, checksum: &str) -> Result<(), HousekeepingError> {
    let place = locate(data, path);
    let mut file = File::open(&place).at("cannot open", &place)?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).at("cannot read", &place)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found = format!("{:016x}", hash.digest());
    if checksum.is_empty() || checksum == found {
        return Ok(());
    }
    Err(HousekeepingError::Damaged { path: place, expected: checksum.to_string(), found })
}

/// Gives what a change adds its final names and deletes what it removes. May be repeated after a crash.
pub(super) fn settle(data: &Path, change: &Change) -> Result<u64, FileError> {
    let mut dirs = BTreeSet::new();
    for file in &change.added {
        let (published, aside) = (data.join(&file.path), aside(data, &file.path));
        if let Some(dir) = published.parent() {
            create_dir(dir)?;
            dirs.insert(dir.to_path_buf());
        }
        link(&aside, &published)?;
        failpoint::hit("housekeeping.linked")?;
    }
    let mut bytes = 0;
    for path in &change.removed {
        let (published, aside) = (data.join(path), aside(data, path));
        bytes += std::fs::metadata(&published).map_or(0, |m| m.len());
        remove_file(&aside)?;
        remove_file(&published)?;
        dirs.extend(published.parent().map(Path::to_path_buf));
        failpoint::hit("housekeeping.deleted")?;
    }
    dirs.iter().filter(|d| d.is_dir()).try_for_each(|d| sync_dir(d))?;
    Ok(bytes)
}

/// A second name for a file; a copy where the file system has no such thing.
fn link(from: &Path, to: &Path) -> Result<(), FileError> {
    match std::fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // A crash came after a later change had removed it again.
        Err(e) if e.kind() == ErrorKind::NotFound => Err(e).at("cannot publish", from),
        Err(_) => {
            let tmp = to.with_extension("parquet.tmp");
            std::fs::copy(from, &tmp).at("cannot copy to", &tmp)?;
            File::open(&tmp).and_then(|f| f.sync_all()).at("cannot write", &tmp)?;
            std::fs::rename(&tmp, to).at("cannot rename to", to)
        }
    }
}

/// Deletes what lies aside and is needed no more: files that no change names (a crash has left them), and the second
/// names of those settled before `settled_before` (µs).
pub(super) fn sweep(data: &Path, log: &Log, settled_before: i64) -> Result<u64, FileError> {
    let owners: BTreeMap<PathBuf, u64> =
        log.changes.iter().flat_map(|c| c.added.iter().map(|f| (aside(data, &f.path), c.number))).collect();
    let stays = |path: &Path| match owners.get(path) {
        None => false,
        Some(number) => log.settled.get(number).is_none_or(|at| *at > settled_before),
    };
    let root = data.join(COMPACTED);
    let mut deleted = 0;
    for name in list(&root)?.iter().filter(|n| ![LOCK, LOG].contains(&n.as_str())) {
        sweep_below(&root.join(name), &stays, &mut deleted)?;
    }
    Ok(deleted)
}

fn sweep_below(path: &Path, stays: &impl Fn(&Path) -> bool, deleted: &mut u64) -> Result<(), FileError> {
    if !path.is_dir() {
        if !stays(path) && remove_file(path)? {
            *deleted += 1;
            failpoint::hit("housekeeping.swept")?;
        }
        return Ok(());
    }
    for name in list(path)? {
        sweep_below(&path.join(name), stays, deleted)?;
    }
    // Stays when something is in it.
    let _ = std::fs::remove_dir(path);
    Ok(())
}
