//! Readers of the local topics; they work while the job writes.

use super::{segment, segments};
use crate::files::{At, FileError};
use crate::progress::ProgressError;
use crate::progress::data::LIVE;
use crate::progress::local::{committed_epoch, generation};
use drivetrain_schemas::table::DEAD_LETTER;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRecord {
    pub epoch: i64,
    pub key: String,
    /// The JSON value; `None`: the key has ended.
    pub value: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    epoch: i64,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

/// How often a reader begins anew because a compaction took its segment away, or a start came between.
const ATTEMPTS: usize = 16;

/// The newest committed value (JSON text) of each key of a topic, by key. Empty when the topic does not exist.
///
/// # Errors
/// When a file cannot be read, or the progress log is damaged.
pub fn read_latest(data: &Path, topic: &str) -> Result<BTreeMap<String, String>, ProgressError> {
    Ok(snapshot(data, topic)?.values.into_iter().map(|(key, (_, value))| (key, value)).collect())
}

/// The committed dead letters, oldest first, each as one JSON object with `epoch`, `headers` and `payload_base64`.
pub fn read_dead_letters(data: &Path) -> Result<Vec<String>, ProgressError> {
    #[derive(Deserialize)]
    struct Epoch {
        epoch: i64,
    }
    let dir = data.join(LIVE).join(DEAD_LETTER);
    repeatedly(&dir, || {
        let before = generation(data)?;
        let mut found = Vec::new();
        for number in segments(&dir)? {
            lines(&segment(&dir, number), 0, |line| {
                if let Ok(Epoch { epoch }) = serde_json::from_str(line) {
                    found.push((epoch, line.to_string()));
                }
            })?;
        }
        let Some(committed) = committed_since(data, before)? else { return Ok(None) };
        found.retain(|(epoch, _)| *epoch <= committed);
        Ok(Some(found.into_iter().map(|(_, line)| line).collect()))
    })
}

/// Reads until it succeeds; `None` says that it must be done again.
fn repeatedly<T>(dir: &Path, mut read: impl FnMut() -> Result<Option<T>, ProgressError>) -> Result<T, ProgressError> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        match read() {
            Err(ProgressError::File(e)) if e.source.kind() == std::io::ErrorKind::NotFound => last = Some(e),
            Err(e) => return Err(e),
            Ok(Some(done)) => return Ok(done),
            Ok(None) => {}
        }
    }
    let problem = || "it was started again and again while it was read".to_string();
    Err(last.map_or_else(
        || ProgressError::Corrupt { place: dir.display().to_string(), problem: problem() },
        ProgressError::from,
    ))
}

/// The newest committed epoch (`i64::MIN` before the first), unless another generation has claimed since.
fn committed_since(data: &Path, before: u64) -> Result<Option<i64>, ProgressError> {
    let committed = committed_epoch(data)?.unwrap_or(i64::MIN);
    Ok((generation(data)? == before).then_some(committed))
}

/// A topic at one instant: key → (epoch, value), and where to read on.
struct Snapshot {
    values: BTreeMap<String, (i64, String)>,
    generation: u64,
    segment: u64,
    offset: u64,
}

fn snapshot(data: &Path, topic: &str) -> Result<Snapshot, ProgressError> {
    let dir = data.join(LIVE).join(topic);
    repeatedly(&dir, || try_snapshot(data, &dir))
}

fn try_snapshot(data: &Path, dir: &Path) -> Result<Option<Snapshot>, ProgressError> {
    let before = generation(data)?;
    let numbers = segments(dir)?;
    let mut records = Vec::new();
    for &number in &numbers {
        let mut offset = 0;
        lines(&segment(dir, number), 0, |line| {
            offset += line.len() as u64 + 1;
            records.extend(parse(line).map(|record| (record, number, offset)));
        })?;
    }
    // Only now: what a compaction has taken away was replaced by something that this covers.
    let Some(committed) = committed_since(data, before)? else { return Ok(None) };
    let segment = numbers.last().copied().unwrap_or(0);
    let mut snapshot = Snapshot { values: BTreeMap::new(), generation: before, segment, offset: 0 };
    for (record, number, end) in records {
        if record.epoch > committed {
            continue;
        }
        if number == snapshot.segment {
            snapshot.offset = end;
        }
        match record.value {
            Some(value) => snapshot.values.insert(record.key, (record.epoch, value)),
            None => snapshot.values.remove(&record.key),
        };
    }
    Ok(Some(snapshot))
}

fn parse(line: &str) -> Option<LiveRecord> {
    let Line { epoch, key, value } = serde_json::from_str(line).ok()?;
    Some(LiveRecord { epoch, key: key.into_owned(), value: value.map(|v| v.get().to_string()) })
}

/// Hands each whole line from an offset on to `each`; a last one without its end is being written.
fn lines(path: &Path, from: u64, mut each: impl FnMut(&str)) -> Result<(), FileError> {
    let mut reader = BufReader::with_capacity(1 << 16, File::open(path).at("cannot open", path)?);
    reader.seek(SeekFrom::Start(from)).at("cannot read", path)?;
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).at("cannot read", path)? > 0 {
        let Some(text) = line.strip_suffix(b"\n") else { return Ok(()) };
        each(std::str::from_utf8(text).unwrap_or(""));
        line.clear();
    }
    Ok(())
}

/// Follows a topic: the newest values first, then each change as it is committed. When a compaction comes between two
/// polls, only the newest change of each key is seen, as with a compacted topic.
#[derive(Debug)]
pub struct Follower {
    data: PathBuf,
    topic: String,
    known: BTreeMap<String, i64>,
    generation: u64,
    segment: u64,
    offset: u64,
}

impl Follower {
    pub fn new(data: &Path, topic: &str) -> Self {
        let known = BTreeMap::new();
        Self { data: data.to_path_buf(), topic: topic.to_string(), known, generation: 0, segment: 0, offset: 0 }
    }

    /// What was committed since the last poll; at first all values. Does not wait.
    pub fn poll(&mut self) -> Result<Vec<LiveRecord>, ProgressError> {
        let dir = self.data.join(LIVE).join(&self.topic);
        let newest = segments(&dir)?.last().copied().unwrap_or(0);
        if newest == 0 {
            return Ok(Vec::new());
        }
        if newest != self.segment {
            return self.catch_up();
        }
        let mut found = Vec::new();
        let read = lines(&segment(&dir, newest), self.offset, |line| {
            found.push((line.len() as u64 + 1, parse(line)));
        });
        if let Err(e) = read {
            return if e.source.kind() == std::io::ErrorKind::NotFound { self.catch_up() } else { Err(e.into()) };
        }
        let Some(committed) = committed_since(&self.data, self.generation)? else { return self.catch_up() };
        let mut records = Vec::new();
        for (len, record) in found {
            if record.as_ref().is_some_and(|r| r.epoch > committed) {
                break;
            }
            self.offset += len;
            if let Some(record) = record {
                match record.value {
                    Some(_) => self.known.insert(record.key.clone(), record.epoch),
                    None => self.known.remove(&record.key),
                };
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Reads the topic whole and tells what is other than known.
    fn catch_up(&mut self) -> Result<Vec<LiveRecord>, ProgressError> {
        let Snapshot { values, generation, segment, offset } = snapshot(&self.data, &self.topic)?;
        let mut records = Vec::new();
        for (key, epoch) in &self.known {
            if !values.contains_key(key) {
                records.push(LiveRecord { epoch: *epoch, key: key.clone(), value: None });
            }
        }
        let known = values.iter().map(|(key, (epoch, _))| (key.clone(), *epoch)).collect();
        for (key, (epoch, value)) in values {
            if self.known.get(&key) != Some(&epoch) {
                records.push(LiveRecord { epoch, key, value: Some(value) });
            }
        }
        records.sort_by_key(|r| r.epoch);
        self.known = known;
        (self.generation, self.segment, self.offset) = (generation, segment, offset);
        Ok(records)
    }
}
