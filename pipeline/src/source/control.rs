//! Reference data: control documents from files and compacted topics become changes by key.
//!
//! ```text
//!  files ──────────┐                        ┌─► ControlChange (kind, key, document or withdrawn)
//!  control topics ─┴─► parse ─► compare ────┤
//!                               with what   └─► Reject (origin `reference`) for what can't be used
//!                               is known
//! ```
//!
//! A document's key is its own identity: `vehicle_id@effective_from`, `driver_id@effective_from` (without `@` where there
//! is no date), `fleet_id`, `policy_id@version`. On a topic, Kafka's key says which record replaces which: a tombstone
//! withdraws the document that stood under it last.

use super::chunk::Chunk;
use super::error::SourceError;
use super::feed::{Fed, Feed};
use drivetrain_schemas::control::{BAD_DOCUMENT, ControlChange, ControlKind, Document};
use drivetrain_schemas::decode::{Body, Record};
use drivetrain_schemas::reading::{NULL, Origin, Reject};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the reference data is. A kind may have files and topics.
#[derive(Clone, Debug, Default)]
pub struct Reference {
    /// `.jsonl` (a document a line) or `.json` (an array of documents, or a single one).
    pub files: Vec<(ControlKind, PathBuf)>,
    pub topics: Vec<(ControlKind, String)>,
}

type Key = (ControlKind, Arc<str>);

/// What is known, and the topics that are followed.
#[derive(Default)]
pub(crate) struct Control {
    known: BTreeMap<Key, Document>,
    /// Which document stands under a Kafka key.
    owned: BTreeMap<(Arc<Origin>, Vec<u8>), Key>,
    /// Under how many Kafka keys a document stands.
    owners: BTreeMap<Key, usize>,
    feeds: Vec<(ControlKind, Box<dyn Feed>)>,
    /// What was rejected before a restart: files and topics are read again from their beginning.
    rejected: BTreeSet<Rejected>,
}

/// Where a rejected document stands, and what it is.
type Rejected = (Arc<Origin>, i64, Option<Vec<u8>>);

/// What has changed.
#[derive(Default)]
pub(crate) struct Changes {
    pub(crate) changes: Vec<ControlChange>,
    pub(crate) rejects: Vec<Reject>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.rejects.is_empty()
    }
}

impl Control {
    pub(crate) fn follow(&mut self, kind: ControlKind, feed: Box<dyn Feed>) {
        self.feeds.push((kind, feed));
    }

    /// Takes over what was known before a restart, or what a recorded epoch says.
    pub(crate) fn recall(&mut self, changes: &[ControlChange]) {
        for change in changes {
            let key = (change.kind, change.key.clone());
            match &change.document {
                Some(document) => _ = self.known.insert(key, document.clone()),
                None => _ = self.known.remove(&key),
            }
        }
    }

    /// Takes over which documents were rejected before: they are not rejected again.
    pub(crate) fn recall_rejects(&mut self, rejects: &[Reject]) {
        self.rejected.extend(rejects.iter().map(|r| (r.origin.clone(), r.position, r.payload.clone())));
    }

    /// Reads files, and topics up to their present end; what differs from what was known is a change, also that a
    /// document is no longer there.
    pub(crate) fn start(
        &mut self,
        files: &[(ControlKind, PathBuf)],
        patience: Duration,
    ) -> Result<Changes, SourceError> {
        let before = std::mem::take(&mut self.known);
        let mut rejects = Vec::new();
        for (kind, path) in files {
            self.read_file(*kind, path, &mut rejects)?;
        }
        for i in 0..self.feeds.len() {
            let deadline = Instant::now() + patience;
            while !self.advance(i, &mut rejects)? {
                if Instant::now() > deadline {
                    return Err(SourceError::Client("a control topic could not be read to its end in time".into()));
                }
            }
        }
        rejects.retain(|r| !self.rejected.contains(&(r.origin.clone(), r.position, r.payload.clone())));
        Ok(Changes { changes: difference(&before, &self.known), rejects })
    }

    /// What has come on the topics since.
    pub(crate) fn poll(&mut self) -> Result<Changes, SourceError> {
        if self.feeds.is_empty() {
            return Ok(Changes::default());
        }
        // Control data is small (thousands of documents), and changes seldom.
        let mut rejects = Vec::new();
        let mut changes = Vec::new();
        for i in 0..self.feeds.len() {
            let Some((kind, feed)) = self.feeds.get_mut(i) else { continue };
            let kind = *kind;
            if let Fed::Chunk { chunk, .. } = feed.next(BATCH)? {
                self.apply(kind, &chunk, &mut rejects, &mut changes);
            }
        }
        Ok(Changes { changes, rejects })
    }

    /// Reads one batch of a topic; true when its end is reached for now.
    fn advance(&mut self, i: usize, rejects: &mut Vec<Reject>) -> Result<bool, SourceError> {
        let Some((kind, feed)) = self.feeds.get_mut(i) else { return Ok(true) };
        let kind = *kind;
        match feed.next(BATCH)? {
            Fed::Chunk { chunk, last } => {
                self.apply(kind, &chunk, rejects, &mut Vec::new());
                Ok(last)
            }
            Fed::Nothing => {
                std::thread::park_timeout(Duration::from_millis(5));
                Ok(false)
            }
            Fed::CaughtUp | Fed::Ended => Ok(true),
        }
    }

    fn apply(&mut self, kind: ControlKind, chunk: &Chunk, rejects: &mut Vec<Reject>, changes: &mut Vec<ControlChange>) {
        chunk.for_each(|record| {
            let owner = (record.origin.clone(), record.key.unwrap_or_default().to_vec());
            let document = match record.body {
                Body::Tombstone => None,
                Body::Json(bytes) => match parse(kind, bytes) {
                    Ok(parsed) => Some(parsed),
                    Err(detail) => return rejects.push(reject(&record, bytes, detail)),
                },
                _ => return,
            };
            let key = document.as_ref().map(|(key, _)| (kind, key.clone()));
            let before = match &key {
                Some(key) => self.owned.insert(owner, key.clone()),
                None => self.owned.remove(&owner),
            };
            if let Some(key) = &key {
                *self.owners.entry(key.clone()).or_default() += 1;
            }
            if let Some(count) = before.as_ref().and_then(|before| self.owners.get_mut(before)) {
                *count = count.saturating_sub(1);
            }
            // Compaction removes what stood under the key before, and so do we, unless it has a new owner.
            if let Some(before) = before.filter(|b| Some(b) != key.as_ref())
                && self.owners.get(&before).is_none_or(|count| *count == 0)
                && self.known.remove(&before).is_some()
            {
                changes.push(ControlChange { kind, key: before.1, document: None });
            }
            if let (Some(key), Some((_, document))) = (key, document)
                && self.known.get(&key) != Some(&document)
            {
                self.known.insert(key.clone(), document.clone());
                changes.push(ControlChange { kind, key: key.1, document: Some(document) });
            }
        });
    }

    fn read_file(&mut self, kind: ControlKind, path: &Path, rejects: &mut Vec<Reject>) -> Result<(), SourceError> {
        let bytes = std::fs::read(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => SourceError::Missing { path: path.to_path_buf() },
            _ => SourceError::Unreadable { path: path.to_path_buf(), reason: e.to_string() },
        })?;
        let name: Arc<str> = path.to_string_lossy().into();
        let origin = Arc::new(Origin { source: "reference".into(), name, partition: 0 });
        for (position, document) in documents(path, &bytes)? {
            match parse(kind, document) {
                Ok((key, document)) => _ = self.known.insert((kind, key), document),
                Err(detail) => {
                    let body = Body::Json(document);
                    let record = Record { origin: &origin, position, timestamp: None, key: None, headers: &[], body };
                    rejects.push(reject(&record, document, detail));
                }
            }
        }
        Ok(())
    }
}

const BATCH: usize = 1024;

/// The documents of a file with their line (or place in the array, from 1).
fn documents<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(i64, &'a [u8])>, SourceError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let form = |reason: String| SourceError::Form { path: path.to_path_buf(), form: "JSON", reason };
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let elements: Vec<&serde_json::value::RawValue> =
            serde_json::from_slice(bytes).map_err(|e| form(e.to_string()))?;
        return Ok(elements.iter().enumerate().map(|(i, e)| (i as i64 + 1, e.get().as_bytes())).collect());
    }
    if serde_json::from_slice::<&serde_json::value::RawValue>(bytes).is_ok() {
        return Ok(vec![(1, bytes)]);
    }
    let lines = bytes.split(|b| *b == b'\n').enumerate().map(|(i, line)| (i as i64 + 1, line.trim_ascii()));
    Ok(lines.filter(|(_, line)| !line.is_empty()).collect())
}

fn reject(record: &Record<'_>, payload: &[u8], detail: String) -> Reject {
    Reject {
        origin: record.origin.clone(),
        position: record.position,
        record_time: record.timestamp.unwrap_or(NULL),
        reason: BAD_DOCUMENT.into(),
        detail,
        payload: Some(payload.to_vec()),
    }
}

/// A document and its key.
fn parse(kind: ControlKind, bytes: &[u8]) -> Result<(Arc<str>, Document), String> {
    let failed = |e: serde_json::Error| format!("not a document of {}: {e}", kind.name());
    let dated = |id: &str, field: &str, from: &Option<String>| {
        if id.is_empty() {
            return Err(format!("{field} is empty"));
        }
        let Some(from) = from else { return Ok(Arc::from(id)) };
        drivetrain_schemas::time::parse_rfc3339(from).map_err(|e| format!("effective_from: {e}"))?;
        Ok(Arc::from(format!("{id}@{from}")))
    };
    Ok(match kind {
        ControlKind::Vehicles => {
            let v: drivetrain_schemas::control::Vehicle = serde_json::from_slice(bytes).map_err(failed)?;
            (dated(&v.vehicle_id, "vehicle_id", &v.effective_from)?, Document::Vehicle(v))
        }
        ControlKind::Drivers => {
            let d: drivetrain_schemas::control::Driver = serde_json::from_slice(bytes).map_err(failed)?;
            (dated(&d.driver_id, "driver_id", &d.effective_from)?, Document::Driver(d))
        }
        ControlKind::Fleets => {
            let f: drivetrain_schemas::control::Fleet = serde_json::from_slice(bytes).map_err(failed)?;
            (dated(&f.fleet_id, "fleet_id", &None)?, Document::Fleet(f))
        }
        ControlKind::Policies => {
            let p: drivetrain_schemas::policy::Policy = serde_json::from_slice(bytes).map_err(failed)?;
            (format!("{}@{}", p.policy_id, p.version).into(), Document::Policy(Box::new(p)))
        }
    })
}

/// The changes that make `after` of `before`, by kind and key.
fn difference(before: &BTreeMap<Key, Document>, after: &BTreeMap<Key, Document>) -> Vec<ControlChange> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key, None));
    let new = after.iter().filter(|(key, document)| before.get(*key) != Some(*document));
    let mut changes: Vec<ControlChange> = gone
        .chain(new.map(|(key, document)| (key, Some(document.clone()))))
        .map(|((kind, key), document)| ControlChange { kind: *kind, key: key.clone(), document })
        .collect();
    changes.sort();
    changes
}
