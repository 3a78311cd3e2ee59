//! What of the history is published: for `drivetrain sql`, while the job runs and after.
//!
//! `<data>/manifest.jsonl` gets one checked line each time that files have been published, after they have got their
//! final names; so every file that it names exists. `<data>/bindings/tickets.jsonl` gets the tickets of committed
//! epochs, one JSON object a line: it knows each epoch's wall time, and `replay --bindings` reads it.

use crate::files::{At, FileError, create_dir};
use crate::message::Ticket;
use crate::progress::FileEntry;
use crate::progress::data::{BINDINGS, MANIFEST};
use crate::progress::lines::{self, Appender};
use crate::progress::local;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

/// The published history at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub generation: u64,
    /// The newest committed epoch that is known here; -1 before the first.
    pub committed_epoch: i64,
    /// The history is whole up to this epoch: all rows up to it are in `files`. Rows beyond it may be there in part.
    /// -1 before the first.
    pub history_epoch: i64,
    pub files: Vec<FileEntry>,
    /// The run ended by itself: nothing more is to come.
    pub end: bool,
}

/// One line of the manifest: what one publication added.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Publication {
    pub(crate) generation: u64,
    pub(crate) committed_epoch: i64,
    pub(crate) history_epoch: i64,
    pub(crate) files: Vec<FileEntry>,
    #[serde(default)]
    pub(crate) end: bool,
}

/// Reads the manifest of a data directory. An empty one when nothing was published yet.
///
/// # Errors
/// When a file cannot be read. A damaged end is left out.
pub fn manifest(data: &Path) -> Result<Manifest, FileError> {
    let mut manifest = Manifest { committed_epoch: -1, history_epoch: -1, ..Manifest::default() };
    lines::scan(&data.join(MANIFEST), |json| {
        if let Ok(line) = serde_json::from_str::<Publication>(json) {
            manifest.generation = line.generation;
            manifest.committed_epoch = line.committed_epoch;
            manifest.history_epoch = line.history_epoch;
            manifest.files.extend(line.files);
            manifest.end = line.end;
        }
    })?;
    if let Ok(Some(epoch)) = local::committed_epoch(data) {
        manifest.committed_epoch = manifest.committed_epoch.max(epoch);
    }
    Ok(manifest)
}

/// The wall time (µs) of each committed epoch, by epoch: for `--as-of TIME`.
pub fn wall_times(data: &Path) -> Result<BTreeMap<i64, i64>, FileError> {
    /// The part of a ticket that is wanted.
    #[derive(Deserialize)]
    struct Wall {
        epoch: i64,
        wall: i64,
    }
    let mut walls = BTreeMap::new();
    each_line(&data.join(BINDINGS), |line| {
        if let Ok(Wall { epoch, wall }) = serde_json::from_str(line) {
            walls.insert(epoch, wall);
        }
    })?;
    Ok(walls)
}

/// The newest epoch whose wall time is at or before `wall` (µs); `None` when all are later.
pub fn epoch_at(data: &Path, wall: i64) -> Result<Option<i64>, FileError> {
    Ok(wall_times(data)?.into_iter().rev().find(|(_, w)| *w <= wall).map(|(epoch, _)| epoch))
}

fn each_line(path: &Path, mut each: impl FnMut(&str)) -> Result<(), FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).at("cannot open", path),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut line = String::new();
    while reader.read_line(&mut line).at("cannot read", path)? > 0 {
        each(line.trim_end());
        line.clear();
    }
    Ok(())
}

/// Writes the manifest and the bindings of a running job.
#[derive(Debug)]
pub(crate) struct ManifestWriter {
    manifest: Appender,
    bindings: File,
    bindings_path: std::path::PathBuf,
}

impl ManifestWriter {
    pub(crate) fn open(data: &Path) -> Result<Self, FileError> {
        let manifest_path = data.join(MANIFEST);
        let scan = lines::scan(&manifest_path, |_| {})?;
        let bindings_path = data.join(BINDINGS);
        if let Some(dir) = bindings_path.parent() {
            create_dir(dir)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let bindings = options.create(true).append(true).open(&bindings_path).at("cannot open", &bindings_path)?;
        Ok(Self { manifest: Appender::open(&manifest_path, scan.good)?, bindings, bindings_path })
    }

    /// Adds a publication, durable: its files count from now on.
    pub(crate) fn publish(&mut self, publication: &Publication) -> Result<(), FileError> {
        let json = serde_json::to_string(publication).unwrap_or_default();
        self.manifest.append(&lines::line(&json))?;
        self.manifest.sync()
    }

    /// Adds committed tickets. Not synced: the progress log has them too.
    pub(crate) fn bind(&mut self, tickets: &[Ticket]) -> Result<(), FileError> {
        let mut text = String::new();
        for ticket in tickets {
            text.push_str(&serde_json::to_string(ticket).unwrap_or_default());
            text.push('\n');
        }
        self.bindings.write_all(text.as_bytes()).at("cannot write", &self.bindings_path)
    }

    pub(crate) fn sync(&mut self) -> Result<(), FileError> {
        self.bindings.sync_data().at("cannot sync", &self.bindings_path)
    }
}
