//! A partition's blocks as chunks.

use super::block::Fetched;
use super::{Partition, Shared};
use crate::source::chunk::{Chunk, ChunkData};
use crate::source::error::SourceError;
use crate::source::feed::{Fed, Feed};
use drivetrain_schemas::decode::CsvHeader;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the source thread takes records from.
pub(crate) struct DirectFeed {
    shared: Arc<Shared>,
    partition: Arc<Partition>,
    source: u16,
    header: Option<Arc<CsvHeader>>,
    wants_headers: bool,
    /// The records that were taken out of the queue and not handed out yet.
    rest: Option<Fetched>,
}

impl DirectFeed {
    pub(super) fn new(
        shared: Arc<Shared>,
        partition: Arc<Partition>,
        source: u16,
        header: Option<Arc<CsvHeader>>,
        wants_headers: bool,
    ) -> Self {
        Self { shared, partition, source, header, wants_headers, rest: None }
    }

    /// The next block of the queue; what is said when there is none.
    fn refill(&mut self) -> Result<Option<Fed>, SourceError> {
        let mut queue = self.partition.queue();
        let Some(block) = queue.blocks.pop_front() else {
            return match queue.failed.take() {
                Some(error) => Err(error),
                None if queue.caught_up => Ok(Some(Fed::CaughtUp)),
                None => Ok(Some(Fed::Nothing)),
            };
        };
        queue.bytes -= block.buffer.len();
        drop(queue);
        self.shared.feed();
        let all = 0..block.places.len();
        self.rest = Some(Fetched::new(Arc::new(block), all, self.wants_headers));
        Ok(None)
    }
}

impl Feed for DirectFeed {
    fn next(&mut self, max: usize) -> Result<Fed, SourceError> {
        if self.rest.is_none()
            && let Some(nothing) = self.refill()?
        {
            return Ok(nothing);
        }
        let Some(mut records) = self.rest.take() else { return Ok(Fed::Nothing) };
        if records.len() > max {
            self.rest = Some(records.split_off(max.max(1)));
        }
        let queue = self.partition.queue();
        let last = self.rest.is_none() && queue.blocks.is_empty() && queue.caught_up;
        drop(queue);
        let origin = self.partition.origin.clone();
        let data = ChunkData::Fetched { records, header: self.header.clone() };
        Ok(Fed::Chunk { chunk: Chunk { source: self.source, partition: origin.clone(), origin, data }, last })
    }

    /// As of the broker's last answer.
    fn known_end(&self) -> Option<i64> {
        Some(self.partition.stable.load(Ordering::Relaxed)).filter(|stable| *stable >= 0)
    }
}
