//! What of the history is published, and which input each epoch had: for `drivetrain sql`, `replay --bindings` and a
//! restart, while the job runs and after.
//!
//! ```text
//! <data>/manifest/g<n>.jsonl   checked lines. The first: everything published when generation n began; then one for each
//!                              commit that published files, after they have got their final names; now and then all of
//!                              them become one line
//! <data>/bindings/g<n>.jsonl   the tickets of committed epochs, one JSON object a line; older ones in compressed
//!                              segments beside it, as long as `history.bindings` says
//! ```
//!
//! A store cannot append: there each publication is an object ([`objects`]), and the rest of this holds alike.
//!
//! Readers take the manifest of the highest generation: a start writes everything anew under its own, and renames it into
//! place when it is whole. Of bindings they take all generations; of an epoch that several have, the highest one's. So
//! what an instance still writes that was overtaken is read by nobody, or says what its successor says.
//!
//! What [`crate::housekeeping`] has replaced or taken away since stands in its own log, which readers read first
//! ([`crate::housekeeping::log`]); a start takes it into the manifest that it writes.
//!
//! Every file that a manifest and that log name exists. A commit's tickets and files are here, durable, before the progress log is
//! trimmed of it.

mod bindings;
mod objects;
mod writer;

pub(crate) use bindings::is_segment;
use bindings::{Bindings, Wall, each_line_near, each_line_of_all, wall};
pub(crate) use writer::{ManifestWriter, Publication};

use crate::files::FileError;
use crate::housekeeping::Expired;
use crate::housekeeping::log::Log;
use crate::message::Ticket;
use crate::progress::FileEntry;
use crate::progress::data::{MANIFEST, generation_file, generations};
use crate::progress::{lines, local};
use crate::store::Storage;
use drivetrain_schemas::reading::Origin;
use drivetrain_schemas::table::TableId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The published history at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// 0: there is no manifest.
    pub generation: u64,
    /// The newest commit whose files are here ([`crate::progress::ProgressRecord::commit`]).
    pub commit: u64,
    /// The newest committed epoch that is known here; -1 before the first.
    pub committed_epoch: i64,
    /// The history is whole up to this epoch: all rows up to it are in `files`. Rows beyond it may be there in part.
    /// -1 before the first.
    pub history_epoch: i64,
    pub files: Vec<FileEntry>,
    /// The input ended by itself: nothing more is to come.
    pub end: bool,
    /// The past before this epoch is not known any more: changes up to it that cancelled each other are gone. -1: all of
    /// it is known.
    pub oldest_epoch: i64,
    /// What retention has taken away. `files` has none of it.
    pub expired: BTreeMap<TableId, Expired>,
}

/// How often a reader begins anew because a start took its manifest away.
const ATTEMPTS: usize = 16;

/// Reads the manifest of a data directory or a store. An empty one when there is none.
///
/// # Errors
/// When a file cannot be read or is damaged before its end. A torn end is left out.
pub fn manifest(storage: impl Into<Storage>) -> Result<Manifest, FileError> {
    let storage = storage.into();
    if let Some(remote) = storage.remote() {
        return objects::named(remote);
    }
    let data = storage.local();
    let (mut manifest, log) = settled(data)?;
    manifest.files.retain(|file| !log.kept.is_expired(file));
    manifest.oldest_epoch = log.kept.oldest;
    manifest.expired = log.kept.expired;
    if let Ok(Some(epoch)) = local::committed_epoch(data) {
        manifest.committed_epoch = manifest.committed_epoch.max(epoch);
    }
    Ok(manifest)
}

/// All files that are published, those of expired days included, for a start.
pub(crate) fn published(storage: impl Into<Storage>) -> Result<Manifest, FileError> {
    let storage = storage.into();
    match storage.remote() {
        Some(remote) => objects::named(remote),
        None => settled(storage.local()).map(|(manifest, _log)| manifest),
    }
}

/// The manifest of a data directory with what housekeeping has made of its files, and housekeeping's log: it is read first.
fn settled(data: &Path) -> Result<(Manifest, Log), FileError> {
    let log = Log::read(data)?;
    let mut manifest = named(data)?;
    log.apply(&mut manifest.files);
    Ok((manifest, log))
}

fn nothing() -> Manifest {
    Manifest { committed_epoch: -1, history_epoch: -1, oldest_epoch: -1, ..Manifest::default() }
}

/// What the manifest of a data directory says by itself.
pub(crate) fn named(data: &Path) -> Result<Manifest, FileError> {
    let dir = data.join(MANIFEST);
    for _ in 0..ATTEMPTS {
        let Some(newest) = generations(&dir)?.pop() else { return Ok(nothing()) };
        let path = generation_file(&dir, newest);
        let mut manifest = nothing();
        let (mut number, mut wrong) = (0u64, None);
        let scan = lines::scan(&path, |json| {
            number += 1;
            match serde_json::from_str::<Publication>(json) {
                Ok(line) => line.add_to(&mut manifest),
                Err(_) => _ = wrong.get_or_insert(number),
            }
        })?;
        if let Some(line) = wrong.or(scan.damaged.map(|(line, _)| line)) {
            return Err(damaged(&path, line));
        }
        if number > 0 {
            return Ok(manifest);
        }
        if path.exists() {
            return Err(damaged(&path, 1));
        }
    }
    Err(damaged(&dir, 1))
}

fn damaged(path: &Path, line: u64) -> FileError {
    let problem = format!("line {line} is damaged; restore the file from a backup, or start over with --fresh");
    let source = std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
    FileError { action: "cannot use", path: path.to_path_buf(), source }
}

/// Folds (epoch, wall time) of all bindings.
fn each_wall<S>(storage: &Storage, state: S, step: impl Fn(&mut S, (i64, i64))) -> Result<S, FileError> {
    let mut state = state;
    each_line_of_all(&Bindings::of(storage), |line| {
        if let Some(Wall { epoch, wall }) = wall(line) {
            step(&mut state, (epoch, wall));
        }
    })?;
    Ok(state)
}

/// The epoch that ended at least `span` µs before the newest, by their wall times: the oldest that `--as-of TIME` gives
/// for any time within the span. `None` when there is none. Memory does not depend on how many epochs there are.
pub(crate) fn epoch_before(data: &Path, span: i64) -> Result<Option<i64>, FileError> {
    let data = &Storage::from(data);
    let newest = each_wall(data, None, |newest: &mut Option<(i64, i64)>, line| *newest = (*newest).max(Some(line)))?;
    let Some((_, wall)) = newest else { return Ok(None) };
    let until = wall.saturating_sub(span);
    each_wall(data, None, |found: &mut Option<i64>, (epoch, wall)| {
        if wall <= until {
            *found = (*found).max(Some(epoch));
        }
    })
}

/// The newest epoch whose wall time is at or before `wall` (µs); `None` when all are later. Where the clock was set back,
/// the last epoch counts.
pub fn epoch_at(storage: impl Into<Storage>, wall: i64) -> Result<Option<i64>, FileError> {
    let mut found = None;
    each_line_near(&Bindings::of(&storage.into()), wall, |line| {
        if let Some(line) = bindings::wall(line).filter(|line| line.wall <= wall) {
            found = found.max(Some(line.epoch));
        }
    })?;
    Ok(found)
}

/// The wall time (µs) of an epoch, or of the first one that is recorded.
pub fn wall_of(storage: impl Into<Storage>, epoch: Option<i64>) -> Result<Option<i64>, FileError> {
    let first = each_wall(&storage.into(), None, |first: &mut Option<(i64, i64)>, line| {
        if epoch.is_none_or(|epoch| epoch == line.0) && first.is_none_or(|held| line.0 <= held.0) {
            *first = Some(line);
        }
    })?;
    Ok(first.map(|(_, wall)| wall))
}

/// The tickets of a directory of bindings (`<data>/bindings`), by epoch. Lines that are no tickets, such as one that a
/// crash has torn, are left out: an epoch that is missing for it is found by its number.
pub fn bindings(dir: &Path) -> Result<BTreeMap<i64, Ticket>, FileError> {
    let (mut tickets, mut shared) = (BTreeMap::new(), Shared::default());
    each_line_of_all(&Bindings::Disk(dir.to_path_buf()), |line| {
        if let Ok(mut ticket) = serde_json::from_str::<Ticket>(line) {
            shared.share(&mut ticket);
            tickets.insert(ticket.epoch, ticket);
        }
    })?;
    Ok(tickets)
}

/// The origins of many tickets, each once in memory.
#[derive(Debug, Default)]
pub struct Shared {
    origins: BTreeSet<Arc<Origin>>,
}

impl Shared {
    /// Replaces the ticket's origins by those that are known.
    pub fn share(&mut self, ticket: &mut Ticket) {
        let bound = ticket.bindings.iter_mut().map(|binding| &mut binding.origin);
        for origin in bound.chain(&mut ticket.idle) {
            match self.origins.get(origin) {
                Some(known) => origin.clone_from(known),
                None => _ = self.origins.insert(origin.clone()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Binding;
    use crate::progress::data::BINDINGS;
    use drivetrain_schemas::table::TableId;

    fn file(name: &str) -> FileEntry {
        let (table, path, checksum) = (TableId::Trips, format!("history/trips_log/{name}"), String::new());
        FileEntry { table, path, rows: 1, bytes: 1, retractions: 0, min_epoch: 0, max_epoch: 0, checksum }
    }

    fn publication(generation: u64, commit: u64, names: &[&str]) -> Publication {
        let files = names.iter().map(|n| file(n)).collect();
        let epoch = commit as i64;
        Publication { format: 2, generation, commit, committed_epoch: epoch, history_epoch: epoch, files, end: false }
    }

    fn names(data: &Path) -> Vec<String> {
        let name = |f: FileEntry| f.path.rsplit('/').next().unwrap().to_string();
        manifest(data).unwrap().files.into_iter().map(name).collect()
    }

    fn ticket(epoch: i64, wall: i64) -> Ticket {
        Ticket { epoch, wall, ..Ticket::default() }
    }

    #[test]
    fn the_highest_generation_counts_whatever_older_ones_still_write() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        assert_eq!(manifest(data).unwrap().generation, 0);
        ManifestWriter::begin(data, 1, &publication(1, 0, &[]), &[]).unwrap();
        let mut first = ManifestWriter::open(data, 1, i64::MAX).unwrap();
        first.publish(&publication(1, 1, &["a", "b"])).unwrap();
        first.publish(&publication(1, 2, &["c"])).unwrap();
        assert_eq!(names(data), ["a", "b", "c"]);
        ManifestWriter::begin(data, 2, &publication(2, 3, &["a", "b", "c", "d"]), &[]).unwrap();
        first.publish(&publication(1, 3, &["d"])).unwrap();
        first.publish(&publication(1, 4, &["wrong"])).unwrap();
        assert_eq!(names(data), ["a", "b", "c", "d"]);
        assert_eq!((manifest(data).unwrap().generation, manifest(data).unwrap().commit), (2, 3));
        // Two are kept, for readers that have just begun.
        std::fs::write(data.join("manifest/g2.tmp"), "unfinished").unwrap();
        ManifestWriter::begin(data, 3, &publication(3, 3, &["a"]), &[]).unwrap();
        assert_eq!(crate::files::list(&data.join(MANIFEST)).unwrap(), ["g2.jsonl", "g3.jsonl"]);
        first.publish(&publication(1, 5, &["wrong"])).unwrap();
        assert_eq!(names(data), ["a"]);
    }

    #[test]
    fn a_long_manifest_becomes_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        ManifestWriter::begin(data, 1, &publication(1, 0, &[]), &[]).unwrap();
        let mut writer = ManifestWriter::open(data, 1, i64::MAX).unwrap();
        let path = data.join("manifest/g1.jsonl");
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
        let counts: Vec<usize> = (1..8)
            .map(|commit| {
                writer.publish(&publication(1, commit, &[&format!("f{commit}")])).unwrap();
                assert_eq!((names(data).len() as u64, manifest(data).unwrap().commit), (commit, commit));
                lines()
            })
            .collect();
        assert_eq!(counts, [2, 3, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn a_torn_end_is_left_out_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        ManifestWriter::begin(data, 1, &publication(1, 0, &["a"]), &[]).unwrap();
        ManifestWriter::open(data, 1, i64::MAX).unwrap().publish(&publication(1, 1, &["b"])).unwrap();
        let path = data.join("manifest/g1.jsonl");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(names(data), ["a"]);
        let mut bytes = whole.clone();
        bytes[20] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let error = manifest(data).unwrap_err().to_string();
        assert!(error.contains("g1.jsonl: line 1 is damaged") && error.contains("--fresh"), "{error}");
        std::fs::write(&path, "").unwrap();
        assert!(manifest(data).is_err(), "an empty one is not the same as none");
    }

    #[test]
    fn origins_of_bindings_are_in_memory_once() {
        let dir = tempfile::tempdir().unwrap();
        ManifestWriter::begin(dir.path(), 1, &publication(1, 0, &[]), &[]).unwrap();
        let origin = |partition| Arc::new(Origin { source: "s".into(), name: "t".into(), partition });
        let bound = |epoch| {
            let binding = Binding { origin: origin(0), topic_id: None, start: None, end: epoch, clock: None };
            Ticket { bindings: vec![binding], idle: vec![origin(0), origin(1)], ..ticket(epoch, epoch) }
        };
        let written: Vec<Ticket> = (0..3).map(bound).collect();
        ManifestWriter::open(dir.path(), 1, i64::MAX).unwrap().bind(&written).unwrap();
        let read: Vec<Ticket> = bindings(&dir.path().join(BINDINGS)).unwrap().into_values().collect();
        assert_eq!(read, written);
        let first = &read[0];
        assert!(read.iter().all(|t| Arc::ptr_eq(&t.bindings[0].origin, &first.bindings[0].origin)));
        assert!(read.iter().all(|t| Arc::ptr_eq(&t.idle[0], &first.bindings[0].origin)));
        assert!(read.iter().all(|t| Arc::ptr_eq(&t.idle[1], &first.idle[1])));
    }

    #[test]
    fn bindings_of_all_generations_are_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        ManifestWriter::begin(data, 1, &publication(1, 0, &[]), &[]).unwrap();
        let mut first = ManifestWriter::open(data, 1, i64::MAX).unwrap();
        first.bind(&[ticket(0, 10), ticket(1, 20), ticket(2, 30)]).unwrap();
        // The third line is torn; the successor had it from the progress log.
        let path = data.join("bindings/g1.jsonl");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        ManifestWriter::begin(data, 10, &publication(10, 0, &[]), &[ticket(1, 20), ticket(2, 30)]).unwrap();
        ManifestWriter::open(data, 10, i64::MAX).unwrap().bind(&[ticket(3, 40)]).unwrap();
        let tickets = bindings(&data.join(BINDINGS)).unwrap();
        assert_eq!(
            tickets.into_values().collect::<Vec<_>>(),
            (0..4).map(|e| ticket(e, e * 10 + 10)).collect::<Vec<_>>()
        );
        assert_eq!((wall_of(data, Some(2)).unwrap(), wall_of(data, None).unwrap()), (Some(30), Some(10)));
        assert_eq!((epoch_at(data, 39).unwrap(), epoch_at(data, 9).unwrap()), (Some(2), None));
    }
}
