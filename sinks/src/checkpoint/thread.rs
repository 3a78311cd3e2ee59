//! The checkpoints' thread: writes what is handed over, and merges files while nothing waits.
//!
//! Invariant: a file that an entry names is deleted only after a newer entry that does not name it has been named in
//! the progress log.

use super::file::{FileReader, Place};
use super::format::Header;
use super::merge::{Merged, Run, plan};
use super::packed::PackedPart;
use super::{CheckpointEntry, CheckpointError, CheckpointFile, FORMAT};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use drivetrain_schemas::records::RecordKind;
use std::collections::{BTreeMap, BTreeSet};

/// Records that a merge writes before it looks whether a checkpoint waits.
pub(super) const STEP: usize = 4096;

/// With so many files more than merging wants, checkpoints wait for it.
pub(super) const CROWD: usize = 4;

pub(super) enum Command {
    Write(i64, Vec<PackedPart>),
    Named(CheckpointEntry),
}

pub(super) type Outbox = Sender<Result<CheckpointEntry, CheckpointError>>;

/// A merge of an operator's newest files that is under way. What is written meanwhile comes behind them.
struct Merge {
    operator: String,
    inputs: Vec<CheckpointFile>,
    run: Run<FileReader>,
}

/// The files that checkpoints consist of.
pub(super) struct Keeper {
    place: Place,
    /// Of the newest entry with merges applied: oldest first for each operator.
    files: BTreeMap<String, Vec<CheckpointFile>>,
    kinds: BTreeMap<String, RecordKind>,
    /// Of the newest entry; `None` before the first.
    epoch: Option<i64>,
    seq: u64,
    /// Merged files' inputs, with the epoch of the newest entry that names them.
    retired: Vec<(String, i64)>,
    /// Files that merging has made since the newest entry: no entry names them yet.
    unnamed: BTreeSet<String>,
    merge: Option<Merge>,
}

impl Keeper {
    pub(super) fn new(place: Place, base: Option<CheckpointEntry>) -> Self {
        let epoch = base.as_ref().map(|b| b.epoch);
        let mut files: BTreeMap<String, Vec<CheckpointFile>> = BTreeMap::new();
        for file in base.into_iter().flat_map(|b| b.files) {
            files.entry(file.operator.clone()).or_default().push(file);
        }
        Self {
            place,
            files,
            kinds: BTreeMap::new(),
            epoch,
            seq: 0,
            retired: Vec::new(),
            unnamed: BTreeSet::new(),
            merge: None,
        }
    }

    /// Serves commands until the owner goes away. An error is told and ends the thread.
    pub(super) fn run(mut self, inbox: &Receiver<Command>, outbox: &Outbox) {
        if let Err(error) = self.serve(inbox, outbox) {
            // Without an owner there is nobody to tell.
            let _ = outbox.send(Err(error));
        }
        if let Some(merge) = self.merge.take() {
            merge.run.abandon();
        }
    }

    fn serve(&mut self, inbox: &Receiver<Command>, outbox: &Outbox) -> Result<(), CheckpointError> {
        loop {
            let merging = self.plan()?;
            let command = match (merging, self.crowded()) {
                (true, true) => None,
                (true, false) => match inbox.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                },
                (false, _) => match inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return Ok(()),
                },
            };
            match command {
                Some(Command::Named(entry)) => self.named(&entry),
                Some(Command::Write(epoch, parts)) => {
                    let entry = self.write(epoch, parts)?;
                    if outbox.send(Ok(entry)).is_err() {
                        return Ok(());
                    }
                }
                None => self.step(STEP)?,
            }
        }
    }

    /// Writes an epoch's parts, durable.
    pub(super) fn write(&mut self, epoch: i64, parts: Vec<PackedPart>) -> Result<CheckpointEntry, CheckpointError> {
        let mut operators: BTreeMap<String, Vec<PackedPart>> = BTreeMap::new();
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            self.check_kind(&part)?;
            operators.entry(part.operator.clone()).or_default().push(part);
        }
        let first_epoch = self.epoch.map_or(epoch.min(0), |last| last + 1);
        let mut written = Vec::new();
        for (operator, parts) in operators {
            let header = self.header(operator, parts[0].kind, first_epoch, epoch);
            written.extend(self.write_parts(header, parts)?);
        }
        if !written.is_empty() {
            self.place.sync(written.iter())?;
        }
        for file in written {
            self.files.entry(file.operator.clone()).or_default().push(file);
        }
        self.epoch = Some(epoch);
        self.unnamed.clear();
        Ok(CheckpointEntry { format: FORMAT, epoch, files: self.files.values().flatten().cloned().collect() })
    }

    /// One operator's file. Its workers have no keys in common; had they, the last worker's record would stand.
    fn write_parts(
        &mut self,
        header: Header,
        mut parts: Vec<PackedPart>,
    ) -> Result<Option<CheckpointFile>, CheckpointError> {
        parts.sort_by_key(|p| p.worker);
        let whole = !self.files.contains_key(&header.operator);
        let sources = parts.into_iter().map(PackedPart::open).collect::<Result<_, _>>()?;
        let seq = self.next_seq();
        let mut run = Run::new(Merged::new(sources, whole), &self.place, header, seq);
        run.step(usize::MAX)?;
        run.finish()
    }

    /// Begins a merge if one is worthwhile; true while one is under way.
    pub(super) fn plan(&mut self) -> Result<bool, CheckpointError> {
        if self.merge.is_some() {
            return Ok(true);
        }
        let worthwhile = |files: &Vec<CheckpointFile>| {
            let sizes: Vec<u64> = files.iter().map(|f| f.bytes).collect();
            plan(&sizes, self.place.tiers)
        };
        let candidates = self.files.iter().filter_map(|(o, files)| Some((o, files, worthwhile(files)?)));
        let Some((operator, files, from)) = candidates.max_by_key(|(_, files, _)| files.len()) else {
            return Ok(false);
        };
        let (operator, inputs) = (operator.clone(), files[from..].to_vec());
        let merged = Merged::open(&self.place.storage, &inputs, from == 0)?;
        let first = inputs.iter().map(|f| f.first_epoch).min().unwrap_or_default();
        let last = inputs.iter().map(|f| f.last_epoch).max().unwrap_or_default();
        let header = self.header(operator.clone(), merged.kind(), first, last);
        let seq = self.next_seq();
        let run = Run::new(merged, &self.place, header, seq);
        self.merge = Some(Merge { operator, inputs, run });
        Ok(true)
    }

    /// Whether merging falls behind.
    pub(super) fn crowded(&self) -> bool {
        self.files.values().any(|files| files.len() >= self.place.tiers.files + CROWD)
    }

    /// Carries on with the merge; at its end its file takes the place of its inputs, from the next entry on.
    pub(super) fn step(&mut self, records: usize) -> Result<(), CheckpointError> {
        let Some(merge) = &mut self.merge else { return Ok(()) };
        if !merge.run.step(records)? {
            return Ok(());
        }
        let Some(Merge { operator, inputs, run }) = self.merge.take() else { return Ok(()) };
        let file = run.finish()?;
        if file.is_some() {
            self.place.sync(file.iter())?;
        }
        let made = file.as_ref().map(|f| f.path.clone());
        let bytes = |files: &[CheckpointFile]| files.iter().map(|f| f.bytes).sum::<u64>();
        let (of, to) = (bytes(&inputs), bytes(file.as_slice()));
        tracing::debug!(operator, files = inputs.len(), of, to, "checkpoint files merged");
        if let Some(files) = self.files.get_mut(&operator)
            && let Some(at) = files.iter().position(|f| inputs.first().is_some_and(|first| f.path == first.path))
        {
            files.splice(at..at + inputs.len(), file);
            if files.is_empty() {
                self.files.remove(&operator);
            }
        }
        self.unnamed.extend(made);
        let mut needless = Vec::new();
        for CheckpointFile { path, .. } in inputs {
            match self.epoch {
                Some(newest) if !self.unnamed.remove(&path) => self.retired.push((path, newest)),
                _ => needless.push(path),
            }
        }
        self.discard(needless);
        Ok(())
    }

    /// Deletes what only entries older than this one need.
    pub(super) fn named(&mut self, entry: &CheckpointEntry) {
        let needed = |path: &str, newest: i64| newest >= entry.epoch || entry.files.iter().any(|f| f.path == path);
        let retired = std::mem::take(&mut self.retired);
        let (needed, rest) = retired.into_iter().partition(|(path, newest)| needed(path, *newest));
        self.retired = needed;
        self.discard(rest.into_iter().map(|(path, _): (String, i64)| path).collect());
    }

    fn discard(&self, paths: Vec<String>) {
        if !paths.is_empty()
            && let Err(error) = self.place.delete(&paths)
        {
            tracing::warn!(%error, "old checkpoint files stay until the next start");
        }
    }

    fn header(&self, operator: String, kind: RecordKind, first_epoch: i64, last_epoch: i64) -> Header {
        Header { kind, operator, generation: self.place.generation, first_epoch, last_epoch }
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq - 1
    }

    /// All parts of an operator are of one kind; that its older files are too is found when they are merged or loaded.
    fn check_kind(&mut self, part: &PackedPart) -> Result<(), CheckpointError> {
        let found = part.kind;
        let expected = *self.kinds.entry(part.operator.clone()).or_insert(found);
        if found == expected {
            return Ok(());
        }
        let place = format!("the part of worker {}", part.worker);
        Err(CheckpointError::Kind { operator: part.operator.clone(), place, found, expected })
    }
}
