//! Small tools for files that must survive a crash.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// An operation on a file failed. Fatal: the disk is full, gone or not ours.
#[derive(Debug, Error)]
#[error("{action} {path}: {source}{}", remedy(source))]
pub struct FileError {
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl FileError {
    /// Whether trying again may help without anybody's doing: room on a disk comes and goes, and so do stores.
    pub fn is_retryable(&self) -> bool {
        use io::ErrorKind::{Interrupted, QuotaExceeded, ResourceBusy, StorageFull, TimedOut};
        [StorageFull, QuotaExceeded, Interrupted, TimedOut, ResourceBusy].contains(&self.source.kind())
    }
}

/// What helps against an error of the disk. A store's error says it itself.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if crate::store::is_of_store(error) => "",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". Make room there, or put the data directory on a larger disk; then start again: nothing is lost"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ". Let the user that runs drivetrain read and write there; then start again: nothing is lost"
        }
        io::ErrorKind::CrossesDevices => {
            ". All of the data directory must be on one file system: move it there, and start again: nothing is lost"
        }
        io::ErrorKind::AlreadyExists => {
            ". Another process writes there under our generation; stop it and start again: nothing is lost"
        }
        _ => "",
    }
}

/// Adds to an error what was done to which file.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, FileError> {
        self.map_err(|source| FileError { action, path: path.to_path_buf(), source })
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|d| d.sync_all()).at("cannot sync the directory", dir)
}

/// Creates a directory with its parents and makes their names durable.
pub(crate) fn create_dir(dir: &Path) -> Result<(), FileError> {
    // An empty parent can be deleted by another process before the directory is in it; seldom, and hardly ever twice.
    for _ in 0..3 {
        match try_create_dir(dir) {
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    try_create_dir(dir)
}

fn try_create_dir(dir: &Path) -> Result<(), FileError> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent()
        && !parent.as_os_str().is_empty()
    {
        try_create_dir(parent)?;
    }
    match std::fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).at("cannot create the directory", dir)?,
        _ => {}
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Writes a file under another name, durable, then gives it its own: a reader sees the old one or the new one.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    use std::io::Write;
    let tmp = path.with_extension("tmp");
    let mut file = File::create(&tmp).at("cannot create", &tmp)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).at("cannot write", &tmp)?;
    std::fs::rename(&tmp, path).at("cannot rename to", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file that may be gone already.
pub(crate) fn remove_file(path: &Path) -> Result<bool, FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).at("cannot delete", path),
    }
}

/// The names in a directory, in byte order; none when it does not exist.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>, FileError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e).at("cannot list", dir),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.at("cannot list", dir)?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
