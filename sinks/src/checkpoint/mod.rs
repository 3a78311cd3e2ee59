//! Checkpoints as files: what operators have changed, sorted by key, and the newest of it at a restart (ADR 4).
//!
//! ```text
//!                 ┌──────────────────── thread "checkpoint" ────────────────────┐
//!  parts of all   │ sort, merge workers ──► one file per operator ──► durable ──┼──► CheckpointEntry ──► progress log
//!  workers   ──►  │                              │  while nothing waits         │          │
//!                 │                              └──► files merged, for the     │          ▼ named
//!                 │                                   next entry                │ ◄── older files deleted
//!                 └─────────────────────────────────────────────────────────────┘
//!  restart:  sweep (what nobody names) ──► load, operator by operator ──► Checkpointer::start(base)
//! ```
//!
//! Contract: a checkpoint is its entry, a list of files. An entry is given out only when all its files are durable, and
//! it counts once the progress log names it. A file never changes. A file that an entry names is there until a newer
//! entry that does not name it has been [`Checkpointer::named`]. So whatever the moment of a crash, the newest entry in
//! the progress log can be loaded, and what else lies about is swept at the start.
//!
//! An entry is the one before it, with merges applied, and one new file for each operator that changed. Merging keeps
//! an operator at about 8 files (12 at most, then checkpoints wait for it), and the bytes that a restart reads at
//! about three times what there is (see `merge::plan`).
//!
//! Nothing here knows what a key or a value means.
//!
//! Memory: the parts that were handed over (two checkpoints at most), compressed; before that, what the [`Packer`] has not come
//! to; and one block (128 KiB, or one larger record) of
//! each file that is merged or loaded.

mod error;
mod file;
mod format;
mod merge;
mod packed;
mod packer;
mod thread;

pub use error::CheckpointError;
pub use format::FORMAT;
pub use packed::PackedPart;
pub use packer::Packer;

use crate::background;
use crate::failpoint;
use crate::store::Storage;
use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use drivetrain_schemas::records::{Change, Records};
use file::Place;
use merge::Merged;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::thread::JoinHandle;
use thread::{Command, Keeper};

/// Where checkpoint files are, below the data directory.
pub const CHECKPOINTS: &str = "checkpoints";

/// Checkpoints that are handed over and not durable: the one being written and one that waits.
const QUEUE: usize = 2;

/// What one operator of one worker has changed since the last checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub operator: String,
    pub worker: usize,
    pub records: Records,
}

/// A whole checkpoint: the state after `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointEntry {
    /// [`FORMAT`] of the version that wrote it.
    pub format: u32,
    pub epoch: i64,
    /// The files to load, oldest first for each operator.
    pub files: Vec<CheckpointFile>,
}

/// A file of a checkpoint. It never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFile {
    pub operator: String,
    /// Below the data directory: `checkpoints/g<gen>/<operator>-<first epoch>-<last epoch>-<seq>.ckpt`, the operator
    /// with `_` for what is no letter, digit, `_` or `.`.
    pub path: String,
    pub records: u64,
    pub bytes: u64,
    /// XXH3-64 of the file's bytes but the last 8, which hold it; 16 hex digits.
    pub checksum: String,
    /// The changes of these epochs, the last included.
    pub first_epoch: i64,
    pub last_epoch: i64,
}

/// What a checkpoint has of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The key's value.
    Bytes(&'a [u8]),
    /// The row's count; not 0.
    Count(i64),
}

/// The checkpoints' thread, as its owner sees it. Dropping it waits until what was handed over is written.
#[derive(Debug)]
pub struct Checkpointer {
    commands: Option<Sender<Command>>,
    results: Receiver<Result<CheckpointEntry, CheckpointError>>,
    thread: Option<JoinHandle<()>>,
    /// The newest epoch handed over.
    last: Option<i64>,
    /// Handed over, and no result received.
    pending: usize,
    /// Received, and not yet returned.
    ready: Vec<CheckpointEntry>,
}

impl Checkpointer {
    /// Starts the thread "checkpoint". `base`: the checkpoint that was restored; new ones build on its files.
    ///
    /// # Errors
    /// [`CheckpointError::Format`] when the base is of another format.
    pub fn start(
        storage: impl Into<Storage>,
        generation: u64,
        base: Option<CheckpointEntry>,
    ) -> Result<Self, CheckpointError> {
        let storage = storage.into();
        base.as_ref().map_or(Ok(()), |base| check_format(&storage, base))?;
        let last = base.as_ref().map(|b| b.epoch);
        let (commands, inbox) = unbounded();
        let (outbox, results) = unbounded();
        let keeper = Keeper::new(Place::new(storage, generation), base);
        let plan = failpoint::current();
        let serve = move || {
            failpoint::adopt(plan);
            background::yield_to_others();
            keeper.run(&inbox, &outbox);
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(serve);
        let thread = thread.map_err(CheckpointError::Thread)?;
        Ok(Self { commands: Some(commands), results, thread: Some(thread), last, pending: 0, ready: Vec::new() })
    }

    /// Hands over all parts of an epoch, any number of workers for each operator. Returns at once while at most one
    /// earlier checkpoint is being written; waits while another one queues behind that.
    ///
    /// # Errors
    /// [`CheckpointError::Order`] when the epoch is not beyond the last one; an error of the thread.
    pub fn write(&mut self, epoch: i64, parts: Vec<PackedPart>) -> Result<(), CheckpointError> {
        if let Some(last) = self.last.filter(|last| epoch <= *last) {
            return Err(CheckpointError::Order { epoch, last });
        }
        while self.pending >= QUEUE {
            self.wait()?;
        }
        let sent = self.commands.as_ref().is_some_and(|c| c.send(Command::Write(epoch, parts)).is_ok());
        if !sent {
            // The thread has ended: it says why, if it can.
            loop {
                self.wait()?;
            }
        }
        (self.last, self.pending) = (Some(epoch), self.pending + 1);
        Ok(())
    }

    /// Checkpoints that have become durable since the last call, oldest first. An error of the thread is reported here,
    /// once; after it the thread is gone.
    pub fn written(&mut self) -> Result<Vec<CheckpointEntry>, CheckpointError> {
        loop {
            match self.results.try_recv() {
                Ok(result) => self.receive(result)?,
                Err(TryRecvError::Empty) => return Ok(std::mem::take(&mut self.ready)),
                Err(TryRecvError::Disconnected) => return Err(CheckpointError::Gone),
            }
        }
    }

    /// Waits until everything handed over is durable; returns what [`Self::written`] would. More can be handed over
    /// afterwards.
    pub fn drain(&mut self) -> Result<Vec<CheckpointEntry>, CheckpointError> {
        while self.pending > 0 {
            self.wait()?;
        }
        self.written()
    }

    /// The progress log names this checkpoint now, durably: files that only older ones need are deleted, in the
    /// background. Failing to delete is logged, not fatal.
    pub fn named(&mut self, entry: &CheckpointEntry) {
        if let Some(commands) = &self.commands {
            // A thread that has ended is reported by the next call of `written`.
            let _ = commands.send(Command::Named(entry.clone()));
        }
    }

    fn wait(&mut self) -> Result<(), CheckpointError> {
        let result = self.results.recv().map_err(|_| CheckpointError::Gone)?;
        self.receive(result)
    }

    fn receive(&mut self, result: Result<CheckpointEntry, CheckpointError>) -> Result<(), CheckpointError> {
        match result {
            Ok(entry) => self.ready.push(entry),
            Err(error) => {
                self.end();
                return Err(error);
            }
        }
        self.pending -= 1;
        Ok(())
    }

    fn end(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // Its panic is reported by `CheckpointError::Gone`, or nobody asks any more.
            let _ = thread.join();
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reads one operator's records of a checkpoint, merged: each key once, in byte order; the newest value of keyed ones
/// (gone ones are left out), the sums of rows (0 is left out). Returns the number of records.
///
/// # Errors
/// The first damage ends it. What was handed over before is right, but not all of it: it must not be used.
pub fn load(
    storage: impl Into<Storage>,
    entry: &CheckpointEntry,
    operator: &str,
    each: &mut dyn FnMut(&[u8], Value<'_>),
) -> Result<u64, CheckpointError> {
    let storage = storage.into();
    check_format(&storage, entry)?;
    let files: Vec<CheckpointFile> = entry.files.iter().filter(|f| f.operator == operator).cloned().collect();
    let mut merged = Merged::open(&storage, &files, true)?;
    let mut records = 0;
    while let Some(record) = merged.next()? {
        match record.change {
            Change::Put(value) => each(record.key, Value::Bytes(value)),
            Change::Add(count) => each(record.key, Value::Count(count)),
            Change::Gone => continue,
        }
        records += 1;
    }
    Ok(records)
}

/// Deletes checkpoint files that generations before this one have written and `keep` does not name: what crashes have
/// left. Files of this generation and later ones are left alone: whoever calls may have been overtaken, and not know it
/// yet. Called at the start, after the claim and before the [`Checkpointer`]. Returns the files, relative to the data
/// directory, in byte order.
pub fn sweep(
    storage: impl Into<Storage>,
    generation: u64,
    keep: Option<&CheckpointEntry>,
) -> Result<Vec<String>, CheckpointError> {
    let keep: BTreeSet<&str> = keep.iter().flat_map(|k| &k.files).map(|f| f.path.as_str()).collect();
    Ok(file::sweep(&storage.into(), generation, &keep)?)
}

fn check_format(storage: &Storage, entry: &CheckpointEntry) -> Result<(), CheckpointError> {
    if entry.format == FORMAT {
        return Ok(());
    }
    // Its files know which version wrote them, if they are of the same format.
    let writer = entry.files.iter().find_map(|f| file::writer(storage, &f.path));
    let writer = writer.unwrap_or_else(|| "another version of drivetrain".into());
    Err(CheckpointError::Format {
        place: format!("the checkpoint of epoch {}", entry.epoch),
        found: entry.format,
        writer,
    })
}

#[cfg(test)]
mod tests;
