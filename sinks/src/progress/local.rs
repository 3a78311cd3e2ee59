//! The progress log as a file: `<data>/progress/log.jsonl`, one entry a line with its checksum ([`super::lines`]).

use super::lines::{self, Appender};
use super::{Claim, ProgressEntry, ProgressError, ProgressLog, ProgressRecord};
use crate::files::{create_dir, sync_dir};
use std::path::{Path, PathBuf};

/// Path of the log below the data directory.
pub const LOG: &str = "progress/log.jsonl";

/// The log opened for appending.
#[derive(Debug)]
pub struct LocalLog {
    path: PathBuf,
    file: Appender,
}

impl LocalLog {
    /// Opens or creates the log of a data directory; a torn last line is cut off.
    ///
    /// # Errors
    /// [`ProgressError::Corrupt`] when an earlier line is damaged.
    pub fn open(data: &Path) -> Result<Self, ProgressError> {
        let path = data.join(LOG);
        let good = read(&path, |_| {})?;
        let dir = data.join("progress");
        create_dir(&dir)?;
        let file = Appender::open(&path, good)?;
        sync_dir(&dir)?;
        Ok(Self { path, file })
    }

    /// Makes what was appended durable: the instant at which it has happened.
    pub fn sync(&mut self) -> Result<(), ProgressError> {
        Ok(self.file.sync()?)
    }

    fn write(&mut self, entry: &ProgressEntry) -> Result<(), ProgressError> {
        Ok(self.file.append(&lines::line(&to_json(entry)?))?)
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
    read(path, |entry| entries.push(entry))?;
    Ok(entries)
}

/// The newest committed epoch; `None` before the first. Reads the end of the file only, unless the last run has not
/// committed anything.
pub fn committed_epoch(data: &Path) -> Result<Option<i64>, ProgressError> {
    let path = data.join(LOG);
    let Some(json) = lines::last(&path)? else { return Ok(None) };
    let newest = |record: &ProgressRecord| Some(record.committed_epoch).filter(|e| *e >= 0);
    if let Ok(ProgressEntry::Commit(record)) = serde_json::from_str(&json) {
        return Ok(newest(&record));
    }
    let mut last = None;
    read(&path, |entry| {
        if let ProgressEntry::Commit(record) = entry {
            last = newest(&record);
        }
    })?;
    Ok(last)
}

fn read(path: &Path, mut each: impl FnMut(ProgressEntry)) -> Result<u64, ProgressError> {
    let mut number = 0u64;
    let mut wrong = None;
    let scan = lines::scan(path, |json| {
        number += 1;
        match serde_json::from_str(json) {
            Ok(entry) => each(entry),
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
    use crate::message::Ticket;

    fn record(epoch: i64) -> ProgressRecord {
        let ticket = Ticket { epoch, wall: epoch * 7, bindings: vec![], control: vec![], idle: vec![], end: false };
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
}
