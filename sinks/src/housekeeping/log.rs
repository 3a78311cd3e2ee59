//! The log of changes of published files, and how it is read together with the manifest.
//!
//! ```text
//! <data>/compacted/log.jsonl    checked lines: Kept? (Change | Settled)*
//! ```
//!
//! A [`Change`] holds from the moment when its line is durable. To read the history: **first** this log, **then** the
//! manifest, then the changes in their order, each if *all* files that it removes are there ([`Log::apply`]). So
//!
//! - a start that has written the manifest anew with a change applied does not apply it twice: what it removes is gone;
//! - a change to files that the manifest had no line for when it was read is left out: the reader sees the history as it
//!   was then, whose files stay for the grace time;
//! - a change that was dropped from the log was applied by the manifest that is read after it.

use crate::failpoint;
use crate::files::FileError;
use crate::history::DateKey;
use crate::progress::FileEntry;
use crate::progress::lines::{self, Appender};
use drivetrain_schemas::table::TableId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Directory of everything that housekeeping keeps, below the data directory.
pub(crate) const COMPACTED: &str = "compacted";
/// The log in it.
pub(crate) const LOG: &str = "log.jsonl";

/// What retention has taken from a table: the days before this one, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    /// The first day that is kept, `YYYY-MM-DD`. Rows of earlier days are no part of the history, also those that are
    /// published later.
    pub before: String,
    /// Rows of the log that were taken away so far, retractions included.
    pub rows: u64,
    /// Wall time of the last time, µs.
    pub at: i64,
}

/// Published files of one partition give way to others (compaction), or those of a table's old days to none (retention).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// From 1, never used again; in the names of the files it adds.
    pub(crate) number: u64,
    /// Wall time, µs: from here the grace time of the removed files counts.
    pub(crate) at: i64,
    /// Paths.
    pub(crate) removed: Vec<String>,
    pub(crate) added: Vec<FileEntry>,
    /// Changes of rows up to this epoch were cancelled against each other: the past before it is gone. -1: none were.
    pub(crate) oldest: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expired: Option<(TableId, Expired)>,
}

/// What outlives the changes that said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Number of the next change.
    pub(crate) next: u64,
    pub(crate) oldest: i64,
    pub(crate) expired: BTreeMap<TableId, Expired>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Kept(Kept),
    Change(Change),
    /// What the change removes is deleted, and what it adds has its final name.
    Settled {
        number: u64,
        at: i64,
    },
}

/// The log as it was read.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) kept: Kept,
    pub(crate) changes: Vec<Change>,
    /// When each settled change was, µs.
    pub(crate) settled: BTreeMap<u64, i64>,
    /// Bytes up to the end of the last good line.
    good: u64,
}

impl Log {
    /// Reads the log of a data directory; empty when there is none. A torn last line never happened.
    ///
    /// # Errors
    /// When it cannot be read or is damaged before its end.
    pub(crate) fn read(data: &Path) -> Result<Self, FileError> {
        let path = path(data);
        let kept = Kept { next: 1, oldest: -1, expired: BTreeMap::new() };
        let mut log = Self { kept, changes: Vec::new(), settled: BTreeMap::new(), good: 0 };
        let (mut number, mut wrong) = (0u64, None);
        let scan = lines::scan(&path, |json| {
            number += 1;
            match serde_json::from_str(json) {
                Ok(line) => log.take(line),
                Err(_) => _ = wrong.get_or_insert(number),
            }
        })?;
        if let Some(line) = wrong.or(scan.damaged.map(|(line, _)| line)) {
            let problem = format!("line {line} is damaged; restore the file from a backup, or start over with --fresh");
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, problem);
            return Err(FileError { action: "cannot use", path, source });
        }
        log.good = scan.good;
        Ok(log)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Kept(kept) => self.kept = kept,
            Line::Settled { number, at } => _ = self.settled.insert(number, at),
            Line::Change(change) => {
                self.kept.next = self.kept.next.max(change.number + 1);
                self.kept.oldest = self.kept.oldest.max(change.oldest);
                if let Some((table, expired)) = &change.expired {
                    self.kept.expired.insert(*table, expired.clone());
                }
                self.changes.push(change);
            }
        }
    }

    /// Applies the changes to the files that a manifest names. Returns the numbers of those that had any of their
    /// files there.
    pub(crate) fn apply(&self, files: &mut Vec<FileEntry>) -> BTreeSet<u64> {
        let mut needed = BTreeSet::new();
        if self.changes.is_empty() {
            return needed;
        }
        let mut by_path: BTreeMap<String, FileEntry> =
            std::mem::take(files).into_iter().map(|f| (f.path.clone(), f)).collect();
        for change in &self.changes {
            let there = change.removed.iter().filter(|path| by_path.contains_key(*path)).count();
            if there > 0 {
                needed.insert(change.number);
            }
            if there == change.removed.len() {
                change.removed.iter().for_each(|path| _ = by_path.remove(path));
                by_path.extend(change.added.iter().map(|f| (f.path.clone(), f.clone())));
            }
        }
        *files = by_path.into_values().collect();
        needed
    }

    /// Appends a change, durable: it holds from now on.
    pub(crate) fn append(&mut self, data: &Path, change: Change) -> Result<(), FileError> {
        self.write(data, Line::Change(change))
    }

    /// Notes that a change is settled.
    pub(crate) fn settle(&mut self, data: &Path, number: u64, at: i64) -> Result<(), FileError> {
        self.write(data, Line::Settled { number, at })
    }

    fn write(&mut self, data: &Path, line: Line) -> Result<(), FileError> {
        let text = lines::line(&json(&line));
        let mut file = Appender::open(&path(data), self.good)?;
        file.append(&text)?;
        file.sync()?;
        // The file's own name, when it is the first line.
        crate::files::sync_dir(&data.join(COMPACTED))?;
        self.good += text.len() as u64;
        self.take(line);
        Ok(())
    }

    /// Writes the log anew without the changes of these numbers; what they said for good stays.
    pub(crate) fn drop_changes(&mut self, data: &Path, numbers: &BTreeSet<u64>) -> Result<(), FileError> {
        self.changes.retain(|c| !numbers.contains(&c.number));
        self.settled.retain(|n, _| !numbers.contains(n));
        let mut text = lines::line(&json(&Line::Kept(self.kept.clone())));
        for change in &self.changes {
            text.push_str(&lines::line(&json(&Line::Change(change.clone()))));
        }
        for (number, at) in &self.settled {
            text.push_str(&lines::line(&json(&Line::Settled { number: *number, at: *at })));
        }
        Appender::replace(&path(data), text.as_bytes(), "housekeeping.trim")?;
        self.good = text.len() as u64;
        failpoint::hit("housekeeping.trimmed")
    }
}

impl Kept {
    /// Whether retention has taken the day of this file.
    pub(crate) fn is_expired(&self, file: &FileEntry) -> bool {
        let Some(before) = self.expired.get(&file.table).and_then(|e| DateKey::parse(&e.before)) else { return false };
        file.partition().is_some_and(|(table, date)| ages(table, date) && date < before)
    }
}

/// Whether a day can grow old: that of rows without a time cannot.
pub(super) fn ages(table: TableId, date: DateKey) -> bool {
    date != DateKey::NONE || !matches!(table, TableId::Late | TableId::Rejects)
}

fn json(line: &Line) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

pub(crate) fn path(data: &Path) -> PathBuf {
    data.join(COMPACTED).join(LOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> FileEntry {
        let (path, checksum) = (format!("history/readings_log/date=2026-05-0{name}/f"), String::new());
        FileEntry {
            table: TableId::Readings,
            path,
            rows: 1,
            bytes: 1,
            retractions: 0,
            min_epoch: 0,
            max_epoch: 0,
            checksum,
        }
    }

    fn change(number: u64, removed: &[&str], added: &[&str]) -> Change {
        let removed = removed.iter().map(|n| file(n).path).collect();
        let added = added.iter().map(|n| file(n)).collect();
        Change { number, at: 0, removed, added, oldest: number as i64, expired: None }
    }

    fn log(changes: Vec<Change>) -> Log {
        let kept = Kept { next: 9, oldest: -1, expired: BTreeMap::new() };
        Log { kept, changes, settled: BTreeMap::new(), good: 0 }
    }

    fn applied(log: &Log, names: &[&str]) -> Vec<String> {
        let mut files = names.iter().map(|n| file(n)).collect();
        log.apply(&mut files);
        files.into_iter().map(|f| f.path["history/readings_log/date=2026-05-0".len()..].replace("/f", "")).collect()
    }

    /// A reader may have any manifest: from before a change, with a part of the changes applied by a start, or with all.
    #[test]
    fn each_manifest_and_the_log_give_one_history() {
        let log = log(vec![change(1, &["1", "2"], &["5"]), change(2, &["5", "3"], &["6"]), change(3, &["4"], &[])]);
        assert_eq!(applied(&log, &["1", "2", "3", "4"]), ["6"]);
        assert_eq!(applied(&log, &["5", "3", "4"]), ["6"]);
        assert_eq!(applied(&log, &["6", "4", "7"]), ["6", "7"]);
        assert_eq!(applied(&log, &["6", "7"]), ["6", "7"]);
        // A manifest that was read before 3 was published: the history of then.
        assert_eq!(applied(&log, &["1", "2"]), ["5"]);
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_never_happened() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path();
        std::fs::create_dir_all(data.join(COMPACTED)).unwrap();
        let mut log = Log::read(data).unwrap();
        let expired = Expired { before: "2026-05-03".into(), rows: 7, at: 5 };
        log.append(data, change(1, &["1"], &["5"])).unwrap();
        log.append(data, Change { expired: Some((TableId::Readings, expired)), ..change(2, &["2"], &[]) }).unwrap();
        log.settle(data, 1, 44).unwrap();
        let read = Log::read(data).unwrap();
        assert_eq!((read.kept.next, read.kept.oldest, read.changes.len()), (3, 2, 2));
        assert_eq!(read.settled, BTreeMap::from([(1, 44)]));
        assert!(read.kept.is_expired(&file("2")) && !read.kept.is_expired(&file("3")));
        log.drop_changes(data, &BTreeSet::from([1, 2])).unwrap();
        let read = Log::read(data).unwrap();
        assert_eq!((read.kept.next, read.kept.oldest, read.changes.len(), read.settled.len()), (3, 2, 0, 0));
        assert!(read.kept.is_expired(&file("2")));
        log.append(data, change(3, &["3"], &[])).unwrap();
        let whole = std::fs::read(path(data)).unwrap();
        std::fs::write(path(data), &whole[..whole.len() - 4]).unwrap();
        let mut torn = Log::read(data).unwrap();
        assert_eq!((torn.kept.next, torn.changes.len()), (3, 0));
        torn.append(data, change(3, &["4"], &[])).unwrap();
        assert_eq!(Log::read(data).unwrap().changes, torn.changes);
        std::fs::write(path(data), [&whole[..9], b"x", &whole[10..]].concat()).unwrap();
        let error = Log::read(data).unwrap_err().to_string();
        assert!(error.contains("line 1 is damaged"), "{error}");
    }
}
