//! Parts are packed by a thread of their own, so that no epoch waits for their sorting and compressing.
//!
//! ```text
//!  worker ──part, done──► packer, behind others' work ──Message::Part, then Message::Parts { done }──► committer
//!     └── too much waits there: the worker packs the part itself
//! ```
//!
//! Contract: what an operator of a worker said comes to the committer in an order that it accepts: all of its parts before it
//! hears that they are done. What waits takes [`WAITING`] bytes and the part that goes beyond.

use super::{PackedPart, Part};
use crate::background;
use crate::message::Message;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of records that wait to be packed, from which on a worker does it itself.
const WAITING: usize = 32 << 20;

enum Job {
    Part(i64, Part),
    Done(i64),
}

/// A process's packer, as a worker sees it. The thread ends when all workers have dropped theirs, and nothing waits.
#[derive(Clone, Debug)]
pub struct Packer {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    outbox: Sender<Message>,
}

impl Packer {
    /// Starts the thread "packer", which says to `outbox` what it has packed.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(outbox: Sender<Message>) -> io::Result<Self> {
        let (jobs, inbox) = unbounded();
        let waiting = Arc::new(AtomicUsize::new(0));
        let packer = Self { jobs, waiting: waiting.clone(), outbox: outbox.clone() };
        std::thread::Builder::new().name("packer".into()).spawn(move || {
            background::yield_to_others();
            run(&inbox, &waiting, &outbox);
        })?;
        Ok(packer)
    }

    /// A part of a flagged epoch. The committer has been told that parts will come ([`Message::Parts`]).
    pub fn part(&self, epoch: i64, part: Part) {
        let bytes = part.records.bytes();
        if self.waiting.load(Ordering::Relaxed) >= WAITING {
            return say(&self.outbox, epoch, part);
        }
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        drop(self.jobs.send(Job::Part(epoch, part)));
    }

    /// All parts of that operator have been given.
    pub fn done(&self, epoch: i64) {
        drop(self.jobs.send(Job::Done(epoch)));
    }
}

fn run(inbox: &Receiver<Job>, waiting: &AtomicUsize, outbox: &Sender<Message>) {
    for job in inbox {
        match job {
            Job::Part(epoch, part) => {
                let bytes = part.records.bytes();
                say(outbox, epoch, part);
                waiting.fetch_sub(bytes, Ordering::Relaxed);
            }
            Job::Done(epoch) => drop(outbox.send(Message::Parts { epoch, done: true })),
        }
    }
}

/// The committer is gone only when it has failed; its error is reported by whoever joins it.
fn say(outbox: &Sender<Message>, epoch: i64, part: Part) {
    drop(outbox.send(Message::Part { epoch, part: PackedPart::from(part) }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::records::Records;

    fn part(worker: usize, bytes: usize) -> Part {
        let mut records = Records::keyed();
        records.put(b"key", |out| out.resize(bytes, 7));
        Part { operator: "o".into(), worker, records }
    }

    /// Two workers, each with more than may wait.
    #[test]
    fn parts_come_before_it_is_said_that_they_are_done() {
        let (outbox, inbox) = unbounded();
        let packer = Packer::start(outbox).unwrap();
        let (parts, size) = (6, WAITING / 4);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let packer = packer.clone();
                scope.spawn(move || {
                    (0..parts).for_each(|_| packer.part(worker as i64, part(worker, size)));
                    packer.done(worker as i64);
                });
            }
        });
        drop(packer);
        let mut came = [0; 2];
        for message in inbox {
            match message {
                Message::Part { epoch, .. } => came[epoch as usize] += 1,
                Message::Parts { epoch, done: true } => {
                    assert_eq!(std::mem::replace(&mut came[epoch as usize], i32::MAX), parts, "of {epoch}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(came, [i32::MAX; 2]);
    }

    #[test]
    fn what_waits_is_bounded() {
        let (outbox, inbox) = unbounded();
        // Nobody packs.
        let (jobs, waiting) = unbounded();
        let packer = Packer { jobs, waiting: Arc::default(), outbox };
        (0..20).for_each(|_| packer.part(0, part(0, WAITING / 4)));
        packer.done(0);
        assert_eq!((waiting.len(), inbox.len()), (4 + 1, 16));
    }
}
