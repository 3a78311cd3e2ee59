//! What the source thread asks of a partition, whatever is behind it.

use super::chunk::Chunk;
use super::error::SourceError;
use std::sync::atomic::AtomicU64;

/// One partition's records in their order.
///
/// `next` never blocks. It hands out at most `max` records of one origin; whoever implements it wakes the source
/// thread (by unparking it) when records arrive after [`Fed::Nothing`] or [`Fed::CaughtUp`].
pub(crate) trait Feed: Send {
    fn next(&mut self, max: usize) -> Result<Fed, SourceError>;

    /// The offset behind the last record that is known to be there; `None` where that is not known, or does not matter
    /// because no time ends the epochs of such a feed.
    fn known_end(&self) -> Option<i64> {
        None
    }
}

pub(crate) enum Fed {
    /// At least one record; `last`: nothing more is there so far.
    Chunk { chunk: Chunk, last: bool },
    /// Nothing at the moment.
    Nothing,
    /// Everything that is there so far has been read.
    CaughtUp,
    /// Nothing will come any more.
    Ended,
}

/// How far reading has come; for a progress bar and for metrics.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes read from files, as they are on disk.
    pub bytes: AtomicU64,
    /// Size of all files given.
    pub total_bytes: AtomicU64,
    /// Records handed to the workers.
    pub records: AtomicU64,
    /// Epochs closed.
    pub epochs: AtomicU64,
}
