//! Checkpoints on their way to be named by the progress log.

use crate::checkpoint::{CheckpointEntry, CheckpointError, Checkpointer, PackedPart};
use crate::store::Storage;

/// The checkpoints' thread, and what it has written that no record names yet.
#[derive(Debug)]
pub(super) struct Checkpoints {
    checkpointer: Checkpointer,
    /// Durable, oldest first.
    written: Vec<CheckpointEntry>,
}

impl Checkpoints {
    /// `base`: the checkpoint from which the job goes on.
    pub(super) fn start(
        storage: &Storage,
        generation: u64,
        base: Option<CheckpointEntry>,
    ) -> Result<Self, CheckpointError> {
        Ok(Self { checkpointer: Checkpointer::start(storage, generation, base)?, written: Vec::new() })
    }

    /// Hands over all parts of an epoch.
    pub(super) fn write(&mut self, epoch: i64, parts: Vec<PackedPart>) -> Result<(), CheckpointError> {
        self.checkpointer.write(epoch, parts)
    }

    /// The newest checkpoint that a record may name which publishes the history up to this epoch; it and older ones are
    /// not offered again. `last`: wait for those that are being written.
    pub(super) fn eligible(
        &mut self,
        history_epoch: i64,
        last: bool,
    ) -> Result<Option<CheckpointEntry>, CheckpointError> {
        let written = if last { self.checkpointer.drain()? } else { self.checkpointer.written()? };
        self.written.extend(written);
        Ok(take_eligible(&mut self.written, history_epoch))
    }

    /// The log names it: what only older ones need may go.
    pub(super) fn named(&mut self, entry: &CheckpointEntry) {
        self.checkpointer.named(entry);
    }
}

fn take_eligible(written: &mut Vec<CheckpointEntry>, history_epoch: i64) -> Option<CheckpointEntry> {
    let count = written.iter().take_while(|entry| entry.epoch <= history_epoch).count();
    written.drain(..count).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_the_history_has_reached() {
        let entry = |epoch| CheckpointEntry { format: 1, epoch, files: vec![] };
        let mut written: Vec<CheckpointEntry> = [3, 6, 9].map(entry).into();
        assert_eq!(take_eligible(&mut written, 2), None);
        assert_eq!(take_eligible(&mut written, 8), Some(entry(6)));
        assert_eq!(take_eligible(&mut written, 8), None);
        assert_eq!(written, [entry(9)]);
        assert_eq!(take_eligible(&mut written, 9), Some(entry(9)));
    }
}
