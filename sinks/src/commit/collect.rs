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
}

#[derive(Debug, Default)]
struct Pending {
    ticket: Option<Ticket>,
    outputs: Vec<Output>,
}

/// The parts of a flagged epoch.
#[derive(Debug, Default)]
struct Parts {
    came: Vec<PackedPart>,
    /// So many operators have more.
    open: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    epochs: BTreeMap<i64, Pending>,
    /// Of epochs that are to come, or were taken and are no checkpoint yet.
    parts: BTreeMap<i64, Parts>,
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
        let frontiers = vec![i64::MIN; workers];
        Self { epochs: BTreeMap::new(), parts: BTreeMap::new(), frontiers, taken, stopped: false, ended: false }
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
            Message::Part { epoch, part } => self.parts(epoch)?.came.push(part),
            Message::Parts { epoch, done } => {
                let parts = self.parts(epoch)?;
                let open = if done { parts.open.checked_sub(1) } else { parts.open.checked_add(1) };
                let nobody =
                    || CommitError::Protocol { epoch, problem: "parts are complete that were not begun".into() };
                parts.open = open.ok_or_else(nobody)?;
            }
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

    /// The parts of an epoch; of one that was taken only while some are still to come.
    fn parts(&mut self, epoch: i64) -> Result<&mut Parts, CommitError> {
        if epoch <= self.taken && self.parts.get(&epoch).is_none_or(|parts| parts.open == 0) {
            return Err(CommitError::Protocol { epoch, problem: "a part came after it was finished".into() });
        }
        Ok(self.parts.entry(epoch).or_default())
    }

    /// Whether all parts up to this epoch, whose frontiers have passed, have come.
    fn is_whole(&self, epoch: i64) -> bool {
        self.parts.range(..=epoch).all(|(_, parts)| parts.open == 0)
    }

    /// Takes the parts of an epoch that was taken; None: some are still to come.
    pub(super) fn whole(&mut self, epoch: i64) -> Option<Vec<PackedPart>> {
        let is_whole = epoch <= self.taken && self.parts.get(&epoch).is_some_and(|parts| parts.open == 0);
        is_whole.then(|| self.parts.remove(&epoch)).flatten().map(|parts| parts.came)
    }

    /// Takes the finished epochs, oldest first, at most [`MOST`]. The last one waits for the checkpoints of all.
    pub(super) fn take(&mut self) -> Result<Vec<Finished>, CommitError> {
        let frontier = self.frontiers.iter().copied().min().unwrap_or(i64::MIN);
        let mut finished = Vec::new();
        while finished.len() < MOST
            && !self.ended
            && let Some((first, pending)) = self.epochs.first_key_value()
            && *first < frontier
            && let Some(ticket) = &pending.ticket
        {
            let (epoch, last, checkpoint) = (*first, ticket.end || ticket.stop, ticket.checkpoint);
            if last && !self.is_whole(epoch) {
                break;
            }
            let Some(Pending { ticket: Some(ticket), outputs }) = self.epochs.remove(&epoch) else { break };
            match self.parts.get(&epoch).and_then(|parts| parts.came.first()).filter(|_| !checkpoint) {
                Some(part) => {
                    let problem = format!("a part of {} came, and no checkpoint was asked for", part.operator());
                    return Err(CommitError::Protocol { epoch, problem });
                }
                None if checkpoint => drop(self.parts.entry(epoch).or_default()),
                None => {}
            }
            self.taken = epoch;
            self.ended = ticket.end;
            finished.push(Finished { ticket, outputs });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Part;
    use drivetrain_schemas::records::Records;

    fn part(epoch: i64, worker: usize) -> Message {
        let mut records = Records::keyed();
        records.put(b"k", |_| {});
        Message::Part { epoch, part: Part { operator: "o".into(), worker, records }.into() }
    }

    fn ticket(epoch: i64, checkpoint: bool, stop: bool) -> Message {
        Message::Ticket(Ticket { epoch, checkpoint, stop, ..Ticket::default() })
    }

    fn frontier(collector: &mut Collector, epoch: i64) {
        (0..2).for_each(|worker| collector.push(Message::Frontier { worker, epoch }).unwrap());
    }

    fn taken(collector: &mut Collector) -> Vec<i64> {
        collector.take().unwrap().iter().map(|finished| finished.ticket.epoch).collect()
    }

    #[test]
    fn an_epoch_does_not_wait_for_its_parts_and_the_last_one_for_all() {
        let mut collector = Collector::new(2, -1);
        for message in [ticket(0, true, false), part(0, 0), ticket(1, false, false), ticket(2, true, true), part(2, 1)]
        {
            collector.push(message).unwrap();
        }
        collector.push(Message::Parts { epoch: 0, done: false }).unwrap();
        collector.push(Message::Parts { epoch: 0, done: false }).unwrap();
        frontier(&mut collector, 2);
        assert_eq!(taken(&mut collector), [0, 1]);
        assert!(collector.whole(0).is_none());
        collector.push(Message::Stop).unwrap();
        frontier(&mut collector, i64::MAX);
        collector.push(part(0, 1)).unwrap();
        collector.push(Message::Parts { epoch: 0, done: true }).unwrap();
        assert!(taken(&mut collector).is_empty() && !collector.is_done());
        assert!(collector.whole(0).is_none());
        collector.push(Message::Parts { epoch: 0, done: true }).unwrap();
        assert_eq!(collector.whole(0).unwrap().len(), 2);
        assert_eq!(taken(&mut collector), [2]);
        assert!(collector.is_done());
        assert_eq!(collector.whole(2).unwrap().len(), 1);
    }

    #[test]
    fn a_part_that_nobody_expects_is_found() {
        let mut collector = Collector::new(2, -1);
        collector.push(ticket(0, true, false)).unwrap();
        frontier(&mut collector, 1);
        assert_eq!(taken(&mut collector), [0]);
        let late = collector.push(part(0, 0)).unwrap_err().to_string();
        assert!(late.contains("after it was finished"), "{late}");
        assert!(collector.whole(0).unwrap().is_empty());
        assert!(collector.push(Message::Parts { epoch: 0, done: false }).is_err());
        collector.push(ticket(1, false, false)).unwrap();
        collector.push(part(1, 0)).unwrap();
        frontier(&mut collector, 2);
        let unasked = collector.take().unwrap_err().to_string();
        assert!(unasked.contains("no checkpoint was asked for"), "{unasked}");
        let unbegun = collector.push(Message::Parts { epoch: 3, done: true }).unwrap_err().to_string();
        assert!(unbegun.contains("not begun"), "{unbegun}");
    }
}
