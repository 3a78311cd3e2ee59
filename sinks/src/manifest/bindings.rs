//! The tickets of committed epochs, on disk: bounded, and small once they are old.
//!
//! ```text
//!  tickets ──► g<n>.jsonl ──(4 MB)──► g<n>-<k>-<last wall>.jsonl.zst ──(older than the span kept)──► deleted
//! ```
//!
//! A segment is whole and durable when it gets its name; then the file that it was made of is emptied. A crash between
//! leaves tickets twice, which say the same. Readers take the file that grows before they look which segments there are,
//! so that what moves meanwhile is read at least once.

use crate::files::{At, FileError, list, remove_file, sync_dir, write_atomically};
use crate::message::Ticket;
use crate::progress::data::{BINDINGS, generation_file, generations};
use crate::store::{Remote, Storage};
use serde::Deserialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes from which on the growing file becomes a segment.
const ROLL: u64 = if cfg!(test) { 600 } else { 4 << 20 };
const LEVEL: i32 = 3;
const SUFFIX: &str = ".jsonl.zst";

/// A segment's name: generation, number, and the last ticket's wall time (µs).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) wall: i64,
}

impl Segment {
    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix('g')?.strip_suffix(SUFFIX)?.splitn(3, '-');
        let mut part = || parts.next();
        let (generation, number) = (part()?.parse().ok()?, part()?.parse().ok()?);
        Some(Self { generation, number, wall: part()?.parse().ok()? })
    }

    pub(super) fn name(&self) -> String {
        format!("g{}-{}-{}{SUFFIX}", self.generation, self.number, self.wall)
    }
}

/// All segments of a directory, oldest first.
fn segments(dir: &Path) -> Result<Vec<Segment>, FileError> {
    let mut segments: Vec<Segment> = list(dir)?.iter().filter_map(|name| Segment::parse(name)).collect();
    segments.sort();
    Ok(segments)
}

/// All segments of a store, oldest first.
pub(super) fn segments_of(remote: &Remote) -> Result<Vec<Segment>, FileError> {
    let name = |path: &String| Segment::parse(path.rsplit('/').next()?);
    let mut segments: Vec<Segment> = remote.list(BINDINGS)?.iter().filter_map(name).collect();
    segments.sort();
    Ok(segments)
}

/// Where bindings are.
pub(super) enum Bindings {
    /// A directory of them.
    Disk(PathBuf),
    Store(Remote),
}

impl Bindings {
    pub(super) fn of(storage: &Storage) -> Self {
        match storage.remote() {
            Some(remote) => Bindings::Store(remote.clone()),
            None => Bindings::Disk(storage.local().join(BINDINGS)),
        }
    }
}

/// Whether a file of the directory of bindings is a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    Segment::parse(name).is_some()
}

/// Writes the tickets of one generation.
#[derive(Debug)]
pub(super) struct BindingsWriter {
    dir: PathBuf,
    generation: u64,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// How long tickets are kept, µs of their wall times.
    keep: i64,
    /// The newest ticket's wall time.
    newest: i64,
    number: u64,
}

impl BindingsWriter {
    /// Opens the file of a generation that has begun.
    pub(super) fn open(dir: &Path, generation: u64, keep: i64) -> Result<Self, FileError> {
        let path = generation_file(dir, generation);
        let file = OpenOptions::new().append(true).open(&path).at("cannot open", &path)?;
        let bytes = file.metadata().at("cannot read", &path)?.len();
        let own = segments(dir)?.into_iter().filter(|s| s.generation == generation);
        let number = own.map(|s| s.number + 1).max().unwrap_or(0);
        let mut newest = i64::MIN;
        each_line(File::open(&path).at("cannot read", &path)?, &path, &mut |line| {
            newest = newest.max(wall(line).map_or(i64::MIN, |w| w.wall));
        })?;
        Ok(Self { dir: dir.to_path_buf(), generation, path, file, bytes, keep, newest, number })
    }

    /// Adds committed tickets; not durable before [`Self::sync`].
    pub(super) fn add(&mut self, tickets: &[Ticket]) -> Result<(), FileError> {
        let text = text(tickets);
        self.file.write_all(text.as_bytes()).at("cannot write", &self.path)?;
        self.bytes += text.len() as u64;
        self.newest = tickets.iter().map(|t| t.wall).max().unwrap_or(i64::MIN).max(self.newest);
        if self.bytes < ROLL || self.newest == i64::MIN {
            return Ok(());
        }
        self.roll()?;
        self.expire()
    }

    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_data().at("cannot sync", &self.path)
    }

    /// What has been written becomes a segment.
    fn roll(&mut self) -> Result<(), FileError> {
        let text = std::fs::read(&self.path).at("cannot read", &self.path)?;
        let packed = zstd::bulk::compress(&text, LEVEL).at("cannot compress", &self.path)?;
        let segment = Segment { generation: self.generation, number: self.number, wall: self.newest };
        write_atomically(&self.dir.join(segment.name()), &packed)?;
        self.number += 1;
        self.file.set_len(0).at("cannot empty", &self.path)?;
        self.bytes = 0;
        Ok(())
    }

    /// Deletes what is older than the span that is kept, of earlier generations too.
    fn expire(&self) -> Result<(), FileError> {
        let until = self.newest.saturating_sub(self.keep);
        for segment in segments(&self.dir)?.iter().filter(|s| s.wall < until) {
            remove_file(&self.dir.join(segment.name()))?;
        }
        for generation in generations(&self.dir)?.into_iter().filter(|g| *g < self.generation) {
            let path = generation_file(&self.dir, generation);
            let mut last = i64::MIN;
            each_line(File::open(&path).at("cannot read", &path)?, &path, &mut |line| {
                last = last.max(wall(line).map_or(i64::MIN, |w| w.wall));
            })?;
            // An empty one may be that of an instance that is about to open it, and to learn that it was overtaken.
            if last > i64::MIN && last < until {
                remove_file(&path)?;
            }
        }
        // What a crash has left half-written.
        let older =
            |name: &str| name.strip_prefix('g')?.split('-').next()?.parse::<u64>().ok().map(|g| g < self.generation);
        for name in list(&self.dir)?.iter().filter(|n| n.ends_with(".tmp") && older(n) == Some(true)) {
            remove_file(&self.dir.join(name))?;
        }
        sync_dir(&self.dir)
    }
}

/// Tickets as lines.
pub(super) fn text(tickets: &[Ticket]) -> String {
    let mut text = String::new();
    for ticket in tickets {
        text.push_str(&serde_json::to_string(ticket).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// The part of a ticket that tells when its epoch ended.
#[derive(Deserialize)]
pub(super) struct Wall {
    pub(super) epoch: i64,
    pub(super) wall: i64,
}

pub(super) fn wall(line: &str) -> Option<Wall> {
    serde_json::from_str(line).ok()
}

/// Hands on each line of all generations, the lowest first, so that the last one of an epoch counts.
pub(super) fn each_line_of_all(bindings: &Bindings, each: impl FnMut(&str)) -> Result<(), FileError> {
    each_line_of(bindings, |segments| segments, each)
}

/// As [`each_line_of_all`], but of what has become segments only those in which an epoch that ended at this time can be,
/// or the last one before.
pub(super) fn each_line_near(bindings: &Bindings, wall: i64, each: impl FnMut(&str)) -> Result<(), FileError> {
    let near = |segments: Vec<Segment>| {
        let mut near = Vec::new();
        for own in segments.chunk_by(|a, b| a.generation == b.generation) {
            let at = own.iter().position(|s| s.wall >= wall).unwrap_or(own.len());
            near.extend_from_slice(&own[at.saturating_sub(1)..own.len().min(at + 1)]);
        }
        near
    };
    each_line_of(bindings, near, each)
}

fn each_line_of(
    bindings: &Bindings,
    wanted: impl Fn(Vec<Segment>) -> Vec<Segment>,
    mut each: impl FnMut(&str),
) -> Result<(), FileError> {
    let dir = match bindings {
        Bindings::Disk(dir) => dir,
        Bindings::Store(remote) => return each_line_of_store(remote, wanted, each),
    };
    let mut growing = Vec::new();
    for generation in generations(dir)? {
        let path = generation_file(dir, generation);
        let mut text = Vec::new();
        // It may have been expired since it was listed.
        if let Some(mut file) = open(&path)? {
            file.read_to_end(&mut text).at("cannot read", &path)?;
        }
        growing.push((generation, path, text));
    }
    let mut segments = wanted(segments(dir)?).into_iter().peekable();
    for (generation, path, text) in growing {
        while let Some(segment) = segments.next_if(|s| s.generation <= generation) {
            each_of_segment(&dir.join(segment.name()), &mut each)?;
        }
        each_line(text.as_slice(), &path, &mut each)?;
    }
    segments.try_for_each(|segment| each_of_segment(&dir.join(segment.name()), &mut each))
}

/// A segment that is gone since it was listed was replaced by the next one, or expired: what is there from it on is listed
/// again.
pub(super) fn each_line_of_store(
    remote: &Remote,
    wanted: impl Fn(Vec<Segment>) -> Vec<Segment>,
    mut each: impl FnMut(&str),
) -> Result<(), FileError> {
    let mut from = None;
    'listed: loop {
        let segments = wanted(segments_of(remote)?).into_iter().filter(|s| Some(s) >= from.as_ref());
        for segment in segments {
            let path = format!("{BINDINGS}/{}", segment.name());
            let Some(content) = remote.read(&path)? else {
                from = Some(segment);
                continue 'listed;
            };
            let place = remote.place(&path);
            let decoder = zstd::Decoder::new(&content[..]).at("cannot decompress", &place)?;
            each_line(decoder, &place, &mut each)?;
        }
        return Ok(());
    }
}

fn open(path: &Path) -> Result<Option<File>, FileError> {
    match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).at("cannot open", path),
    }
}

fn each_of_segment(path: &Path, each: &mut impl FnMut(&str)) -> Result<(), FileError> {
    let Some(file) = open(path)? else { return Ok(()) };
    let decoder = zstd::Decoder::new(file).at("cannot decompress", path)?;
    each_line(decoder, path, each)
}

fn each_line(text: impl Read, path: &Path, each: &mut impl FnMut(&str)) -> Result<(), FileError> {
    let mut reader = BufReader::with_capacity(1 << 16, text);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).at("cannot read", path)? > 0 {
        each(std::str::from_utf8(&line).unwrap_or("").trim_end());
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::create_dir;
    use std::collections::BTreeMap;

    const SECOND: i64 = 1_000_000;

    fn read(dir: &Path) -> BTreeMap<i64, i64> {
        let mut walls = BTreeMap::new();
        each_line_of_all(&Bindings::Disk(dir.to_path_buf()), |line| {
            let Wall { epoch, wall } = wall(line).unwrap();
            walls.insert(epoch, wall);
        })
        .unwrap();
        walls
    }

    /// 50 tickets a generation, a second apart; of the second generation the first five are repeated with other times.
    #[test]
    fn old_tickets_are_packed_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        create_dir(dir.path()).unwrap();
        for (generation, first) in [(1, 0), (2, 45), (3, 95)] {
            File::create(generation_file(dir.path(), generation)).unwrap();
            for epoch in first..first + 50 {
                // Opened anew now and then, as a restart of the thread would not, but it may be.
                let mut writer = BindingsWriter::open(dir.path(), generation, 70 * SECOND).unwrap();
                let wall = epoch * SECOND + generation as i64;
                writer.add(&[Ticket { epoch, wall, ..Ticket::default() }]).unwrap();
                writer.sync().unwrap();
            }
        }
        let names = list(dir.path()).unwrap();
        assert!(names.iter().filter(|n| is_segment(n)).count() > 5, "{names:?}");
        let walls = read(dir.path());
        let newest = 144 * SECOND + 3;
        assert!(
            (newest - 70 * SECOND..newest).step_by(SECOND as usize).skip(1).all(|w| walls.contains_key(&(w / SECOND)))
        );
        let first = std::fs::metadata(generation_file(dir.path(), 1)).map_or(0, |m| m.len());
        assert!(first == 0 && walls.keys().next() > Some(&40), "{names:?} {walls:?}");
        for epoch in [100, 110, 120, 130, 140] {
            let mut found = None;
            let at = epoch * SECOND + 3;
            let keep = |line: &str| found = found.max(wall(line).filter(|w| w.wall <= at).map(|w| w.epoch));
            each_line_near(&Bindings::Disk(dir.path().to_path_buf()), at, keep).unwrap();
            assert_eq!(found, Some(epoch));
        }
        assert!(walls.iter().all(|(epoch, wall)| wall % SECOND == if *epoch < 95 { 2 } else { 3 } || *epoch < 45));
    }

    #[test]
    fn what_moves_while_it_is_read_is_read_once_at_least() {
        let dir = tempfile::tempdir().unwrap();
        File::create(generation_file(dir.path(), 1)).unwrap();
        let mut writer = BindingsWriter::open(dir.path(), 1, i64::MAX).unwrap();
        let ticket = |epoch| Ticket { epoch, wall: epoch, ..Ticket::default() };
        writer.add(&[ticket(1), ticket(2)]).unwrap();
        let text = std::fs::read(generation_file(dir.path(), 1)).unwrap();
        writer.roll().unwrap();
        // A crash before the file was emptied.
        std::fs::write(generation_file(dir.path(), 1), text).unwrap();
        assert_eq!(read(dir.path()), BTreeMap::from([(1, 1), (2, 2)]));
    }
}
