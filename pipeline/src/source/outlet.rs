//! Where the source thread's output goes: chunks each to one worker, ends of epochs to all, tickets to the committer.

use super::chunk::Chunk;
use super::error::SourceError;
use crossbeam_channel::Sender;
use drivetrain_schemas::control::ControlChange;
use drivetrain_schemas::reading::{Origin, Reject};
use drivetrain_sinks::message::{Message, Ticket};
use std::collections::BTreeMap;
use std::sync::Arc;

/// From the source thread to a worker; see the module's contract for their order.
#[derive(Debug)]
pub enum ToWorker {
    /// Records to decode; each chunk goes to one worker.
    Chunk { epoch: i64, chunk: Chunk },
    /// Changes of reference data, and control documents that can't be used (their origin's source is `reference`). To
    /// worker 0 only.
    Control { epoch: i64, changes: Vec<ControlChange>, rejects: Vec<Reject> },
    /// The epoch is complete. To every worker.
    Epoch {
        epoch: i64,
        /// µs since 1970 UTC, never less than the epoch before.
        wall: i64,
        /// All partitions (see [`Chunk::partition`]) that hold no watermark from this epoch on.
        idle: Vec<Arc<Origin>>,
        /// The job stops here, without the input having ended: what is held back for later is to be emitted.
        flush: bool,
        /// The input has ended: everything closes.
        end: bool,
        /// The state after this epoch is a checkpoint.
        checkpoint: bool,
    },
}

/// The channels, and how to wake a worker that sleeps.
pub struct Outlet {
    pub workers: Vec<Sender<ToWorker>>,
    pub committer: Sender<Message>,
    /// Called with the worker's index after something was sent to it.
    pub wake: Box<dyn Fn(usize) + Send>,
}

/// [`Outlet`] with who decodes what. Results do not depend on it.
pub(crate) struct Turns {
    outlet: Outlet,
    /// The worker that a partition's chunks go to, unless another has less to do: its decoder knows the partition's
    /// vehicles.
    homes: BTreeMap<Arc<Origin>, usize>,
}

impl Turns {
    pub(crate) fn new(outlet: Outlet) -> Self {
        Self { outlet, homes: BTreeMap::new() }
    }

    fn send(&self, worker: usize, message: ToWorker) -> Result<(), SourceError> {
        let sender = self.outlet.workers.get(worker).ok_or(SourceError::Disconnected)?;
        sender.send(message).map_err(|_| SourceError::Disconnected)?;
        (self.outlet.wake)(worker);
        Ok(())
    }

    pub(crate) fn chunk(&mut self, epoch: i64, chunk: Chunk) -> Result<(), SourceError> {
        let next = self.homes.len() % self.outlet.workers.len().max(1);
        let home = *self.homes.entry(chunk.partition.clone()).or_insert(next);
        let waiting = |worker: usize| self.outlet.workers.get(worker).map_or(usize::MAX, Sender::len);
        let idlest = (0..self.outlet.workers.len()).min_by_key(|worker| waiting(*worker)).unwrap_or(home);
        let worker = if waiting(home) > waiting(idlest) { idlest } else { home };
        self.send(worker, ToWorker::Chunk { epoch, chunk })
    }

    pub(crate) fn control(
        &self,
        epoch: i64,
        changes: Vec<ControlChange>,
        rejects: Vec<Reject>,
    ) -> Result<(), SourceError> {
        self.send(0, ToWorker::Control { epoch, changes, rejects })
    }

    pub(crate) fn close(&self, ticket: Ticket) -> Result<(), SourceError> {
        for worker in 0..self.outlet.workers.len() {
            let (epoch, wall, idle, end) = (ticket.epoch, ticket.wall, ticket.idle.clone(), ticket.end);
            let (flush, checkpoint) = (ticket.stop, ticket.checkpoint);
            self.send(worker, ToWorker::Epoch { epoch, wall, idle, flush, end, checkpoint })?;
        }
        self.outlet.committer.send(Message::Ticket(ticket)).map_err(|_| SourceError::Disconnected)
    }

    pub(crate) fn stopped(&self) {
        // A committer that has gone has its own error to tell.
        let _ = self.outlet.committer.send(Message::Stop);
    }

    pub(crate) fn failed(&self, error: &SourceError) {
        // When the committer has gone too, whoever joins the threads says why.
        let _ = self.outlet.committer.send(Message::Failed(error.to_string()));
    }
}
