//! Recorded epochs, handed out again as they were: after a restart those behind the checkpoint, or all of them in
//! `replay --bindings`.

use super::Reader;
use crate::source::error::SourceError;
use crate::source::lanes::Lane;
use drivetrain_sinks::message::{Binding, Ticket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Reader {
    /// Hands out one recorded epoch; false when the job was stopped in its midst (then it stays open, and is not
    /// committed).
    pub(super) fn repeat(&mut self, ticket: &Ticket) -> Result<bool, SourceError> {
        self.ticker.jump(ticket.epoch, Instant::now());
        self.watch(Instant::now())?;
        while !self.ticker.may_begin(self.job.committed.load(Ordering::Acquire)) {
            if self.stopped() {
                return Ok(false);
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        if !ticket.control.is_empty() || !ticket.rejects.is_empty() {
            self.control.recall(&ticket.control);
            self.control.recall_rejects(&ticket.rejects);
            self.turns.control(ticket.epoch, ticket.control.clone(), ticket.rejects.clone())?;
        }
        // The bindings of epoch 0 are where the partitions begin.
        let bindings = if ticket.epoch == 0 { &[] } else { ticket.bindings.as_slice() };
        for binding in bindings {
            if !self.repeat_binding(ticket.epoch, binding)? {
                return Ok(false);
            }
        }
        self.wall = self.wall.max(ticket.wall);
        self.idle.clone_from(&ticket.idle);
        self.summary.last_epoch = Some(ticket.epoch);
        self.summary.ended |= ticket.end;
        self.job.progress.epochs.fetch_add(1, Ordering::Relaxed);
        self.turns.close(ticket.clone())?;
        self.ticker.jump(ticket.epoch + 1, Instant::now());
        Ok(true)
    }

    fn repeat_binding(&mut self, epoch: i64, binding: &Binding) -> Result<bool, SourceError> {
        let origin = &binding.origin;
        let differs = |reason: String| SourceError::Differs { epoch, reason };
        let name = || match origin.partition {
            0 => origin.name.to_string(),
            partition => format!("{}/{partition}", origin.name),
        };
        let is_its = |lane: &Lane| lane.id == *origin || (&*lane.id.name == "*" && lane.id.source == origin.source);
        let index = self.lanes.lanes.iter().position(is_its);
        let index = index.ok_or_else(|| differs(format!("{} is not among the inputs", name())))?;
        loop {
            let now = Instant::now();
            let Some(lane) = self.lanes.lanes.get_mut(index) else { return Ok(true) };
            if lane.at.as_ref().is_some_and(|(at, end)| at == origin && *end == binding.end) {
                lane.clock = lane.clock.max(binding.clock);
                return Ok(true);
            }
            lane.fill(self.job.epochs.chunk_records, now)?;
            let Some(chunk) = lane.chunk() else {
                if lane.has_ended() || lane.is_caught_up() {
                    return Err(differs(format!("{} ends before {}", name(), binding.end)));
                }
                if self.stopped() {
                    return Ok(false);
                }
                std::thread::park_timeout(Duration::from_millis(5));
                continue;
            };
            let n = chunk.records_until(binding.end);
            if chunk.origin != *origin || n == 0 {
                let next = format!("{}/{} at {:?}", chunk.origin.name, chunk.origin.partition, chunk.position(0));
                return Err(differs(format!("{} up to {} was read then, now {next} is next", name(), binding.end)));
            }
            if let Some(chunk) = lane.take(n) {
                self.count(chunk.len());
                self.ticker.gave(chunk.len());
                self.turns.chunk(epoch, chunk)?;
            }
        }
    }
}
