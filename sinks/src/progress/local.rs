//! The progress log as a file: `<data>/progress/log.jsonl`, one entry a line with its checksum ([`super::lines`]).
//!
//! Trimming writes what is needed to `log.tmp`, syncs it and renames it to `log.jsonl`: whatever the moment of a crash,
//! there is the old log or the new one, whole.
//!
//! ```text
//!  claim g1 | commits …      | commits after the checkpoint | claim g2 | commits …
//!  kept       needless         kept: from the first needed commit to the end
//! ```

use super::lines::{self, Appender};
use super::{Claim, ProgressEntry, ProgressError, ProgressLog, ProgressRecord, first_needed};
use crate::files::{At, create_dir, remove_file, sync_dir};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Path of the log below the data directory.
pub const LOG: &str = "progress/log.jsonl";

/// Needless bytes that are not worth a rewriting.
const SMALL: u64 = 64 << 10;

/// A line of the log.
#[derive(Clone, Copy, Debug)]
struct Mark {
    start: u64,
    kind: MarkKind,
}

#[derive(Clone, Copy, Debug)]
enum MarkKind {
    Claim,
    /// With its newest epoch.
    Commit(Option<i64>),
}

impl MarkKind {
    fn of(entry: &ProgressEntry) -> Self {
        match entry {
            ProgressEntry::Claim(_) => MarkKind::Claim,
            ProgressEntry::Commit(record) => MarkKind::Commit(record.last_epoch()),
        }
    }
}

/// The log opened for appending. Memory: 32 bytes a line.
#[derive(Debug)]
pub struct LocalLog {
    path: PathBuf,
    file: Appender,
    marks: Vec<Mark>,
    size: u64,
    /// Needless bytes up to this many stay.
    small: u64,
}

impl LocalLog {
    /// Opens or creates the log of a data directory; a torn last line is cut off.
    ///
    /// # Errors
    /// [`ProgressError::Corrupt`] when an earlier line is damaged.
    pub fn open(data: &Path) -> Result<Self, ProgressError> {
        let path = data.join(LOG);
        let (mut marks, mut start) = (Vec::new(), 0);
        let size = read(&path, |entry, bytes| {
            marks.push(Mark { start, kind: MarkKind::of(&entry) });
            start += bytes;
        })?;
        let dir = data.join("progress");
        create_dir(&dir)?;
        remove_file(&path.with_extension("tmp"))?;
        let file = Appender::open(&path, size)?;
        sync_dir(&dir)?;
        Ok(Self { path, file, marks, size, small: SMALL })
    }

    /// Trims from this many needless bytes on (64 KiB by default).
    #[cfg(test)]
    pub(crate) fn with_small(mut self, bytes: u64) -> Self {
        self.small = bytes;
        self
    }

    /// Makes what was appended durable: the instant at which it has happened.
    pub fn sync(&mut self) -> Result<(), ProgressError> {
        Ok(self.file.sync()?)
    }

    fn write(&mut self, entry: &ProgressEntry) -> Result<(), ProgressError> {
        let line = lines::line(&to_json(entry)?);
        self.marks.push(Mark { start: self.size, kind: MarkKind::of(entry) });
        self.size += line.len() as u64;
        Ok(self.file.append(&line)?)
    }

    /// Rewrites the log from the mark at this index on, behind the claim that holds there.
    fn rewrite(&mut self, from: usize) -> Result<(), ProgressError> {
        let claim = self.marks[..from].iter().rposition(|m| matches!(m.kind, MarkKind::Claim));
        let end = |i: usize| self.marks.get(i + 1).map_or(self.size, |m| m.start);
        let mut bytes = Vec::new();
        let mut marks = Vec::new();
        let mut old = File::open(&self.path).at("cannot open", &self.path)?;
        if let Some(i) = claim {
            let start = self.marks[i].start;
            old.seek(SeekFrom::Start(start)).at("cannot read", &self.path)?;
            (&mut old).take(end(i) - start).read_to_end(&mut bytes).at("cannot read", &self.path)?;
            marks.push(Mark { start: 0, kind: MarkKind::Claim });
        }
        let (kept, moved) = (self.marks[from].start, bytes.len() as u64);
        marks.extend(self.marks[from..].iter().map(|m| Mark { start: m.start - kept + moved, kind: m.kind }));
        old.seek(SeekFrom::Start(kept)).at("cannot read", &self.path)?;
        (&mut old).take(self.size - kept).read_to_end(&mut bytes).at("cannot read", &self.path)?;
        self.file = Appender::replace(&self.path, &bytes, "trim.between")?;
        (self.marks, self.size) = (marks, bytes.len() as u64);
        Ok(())
    }
}

impl ProgressLog for LocalLog {
    fn claim(&mut self, claim: &Claim) -> Result<(), ProgressError> {
        self.write(&ProgressEntry::Claim(claim.clone()))?;
        self.sync()
    }

    fn append(&mut self, record: &ProgressRecord) -> Result<(), ProgressError> {
        self.write(&ProgressEntry::Commit(record.clone()))
    }

    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError> {
        read_log(&self.path)
    }

    /// When less is needless than needed, or it is little, it stays until later.
    fn trim(&mut self, checkpoint: i64) -> Result<(), ProgressError> {
        let commits = self.marks.iter().enumerate().filter_map(|(i, m)| match m.kind {
            MarkKind::Claim => None,
            MarkKind::Commit(newest) => Some((i, newest)),
        });
        let commits: Vec<(usize, Option<i64>)> = commits.collect();
        let first = first_needed(commits.iter().map(|c| c.1), checkpoint);
        let Some((from, _)) = commits.get(first) else { return Ok(()) };
        let needless = self.marks[*from].start;
        if needless > self.small && needless > self.size - needless { self.rewrite(*from) } else { Ok(()) }
    }
}

/// An entry as JSON.
pub(crate) fn to_json(entry: &ProgressEntry) -> Result<String, ProgressError> {
    serde_json::to_string(entry)
        .map_err(|e| ProgressError::Corrupt { place: "a progress record".into(), problem: e.to_string() })
}

/// All entries of the log of a data directory; none when there is no log. Works while a job writes to it.
pub fn read_all(data: &Path) -> Result<Vec<ProgressEntry>, ProgressError> {
    read_log(&data.join(LOG))
}

fn read_log(path: &Path) -> Result<Vec<ProgressEntry>, ProgressError> {
    let mut entries = Vec::new();
    read(path, |entry, _| entries.push(entry))?;
    Ok(entries)
}

/// The newest committed epoch; `None` before the first. Reads the end of the file only, unless the last run has not
/// committed anything.
pub fn committed_epoch(data: &Path) -> Result<Option<i64>, ProgressError> {
    let path = data.join(LOG);
    let Some(entry) = last(&path)? else { return Ok(None) };
    let newest = |record: &ProgressRecord| Some(record.committed_epoch).filter(|e| *e >= 0);
    if let ProgressEntry::Commit(record) = entry {
        return Ok(newest(&record));
    }
    let mut last = None;
    read(&path, |entry, _| {
        if let ProgressEntry::Commit(record) = entry {
            last = newest(&record);
        }
    })?;
    Ok(last)
}

/// The generation that has claimed last; 0 before the first. While it stays the same, nothing that was committed is
/// followed by what an earlier run has left.
pub fn generation(data: &Path) -> Result<u64, ProgressError> {
    Ok(last(&data.join(LOG))?.map_or(0, |entry| entry.generation()))
}

/// The last entry. Reads the end of the file only.
fn last(path: &Path) -> Result<Option<ProgressEntry>, ProgressError> {
    let Some(json) = lines::last(path)? else { return Ok(None) };
    let corrupt = |e: serde_json::Error| ProgressError::Corrupt {
        place: format!("{}, last line", path.display()),
        problem: e.to_string(),
    };
    serde_json::from_str(&json).map(Some).map_err(corrupt)
}

/// Hands each entry and the bytes of its line to `each`. Returns the bytes of all.
fn read(path: &Path, mut each: impl FnMut(ProgressEntry, u64)) -> Result<u64, ProgressError> {
    let mut number = 0u64;
    let mut wrong = None;
    let scan = lines::scan(path, |json| {
        number += 1;
        match serde_json::from_str(json) {
            Ok(entry) => each(entry, lines::bytes(json)),
            Err(e) if wrong.is_none() => wrong = Some((number, e.to_string())),
            Err(_) => {}
        }
    })?;
    let place = |line: u64| format!("{}, line {line}", path.display());
    if let Some((line, problem)) = wrong {
        return Err(ProgressError::Corrupt { place: place(line), problem });
    }
    if let Some((line, offset)) = scan.damaged {
        let problem = format!("the checksum of the record at byte {offset} is wrong");
        return Err(ProgressError::Corrupt { place: place(line), problem });
    }
    Ok(scan.good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoint;
    use crate::message::Ticket;

    fn record(epoch: i64) -> ProgressRecord {
        let ticket = Ticket { epoch, wall: epoch * 7, ..Ticket::default() };
        ProgressRecord { generation: 1, committed_epoch: epoch, epochs: vec![ticket], ..ProgressRecord::default() }
    }

    fn log(dir: &Path, epochs: i64) -> PathBuf {
        let mut log = LocalLog::open(dir).unwrap();
        let claim = Claim { generation: 1, job: "j".into(), config_hash: "c".into(), version: "v".into() };
        log.claim(&claim).unwrap();
        (1..=epochs).for_each(|e| log.append(&record(e)).unwrap());
        log.sync().unwrap();
        dir.join(LOG)
    }

    #[test]
    fn a_torn_end_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path(), 3);
        let whole = std::fs::read(&path).unwrap();
        let line = lines::line(&to_json(&ProgressEntry::Commit(record(3))).unwrap()).len();
        for cut in 1..line {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            assert_eq!(committed_epoch(dir.path()).unwrap(), Some(2), "cut by {cut}");
            let mut log = LocalLog::open(dir.path()).unwrap();
            assert_eq!(log.read_all().unwrap().len(), 3);
            log.append(&record(9)).unwrap();
            assert_eq!(log.read_all().unwrap().last(), Some(&ProgressEntry::Commit(record(9))));
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = log(dir.path(), 3);
        let whole = std::fs::read(&path).unwrap();
        let last = lines::line(&to_json(&ProgressEntry::Commit(record(3))).unwrap()).len();
        // (The end of the line before the last is not tried: the two would look like one torn line.)
        for at in 0..whole.len() - last - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let error = LocalLog::open(dir.path()).unwrap_err();
            assert!(matches!(error, ProgressError::Corrupt { .. }), "byte {at}: {error}");
            assert!(error.to_string().contains("log.jsonl, line"), "{error}");
        }
    }

    #[test]
    fn the_newest_epoch_is_found_behind_claims_and_in_long_lines() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(committed_epoch(dir.path()).unwrap(), None);
        log(dir.path(), 0);
        assert_eq!(committed_epoch(dir.path()).unwrap(), None);
        let mut log = LocalLog::open(dir.path()).unwrap();
        let mut long = record(5);
        long.job = "x".repeat(100_000);
        log.append(&long).unwrap();
        assert_eq!(committed_epoch(dir.path()).unwrap(), Some(5));
        let claim = Claim { generation: 2, job: "j".into(), config_hash: "c".into(), version: "v".into() };
        log.claim(&claim).unwrap();
        assert_eq!(committed_epoch(dir.path()).unwrap(), Some(5));
    }

    /// The epochs of the log's commits, and how many claims stand before them.
    fn contents(dir: &Path) -> (usize, Vec<i64>) {
        let entries = read_all(dir).unwrap();
        let claims = entries.iter().take_while(|e| matches!(e, ProgressEntry::Claim(_))).count();
        let epochs = entries.iter().filter_map(|e| match e {
            ProgressEntry::Claim(_) => None,
            ProgressEntry::Commit(r) => Some(r.committed_epoch),
        });
        (claims, epochs.collect())
    }

    #[test]
    fn what_a_checkpoint_makes_needless_goes() {
        let dir = tempfile::tempdir().unwrap();
        log(dir.path(), 6);
        // Opened anew, as after a restart.
        let mut log = LocalLog::open(dir.path()).unwrap().with_small(0);
        let claim = |generation| Claim { generation, job: "j".into(), config_hash: "c".into(), version: "v".into() };
        log.claim(&claim(2)).unwrap();
        log.append(&record(7)).unwrap();
        log.append(&record(8)).unwrap();
        log.sync().unwrap();
        log.trim(3).unwrap();
        assert_eq!(contents(dir.path()), (1, (1..=8).collect()), "half of it is needed: not worth it");
        log.trim(5).unwrap();
        assert_eq!(contents(dir.path()), (1, (6..=8).collect()));
        assert!(matches!(&read_all(dir.path()).unwrap()[0], ProgressEntry::Claim(c) if c.generation == 1));
        log.append(&record(9)).unwrap();
        (10..=14).for_each(|e| log.append(&record(e)).unwrap());
        log.sync().unwrap();
        // A crash before the renaming leaves a file that nobody reads.
        failpoint::adopt(failpoint::Plan::new("trim.between", 1, || Err(std::io::Error::other("killed"))));
        log.trim(13).unwrap_err();
        failpoint::adopt(None);
        assert_eq!(contents(dir.path()).1, (6..=14).collect::<Vec<_>>());
        let mut log = LocalLog::open(dir.path()).unwrap().with_small(0);
        assert!(!dir.path().join("progress/log.tmp").exists());
        log.trim(14).unwrap();
        assert_eq!(contents(dir.path()), (1, vec![14]), "the record that names the checkpoint stays");
        assert!(matches!(&read_all(dir.path()).unwrap()[0], ProgressEntry::Claim(c) if c.generation == 2));
        log.append(&record(15)).unwrap();
        log.sync().unwrap();
        assert_eq!(committed_epoch(dir.path()).unwrap(), Some(15));
        assert_eq!(LocalLog::open(dir.path()).unwrap().read_all().unwrap().len(), 3);
    }
}
