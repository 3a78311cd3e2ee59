//! Messages by epoch, until the epochs are finished.

use super::CommitError;
use crate::checkpoint::PackedPart;
use crate::message::{Message, Output, Ticket};
use std::collections::BTreeMap;

/// Epochs of one commit at most, so that a progress record stays small.
const MOST: usize = 256;

/// An epoch with all its output.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) ticket: Ticket,
    pub(super) outputs: Vec<Output>,
    /// Of a flagged epoch.
    pub(super) parts: Vec<PackedPart>,
}

#[derive(Debug, Default)]
struct Pending {
    ticket: Option<Ticket>,
    outputs: Vec<Output>,
    parts: Vec<PackedPart>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    epochs: BTreeMap<i64, Pending>,
    /// Each worker has finished all epochs below.
    frontiers: Vec<i64>,
    /// The newest epoch taken.
    taken: i64,
    stopped: bool,
    ended: bool,
}

impl Collector {
    /// `taken`: nothing is to come of this epoch and those before it.
    pub(super) fn new(workers: usize, taken: i64) -> Self {
        let (epochs, frontiers) = (BTreeMap::new(), vec![i64::MIN; workers]);
        Self { epochs, frontiers, taken, stopped: false, ended: false }
    }

    pub(super) fn push(&mut self, message: Message) -> Result<(), CommitError> {
        match message {
            Message::Ticket(ticket) => {
                let epoch = ticket.epoch;
                let pending = self.pending(epoch, "a ticket")?;
                if pending.ticket.replace(ticket).is_some() {
                    return Err(CommitError::Protocol { epoch, problem: "it has two tickets".into() });
                }
            }
            Message::Output { epoch, output } => self.pending(epoch, "output")?.outputs.push(output),
            Message::Part { epoch, part } => self.pending(epoch, "a part")?.parts.push(part),
            Message::Frontier { worker, epoch } => match self.frontiers.get_mut(worker) {
                Some(frontier) => *frontier = epoch.max(*frontier),
                None => {
                    let problem = format!("worker {worker} is not one of {}", self.frontiers.len());
                    return Err(CommitError::Protocol { epoch, problem });
                }
            },
            Message::Stop => self.stopped = true,
            Message::Failed(problem) => return Err(CommitError::Failed(problem)),
        }
        Ok(())
    }

    fn pending(&mut self, epoch: i64, what: &str) -> Result<&mut Pending, CommitError> {
        if epoch <= self.taken {
            return Err(CommitError::Protocol { epoch, problem: format!("{what} came after it was finished") });
        }
        Ok(self.epochs.entry(epoch).or_default())
    }

    /// Takes the finished epochs, oldest first, at most [`MOST`].
    pub(super) fn take(&mut self) -> Result<Vec<Finished>, CommitError> {
        let frontier = self.frontiers.iter().copied().min().unwrap_or(i64::MIN);
        let mut finished = Vec::new();
        while finished.len() < MOST
            && !self.ended
            && let Some(first) = self.epochs.first_entry()
            && *first.key() < frontier
            && first.get().ticket.is_some()
        {
            let (epoch, Pending { ticket, outputs, parts }) = first.remove_entry();
            let Some(ticket) = ticket else { continue };
            if let Some(part) = parts.first().filter(|_| !ticket.checkpoint) {
                let problem = format!("a part of {} came, and no checkpoint was asked for", part.operator());
                return Err(CommitError::Protocol { epoch, problem });
            }
            self.taken = epoch;
            self.ended = ticket.end;
            finished.push(Finished { ticket, outputs, parts });
        }
        if let Some((epoch, _)) = self.epochs.first_key_value()
            && self.ended
        {
            return Err(CommitError::Protocol { epoch: *epoch, problem: "it came after the end".into() });
        }
        Ok(finished)
    }

    /// Whether nothing more is to come: the end was taken, or a stop was asked for and all tickets are done.
    pub(super) fn is_done(&self) -> bool {
        self.ended || (self.stopped && self.epochs.values().all(|p| p.ticket.is_none()))
    }

    /// Where it stands, for an error.
    pub(super) fn taken(&self) -> i64 {
        self.taken
    }
}
