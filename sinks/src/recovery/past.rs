//! What the progress log says has happened.

use super::RecoveryError;
use crate::checkpoint::CheckpointEntry;
use crate::message::Ticket;
use crate::progress::{FORMAT, FileEntry, ProgressEntry, ProgressRecord};
use std::collections::BTreeMap;

/// Who is starting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub job: String,
    /// Hash of that part of the configuration on which results depend.
    pub config_hash: String,
    /// Version of the code.
    pub version: String,
    /// A hash of each section of the configuration that must be the same where operators go on from a checkpoint.
    pub sections: BTreeMap<String, String>,
}

/// The log, read and checked.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The one to claim.
    pub(super) generation: u64,
    /// This job's name.
    pub(super) job: String,
    pub(super) last: Option<ProgressRecord>,
    /// The last one that was named.
    pub(super) checkpoint: Option<CheckpointEntry>,
    /// What it was made with ([`Identity::sections`]).
    sections: BTreeMap<String, String>,
    /// All that the log still has, ascending.
    pub(super) tickets: Vec<Ticket>,
    /// Files that commits have named: number of the commit, its generation, its files.
    published: Vec<(u64, u64, Vec<FileEntry>)>,
}

impl Past {
    /// Makes sense of the entries.
    ///
    /// # Errors
    /// [`RecoveryError::Format`] and [`RecoveryError::Damaged`]: a generation that is not the newest has committed, a
    /// commit is missing, or an epoch that must be repeated.
    pub(super) fn of(entries: Vec<ProgressEntry>, job: &str) -> Result<Self, RecoveryError> {
        let mut past = Past { job: job.to_string(), ..Past::default() };
        let mut newest = 0;
        for entry in entries {
            let generation = entry.generation();
            if generation < newest {
                let problem = format!("generation {generation} stands behind generation {newest}");
                return Err(past.damaged(problem));
            }
            newest = generation;
            if let ProgressEntry::Commit(record) = entry {
                past.add(record)?;
            }
        }
        past.generation = newest + 1;
        past.check_tickets()?;
        Ok(past)
    }

    fn add(&mut self, mut record: ProgressRecord) -> Result<(), RecoveryError> {
        if record.format != FORMAT {
            return Err(RecoveryError::Format { found: record.format, version: record.version });
        }
        if let Some(before) = self.last.as_ref().map(|l| l.commit).filter(|before| before + 1 != record.commit) {
            return Err(self.damaged(format!("commit {} follows commit {before}", record.commit)));
        }
        if record.checkpoint.is_some() {
            self.checkpoint.clone_from(&record.checkpoint);
            self.sections = std::mem::take(&mut record.sections);
        }
        self.tickets.append(&mut record.epochs);
        if !record.published.is_empty() {
            self.published.push((record.commit, record.generation, std::mem::take(&mut record.published)));
        }
        self.last = Some(record);
        Ok(())
    }

    /// From the checkpoint to the last commit no epoch may be missing.
    fn check_tickets(&self) -> Result<(), RecoveryError> {
        let mut expected = self.after() + 1;
        for ticket in self.tickets.iter().filter(|t| t.epoch > self.after()) {
            if ticket.epoch != expected {
                return Err(self.damaged(format!("epoch {expected} is missing before epoch {}", ticket.epoch)));
            }
            expected += 1;
        }
        if expected <= self.committed() {
            return Err(self.damaged(format!("epoch {expected} is missing; epoch {} is committed", self.committed())));
        }
        Ok(())
    }

    fn damaged(&self, problem: String) -> RecoveryError {
        RecoveryError::Damaged { job: self.job.clone(), problem }
    }

    /// The last committed epoch; -1 before the first.
    pub(super) fn committed(&self) -> i64 {
        self.last.as_ref().map_or(-1, |r| r.committed_epoch)
    }

    /// The checkpoint's epoch; -1 when there is none.
    pub(super) fn after(&self) -> i64 {
        self.checkpoint.as_ref().map_or(-1, |c| c.epoch)
    }

    /// Whether the log says that there is something in the manifest's place.
    pub(super) fn needs_history(&self) -> bool {
        self.checkpoint.is_some() || self.published.iter().any(|(_, _, files)| !files.is_empty())
    }

    /// Files named by commits after this one, with the generation that wrote them.
    pub(super) fn published_after(&self, commit: u64) -> impl Iterator<Item = (u64, &[FileEntry])> {
        self.published
            .iter()
            .filter(move |p| p.0 > commit)
            .map(|(_, generation, files)| (*generation, files.as_slice()))
    }

    /// Whether this run may go on.
    ///
    /// # Errors
    /// [`RecoveryError::OtherJob`], [`RecoveryError::Changed`], [`RecoveryError::Section`].
    pub(super) fn check(&self, identity: &Identity) -> Result<(), RecoveryError> {
        let Some(last) = &self.last else { return Ok(()) };
        if last.job != identity.job {
            return Err(RecoveryError::OtherJob { job: identity.job.clone(), earlier: last.job.clone() });
        }
        let epochs = self.committed() - self.after();
        let same = [
            ("version", &last.version, &identity.version),
            ("configuration", &last.config_hash, &identity.config_hash),
        ];
        match same.into_iter().find(|(_, before, now)| before != now) {
            Some((what, before, now)) if epochs > 0 && !last.end => {
                Err(RecoveryError::Changed { what, before: before.clone(), now: now.clone(), epochs })
            }
            _ => self.check_sections(identity),
        }
    }

    /// Operators go on with state that fits their configuration. A section that was not there before is of something new.
    fn check_sections(&self, identity: &Identity) -> Result<(), RecoveryError> {
        let fits = |(name, before): &(&String, &String)| identity.sections.get(*name) == Some(*before);
        match (&self.checkpoint, self.sections.iter().find(|section| !fits(section))) {
            (Some(checkpoint), Some((section, _))) if !self.last.as_ref().is_some_and(|last| last.end) => {
                Err(RecoveryError::Section { section: section.clone(), epoch: checkpoint.epoch })
            }
            _ => Ok(()),
        }
    }
}
