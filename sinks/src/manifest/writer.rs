//! Writes the manifest and the bindings of one generation: on a disk here, on a store by [`super::objects`].

use super::bindings::{BindingsWriter, text};
use super::objects::{self, ObjectBindings, ObjectManifest};
use super::{Manifest, published};
use crate::failpoint;
use crate::files::{At, FileError, create_dir, list, remove_file, sync_dir};
use crate::message::Ticket;
use crate::progress::data::{BINDINGS, MANIFEST, generation_file, generations};
use crate::progress::lines::{self, Appender};
use crate::progress::{FORMAT, FileEntry};
use crate::store::Storage;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line of the manifest: what one publication added, or (the first) everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Publication {
    /// [`crate::progress::FORMAT`].
    #[serde(default)]
    pub(crate) format: u32,
    pub(crate) generation: u64,
    #[serde(default)]
    pub(crate) commit: u64,
    pub(crate) committed_epoch: i64,
    pub(crate) history_epoch: i64,
    pub(crate) files: Vec<FileEntry>,
    #[serde(default)]
    pub(crate) end: bool,
}

impl Publication {
    pub(super) fn add_to(self, manifest: &mut Manifest) {
        manifest.generation = self.generation;
        manifest.commit = self.commit;
        manifest.committed_epoch = self.committed_epoch;
        manifest.history_epoch = self.history_epoch;
        manifest.files.extend(self.files);
        manifest.end = self.end;
    }

    /// All of a manifest.
    pub(super) fn whole(manifest: Manifest) -> Self {
        let Manifest { generation, commit, committed_epoch, history_epoch, files, end, .. } = manifest;
        Self { format: FORMAT, generation, commit, committed_epoch, history_epoch, files, end }
    }

    pub(super) fn line(&self) -> String {
        lines::line(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// Publications after which the manifest is written anew in one line, with what housekeeping has replaced left out: it
/// grows with the files that there are, not with those that there were.
const REWRITE: u64 = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) enum ManifestWriter {
    Disk(DiskWriter),
    Store(ObjectManifest, ObjectBindings),
}

impl ManifestWriter {
    /// Begins a generation: its bindings with these tickets, and then its manifest, which counts from then on.
    pub(crate) fn begin(
        storage: impl Into<Storage>,
        generation: u64,
        whole: &Publication,
        tickets: &[Ticket],
    ) -> Result<(), FileError> {
        let storage = storage.into();
        match storage.remote() {
            None => DiskWriter::begin(storage.local(), generation, whole, tickets),
            Some(remote) => objects::begin(remote, generation, whole, tickets),
        }
    }

    /// Opens the files of a generation that has begun.
    /// `keep`: how long tickets are kept, µs.
    pub(crate) fn open(storage: impl Into<Storage>, generation: u64, keep: i64) -> Result<Self, FileError> {
        let storage = storage.into();
        let Some(remote) = storage.remote() else {
            return DiskWriter::open(storage.local(), generation, keep).map(ManifestWriter::Disk);
        };
        let manifest = ObjectManifest::open(remote.clone(), generation)?;
        Ok(ManifestWriter::Store(manifest, ObjectBindings::open(remote.clone(), generation, keep)?))
    }

    /// Adds a publication, durable: its files count from now on.
    pub(crate) fn publish(&mut self, publication: &Publication) -> Result<(), FileError> {
        match self {
            ManifestWriter::Disk(disk) => disk.publish(publication),
            ManifestWriter::Store(manifest, bindings) => {
                // When an epoch ended is known to whoever sees its rows.
                bindings.sync()?;
                manifest.publish(publication)
            }
        }
    }

    /// Adds committed tickets. Not durable: the progress log has them too, until it is trimmed.
    pub(crate) fn bind(&mut self, tickets: &[Ticket]) -> Result<(), FileError> {
        match self {
            ManifestWriter::Disk(disk) => disk.bindings.add(tickets),
            ManifestWriter::Store(_, bindings) => bindings.add(tickets),
        }
    }

    /// Makes the tickets durable.
    pub(crate) fn sync(&mut self) -> Result<(), FileError> {
        match self {
            ManifestWriter::Disk(disk) => disk.bindings.sync(),
            ManifestWriter::Store(_, bindings) => bindings.sync(),
        }
    }
}

/// On a disk.
#[derive(Debug)]
pub(crate) struct DiskWriter {
    data: PathBuf,
    generation: u64,
    manifest: Appender,
    /// Lines of the manifest.
    lines: u64,
    bindings: BindingsWriter,
}

impl DiskWriter {
    fn begin(data: &Path, generation: u64, whole: &Publication, tickets: &[Ticket]) -> Result<(), FileError> {
        let dir = data.join(BINDINGS);
        create_dir(&dir)?;
        let path = generation_file(&dir, generation);
        let mut file = File::create(&path).at("cannot create", &path)?;
        file.write_all(text(tickets).as_bytes()).and_then(|()| file.sync_all()).at("cannot write", &path)?;
        sync_dir(&dir)?;
        failpoint::hit("recovery.bindings")?;
        let dir = data.join(MANIFEST);
        create_dir(&dir)?;
        Appender::replace(&generation_file(&dir, generation), whole.line().as_bytes(), "recovery.manifest")?;
        // The one before is kept for readers that have just begun with it.
        let older: Vec<u64> = generations(&dir)?.into_iter().filter(|g| *g < generation).collect();
        for generation in older.iter().rev().skip(1) {
            remove_file(&generation_file(&dir, *generation))?;
        }
        // What a crash before the renaming has left.
        let unfinished = |name: &str| name.strip_prefix('g')?.strip_suffix(".tmp")?.parse().ok();
        for name in list(&dir)?.iter().filter(|n| unfinished(n).is_some_and(|g: u64| g < generation)) {
            remove_file(&dir.join(name))?;
        }
        Ok(())
    }

    fn open(data: &Path, generation: u64, keep: i64) -> Result<Self, FileError> {
        let path = generation_file(&data.join(MANIFEST), generation);
        let mut lines = 0;
        let good = lines::scan(&path, |_| lines += 1)?.good;
        let bindings = BindingsWriter::open(&data.join(BINDINGS), generation, keep)?;
        let manifest = Appender::open(&path, good)?;
        Ok(Self { data: data.to_path_buf(), generation, manifest, lines, bindings })
    }

    fn publish(&mut self, publication: &Publication) -> Result<(), FileError> {
        self.manifest.append(&publication.line())?;
        self.manifest.sync()?;
        self.lines += 1;
        if self.lines > failpoint::threshold(REWRITE, 3) { self.rewrite() } else { Ok(()) }
    }

    /// Writes everything into one line; a reader sees the old manifest or the new one, which say the same.
    fn rewrite(&mut self) -> Result<(), FileError> {
        let whole = match published(&self.data) {
            // A successor's counts.
            Ok(manifest) if manifest.generation != self.generation => return Ok(()),
            Ok(manifest) => Publication::whole(manifest),
            // It is whole as it is; whoever compacts is told.
            Err(error) => {
                tracing::warn!(%error, "the manifest is not written anew");
                return Ok(());
            }
        };
        let path = generation_file(&self.data.join(MANIFEST), self.generation);
        self.manifest = Appender::replace(&path, whole.line().as_bytes(), "manifest.rewrite")?;
        self.lines = 1;
        Ok(())
    }
}
