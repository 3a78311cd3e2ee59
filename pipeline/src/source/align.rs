//! Alignment: the partitions of all sources stay within `max_skew` of each other in event time (DESIGN §4).
//!
//! ```text
//!  partition a  ▓▓▓▓▓▓▓▓▓▓▓▓▓│head ──────────►        limit = slowest standing + max_skew
//!  partition b  ▓▓▓▓▓│head                            a waits, b goes on
//! ```
//!
//! A partition *stands* at the later of its clock (largest event time handed out) and its head (the next record's
//! time). The slowest one can always go on, so nothing ever waits for itself. Times are sampled: the first, the last
//! and every 64th record of a chunk; only where a sample is beyond the limit is it looked at record by record.

use super::chunk::Chunk;
use drivetrain_schemas::decode::Record;

/// Event time of a record, µs, where it can be told without decoding all of it.
pub type Peek = Box<dyn FnMut(&Record<'_>) -> Option<i64> + Send>;

const STRIDE: usize = 64;

/// What alignment knows of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Largest event time handed out.
    pub(crate) clock: Option<i64>,
    /// Whether a record is at hand, and its time if it has one.
    pub(crate) head: Option<Option<i64>>,
    /// Idle, ended and caught-up partitions hold nobody.
    pub(crate) holds: bool,
}

/// The largest event time that may be handed out now.
pub(crate) fn limit(standings: impl Iterator<Item = Standing>, max_skew: i64) -> i64 {
    let mut slowest = i64::MAX;
    for s in standings {
        let at = match (s.head, s.clock) {
            // A record without a time can't wait for anything, nor can others wait for it.
            (Some(None), _) => continue,
            (Some(Some(head)), clock) => clock.map_or(head, |c| c.max(head)),
            (None, _) if !s.holds => continue,
            (None, Some(clock)) => clock,
            // Nothing is known of it yet: wait for its first record, its end, or its idleness.
            (None, None) => i64::MIN,
        };
        slowest = slowest.min(at);
    }
    if slowest == i64::MIN { i64::MIN } else { slowest.saturating_add(max_skew) }
}

/// Time of the first record.
pub(crate) fn head(chunk: &Chunk, peek: &mut Peek) -> Option<i64> {
    at(chunk, 0, peek)
}

/// How many of the chunk's first `count` records may be handed out under the limit, and the largest time among the
/// sampled ones.
pub(crate) fn admit(chunk: &Chunk, count: usize, limit: i64, peek: &mut Peek) -> (usize, Option<i64>) {
    let count = count.min(chunk.len());
    let mut largest = None;
    let mut from = 0;
    while from < count {
        let to = if from == 0 { 0 } else { (from + STRIDE - 1).min(count - 1) };
        let sample = at(chunk, to, peek);
        if sample.is_some_and(|t| t > limit) {
            for i in from..=to {
                match at(chunk, i, peek) {
                    Some(t) if t > limit => return (i, largest),
                    t => largest = largest.max(t),
                }
            }
        }
        largest = largest.max(sample);
        from = to + 1;
    }
    (count, largest)
}

fn at(chunk: &Chunk, i: usize, peek: &mut Peek) -> Option<i64> {
    let mut time = None;
    chunk.visit(i..i + 1, &mut |record| time = peek(&record));
    time
}
