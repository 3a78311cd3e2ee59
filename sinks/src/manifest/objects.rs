//! The manifest and the bindings on a store, which cannot append.
//!
//! ```text
//! manifest/g<n>/<number>-whole.json.zst   everything published so far; number 0 when generation n began
//! manifest/g<n>/<number>.json             what one publication added; the numbers have no gap
//! bindings/g<n>-<k>-<last wall>.jsonl.zst tickets, as on a disk; a later k may hold what an earlier one holds, which goes then
//! ```
//!
//! Each is a checked line ([`lines`]), or tickets as lines. Objects are created, never overwritten, and an older one is deleted
//! after a newer one says the same. So a reader lists, takes the highest generation from its last whole object on, and lists
//! again when an object that was listed is gone: it sees the manifest as it was at one instant, at or after the first listing.

use super::bindings::{Segment, segments_of, text};
use super::writer::Publication;
use super::{ATTEMPTS, Manifest, damaged, nothing};
use crate::failpoint;
use crate::files::{At, FileError};
use crate::message::Ticket;
use crate::progress::data::{BINDINGS, MANIFEST};
use crate::progress::lines;
use crate::store::Remote;
use std::path::Path;

/// Publications after which everything is written into one object.
const REWRITE: u64 = 128;
/// Plain bytes of tickets from which on an object of them is not made larger any more.
const ROLL: usize = if cfg!(test) { 600 } else { 4 << 20 };
const LEVEL: i32 = 3;
const WHOLE: &str = "-whole.json.zst";
const ADDED: &str = ".json";

/// An object of a manifest, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    generation: u64,
    number: u64,
    whole: bool,
}

impl Object {
    fn parse(path: &str) -> Option<Self> {
        let (generation, name) = path.strip_prefix("manifest/g")?.split_once('/')?;
        let (number, whole) = match name.strip_suffix(WHOLE) {
            Some(number) => (number, true),
            None => (name.strip_suffix(ADDED)?, false),
        };
        Some(Self { generation: generation.parse().ok()?, number: number.parse().ok()?, whole })
    }

    fn path(&self) -> String {
        let ending = if self.whole { WHOLE } else { ADDED };
        format!("{MANIFEST}/g{}/{:010}{ending}", self.generation, self.number)
    }
}

fn objects(remote: &Remote) -> Result<Vec<Object>, FileError> {
    let mut objects: Vec<Object> = remote.list(MANIFEST)?.iter().filter_map(|path| Object::parse(path)).collect();
    objects.sort();
    Ok(objects)
}

/// What a reader needs of these: of the highest generation the last whole object and those after it. `None`: they do not
/// belong together, or (empty) there is no manifest.
fn chosen(mut objects: Vec<Object>) -> Option<Vec<Object>> {
    let Some(newest) = objects.last().map(|o| o.generation) else { return Some(Vec::new()) };
    objects.retain(|o| o.generation == newest);
    let whole = objects.iter().rposition(|o| o.whole)?;
    let chosen = objects.split_off(whole);
    chosen.windows(2).all(|pair| pair[0].number + 1 == pair[1].number).then_some(chosen)
}

/// What the manifest says by itself.
pub(super) fn named(remote: &Remote) -> Result<Manifest, FileError> {
    listed_then(remote, || ())
}

/// As [`named`]; `listed` is called after each listing, for a test that lets a writer go on there.
fn listed_then(remote: &Remote, mut listed: impl FnMut()) -> Result<Manifest, FileError> {
    for _ in 0..ATTEMPTS {
        let objects = objects(remote)?;
        listed();
        let Some(chosen) = chosen(objects) else { continue };
        let paths: Vec<String> = chosen.iter().map(Object::path).collect();
        let contents = remote.read_all(&paths)?;
        let Some(contents) = contents.into_iter().collect::<Option<Vec<_>>>() else { continue };
        let mut manifest = nothing();
        for ((object, path), content) in chosen.iter().zip(&paths).zip(contents) {
            let publication = parse(&content, object.whole).ok_or_else(|| damaged(&remote.place(path), 1))?;
            publication.add_to(&mut manifest);
        }
        return Ok(manifest);
    }
    Err(damaged(&remote.place(MANIFEST), 1))
}

fn parse(content: &[u8], whole: bool) -> Option<Publication> {
    let unpacked = if whole { Some(zstd::decode_all(content).ok()?) } else { None };
    let line = unpacked.as_deref().unwrap_or(content).strip_suffix(b"\n")?;
    serde_json::from_str(lines::check(line)?).ok()
}

/// Begins a generation. That its first object can be created is what keeps two instances from writing under one generation.
pub(super) fn begin(
    remote: &Remote,
    generation: u64,
    whole: &Publication,
    tickets: &[Ticket],
) -> Result<(), FileError> {
    let mut bindings = ObjectBindings::new(remote.clone(), generation, i64::MAX, 0);
    bindings.add(tickets)?;
    bindings.sync()?;
    failpoint::hit("recovery.bindings")?;
    let older: Vec<Object> = objects(remote)?.into_iter().filter(|o| o.generation < generation).collect();
    failpoint::hit("recovery.manifest")?;
    write(remote, &Object { generation, number: 0, whole: true }, whole)?;
    // The one before is kept for readers that have just begun with it.
    let before = older.last().map(|o| o.generation);
    remote.delete(older.iter().filter(|o| Some(o.generation) != before).map(Object::path).collect())
}

fn write(remote: &Remote, object: &Object, publication: &Publication) -> Result<(), FileError> {
    let path = object.path();
    let line = publication.line().into_bytes();
    let content = if object.whole { pack(&line, Path::new(&path))? } else { line };
    remote.create(&path, content)
}

fn pack(text: &[u8], path: &Path) -> Result<Vec<u8>, FileError> {
    zstd::bulk::compress(text, LEVEL).at("cannot compress", path)
}

/// Writes the manifest of one generation.
#[derive(Debug)]
pub(crate) struct ObjectManifest {
    remote: Remote,
    generation: u64,
    /// Of the next object.
    number: u64,
    /// Objects since the last whole one, that included.
    count: u64,
}

impl ObjectManifest {
    /// Of a generation that has begun.
    pub(super) fn open(remote: Remote, generation: u64) -> Result<Self, FileError> {
        let own = objects(&remote)?.into_iter().filter(|o| o.generation == generation);
        let own: Vec<Object> = own.collect();
        let count = own.iter().rev().position(|o| o.whole).map_or(1, |n| n as u64 + 1);
        Ok(Self { remote, generation, number: own.last().map_or(0, |o| o.number + 1), count })
    }

    /// Adds a publication, durable: its files count from now on.
    pub(super) fn publish(&mut self, publication: &Publication) -> Result<(), FileError> {
        self.write(false, publication)?;
        self.count += 1;
        if self.count > failpoint::threshold(REWRITE, 3) { self.rewrite() } else { Ok(()) }
    }

    fn write(&mut self, whole: bool, publication: &Publication) -> Result<(), FileError> {
        let object = Object { generation: self.generation, number: self.number, whole };
        write(&self.remote, &object, publication)?;
        self.number += 1;
        Ok(())
    }

    /// Writes everything into one object, and deletes those that it makes needless.
    fn rewrite(&mut self) -> Result<(), FileError> {
        let manifest = named(&self.remote)?;
        // A successor's counts.
        if manifest.generation != self.generation {
            return Ok(());
        }
        failpoint::hit("manifest.rewrite")?;
        let last = self.number;
        self.write(true, &Publication::whole(manifest))?;
        self.count = 1;
        let needless = |o: &Object| o.generation == self.generation && o.number < last;
        let needless = objects(&self.remote)?.into_iter().filter(needless).map(|o| o.path());
        self.remote.delete(needless.collect())
    }
}

/// Writes the tickets of one generation. They wait in memory until [`Self::sync`]: the progress log has them until then.
#[derive(Debug)]
pub(crate) struct ObjectBindings {
    remote: Remote,
    generation: u64,
    /// How long tickets are kept, µs of their wall times.
    keep: i64,
    newest: i64,
    /// Of the next object.
    number: u64,
    /// What the next object will hold: all since the last object that has its full size.
    text: String,
    /// How much of it the last object has, and that object.
    written: Option<(usize, String)>,
}

impl ObjectBindings {
    fn new(remote: Remote, generation: u64, keep: i64, number: u64) -> Self {
        Self { remote, generation, keep, newest: i64::MIN, number, text: String::new(), written: None }
    }

    /// Of a generation that has begun.
    pub(super) fn open(remote: Remote, generation: u64, keep: i64) -> Result<Self, FileError> {
        let own = segments_of(&remote)?.into_iter().filter(|s| s.generation == generation);
        let number = own.map(|s| s.number + 1).max().unwrap_or(0);
        Ok(Self::new(remote, generation, keep, number))
    }

    pub(super) fn add(&mut self, tickets: &[Ticket]) -> Result<(), FileError> {
        self.text.push_str(&text(tickets));
        self.newest = tickets.iter().map(|t| t.wall).max().unwrap_or(i64::MIN).max(self.newest);
        if self.text.len() >= ROLL { self.sync() } else { Ok(()) }
    }

    /// Makes the tickets durable.
    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        let before = self.written.take();
        if before.as_ref().map_or(0, |(length, _)| *length) == self.text.len() {
            self.written = before;
            return Ok(());
        }
        let segment = Segment { generation: self.generation, number: self.number, wall: self.newest };
        let path = format!("{BINDINGS}/{}", segment.name());
        self.remote.create(&path, pack(self.text.as_bytes(), Path::new(&path))?)?;
        self.number += 1;
        self.remote.delete(before.into_iter().map(|(_, path)| path).collect())?;
        if self.text.len() < ROLL {
            self.written = Some((self.text.len(), path));
            return Ok(());
        }
        self.text.clear();
        self.expire()
    }

    /// Deletes what is older than the span that is kept, of earlier generations too.
    fn expire(&self) -> Result<(), FileError> {
        let until = self.newest.saturating_sub(self.keep);
        let old = segments_of(&self.remote)?.into_iter().filter(|s| s.wall < until);
        self.remote.delete(old.map(|s| format!("{BINDINGS}/{}", s.name())).collect())
    }
}

#[cfg(test)]
mod tests;
