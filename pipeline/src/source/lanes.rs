//! The partitions that are being read: what is at hand of each, who may go on, who is idle.

use super::align::{self, Peek, Standing};
use super::chunk::Chunk;
use super::error::SourceError;
use super::feed::{Fed, Feed};
use drivetrain_schemas::reading::Origin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many times as long a partition is waited for that is not known to have been read to its end: a minute, where
/// `epoch.idle_after` is 10 s.
const HELD: u32 = 6;

/// One partition.
pub(crate) struct Lane {
    pub(crate) id: Arc<Origin>,
    pub(crate) topic_id: Option<String>,
    /// Where it begins, until a binding says so.
    pub(crate) begins: Option<i64>,
    feed: Box<dyn Feed>,
    /// The next records.
    chunk: Option<Chunk>,
    /// Time of the first of them, once it has been looked at.
    head: Option<Option<i64>>,
    /// Largest event time handed out, as far as sampled.
    pub(crate) clock: Option<i64>,
    /// Origin and end of what was handed out last (or, before that, where it begins).
    pub(crate) at: Option<(Arc<Origin>, i64)>,
    touched: bool,
    caught_up: bool,
    ended: bool,
    quiet_since: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(
        id: Arc<Origin>,
        topic_id: Option<String>,
        start: Option<i64>,
        clock: Option<i64>,
        feed: Box<dyn Feed>,
    ) -> Self {
        let at = start.map(|end| (id.clone(), end));
        Self {
            id,
            topic_id,
            begins: None,
            feed,
            chunk: None,
            head: None,
            clock,
            at,
            touched: false,
            caught_up: false,
            ended: false,
            quiet_since: None,
        }
    }

    /// Sees to it that records are at hand, if there are any.
    pub(crate) fn fill(&mut self, max: usize, now: Instant) -> Result<(), SourceError> {
        if self.chunk.is_some() || self.ended {
            return Ok(());
        }
        match self.feed.next(max)? {
            Fed::Chunk { chunk, last } => {
                self.chunk = Some(chunk);
                self.head = None;
                self.touched = true;
                self.caught_up = last;
                self.quiet_since = None;
                return Ok(());
            }
            Fed::Nothing => {}
            Fed::CaughtUp => self.caught_up = true,
            Fed::Ended => self.ended = true,
        }
        self.quiet_since.get_or_insert(now);
        Ok(())
    }

    pub(crate) fn chunk(&self) -> Option<&Chunk> {
        self.chunk.as_ref()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn is_caught_up(&self) -> bool {
        self.caught_up && self.chunk.is_none()
    }

    /// Hands out the first `n` of the records at hand.
    pub(crate) fn take(&mut self, n: usize) -> Option<Chunk> {
        let mut chunk = self.chunk.take()?;
        if n < chunk.len() {
            self.chunk = Some(chunk.split_off(n));
        }
        self.head = None;
        if let Some(end) = chunk.end() {
            self.at = Some((chunk.origin.clone(), end));
        }
        Some(chunk)
    }

    /// How many records are known to wait behind what was handed out.
    fn waiting(&self) -> u64 {
        let end = self.feed.known_end().zip(self.at.as_ref());
        end.map_or(0, |(end, (_, at))| u64::try_from(end.saturating_sub(*at)).unwrap_or(0))
    }

    /// Without a record for long enough. A partition that has not been read to its end has more, or nobody knows: it is
    /// waited for [`HELD`] times as long, so that a slow fetch makes nobody's readings late.
    fn is_idle(&self, idle_after: Duration, now: Instant) -> bool {
        let patience = if self.caught_up { idle_after } else { idle_after.saturating_mul(HELD) };
        let quiet = self.quiet_since.is_some_and(|since| now.duration_since(since) >= patience);
        self.ended || (self.chunk.is_none() && (quiet || (self.caught_up && !self.touched)))
    }
}

/// All partitions, and whose turn it is.
pub(crate) struct Lanes {
    pub(crate) lanes: Vec<Lane>,
    next: usize,
    peeks: Vec<Peek>,
    max_skew: i64,
    idle_after: Duration,
}

impl Lanes {
    pub(crate) fn new(peeks: Vec<Peek>, max_skew: i64, idle_after: Duration) -> Self {
        Self { lanes: Vec::new(), next: 0, peeks, max_skew, idle_after }
    }

    pub(crate) fn fill(&mut self, max: usize, now: Instant) -> Result<(), SourceError> {
        self.lanes.iter_mut().try_for_each(|lane| lane.fill(max, now))
    }

    /// Whether of every partition the next record is known, or that there is none.
    pub(crate) fn is_settled(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended || lane.chunk.is_some())
    }

    pub(crate) fn have_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.ended && lane.chunk.is_none())
    }

    /// The next records that may be handed out, at most `max`, and the index of their lane.
    pub(crate) fn take(&mut self, max: usize, now: Instant) -> Option<(usize, Chunk)> {
        let limit = self.limit(now);
        let count = self.lanes.len();
        for i in (0..count).map(|k| (self.next + k) % count) {
            let lane = self.lanes.get_mut(i)?;
            let Some(chunk) = &lane.chunk else { continue };
            let n = match (limit, self.peeks.get_mut(usize::from(chunk.source))) {
                (Some(limit), Some(peek)) => {
                    let (n, largest) = align::admit(chunk, max, limit, peek);
                    lane.clock = lane.clock.max(largest);
                    n
                }
                _ => max.min(chunk.len()),
            };
            if n > 0
                && let Some(chunk) = lane.take(n)
            {
                self.next = i + 1;
                return Some((i, chunk));
            }
        }
        None
    }

    /// The limit of alignment; None when only one partition has anything to say.
    fn limit(&mut self, now: Instant) -> Option<i64> {
        let idle_after = self.idle_after;
        let active = |lane: &Lane| lane.chunk.is_some() || !(lane.caught_up || lane.is_idle(idle_after, now));
        if self.lanes.iter().filter(|lane| active(lane)).count() < 2 {
            return None;
        }
        for lane in &mut self.lanes {
            if let (Some(chunk), None) = (&lane.chunk, lane.head) {
                let peek = self.peeks.get_mut(usize::from(chunk.source));
                lane.head = Some(peek.and_then(|peek| align::head(chunk, peek)));
            }
        }
        let standing = |lane: &Lane| Standing { clock: lane.clock, head: lane.head, holds: active(lane) };
        Some(align::limit(self.lanes.iter().map(standing), self.max_skew))
    }

    /// How many records are known to wait, of all partitions. (Offsets without a record are counted, too.)
    pub(crate) fn waiting(&self) -> u64 {
        self.lanes.iter().map(Lane::waiting).fold(0, u64::saturating_add)
    }

    /// The partitions that hold no watermark.
    pub(crate) fn idle(&self, now: Instant) -> Vec<Arc<Origin>> {
        self.lanes.iter().filter(|lane| lane.is_idle(self.idle_after, now)).map(|lane| lane.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has nothing, and is at its end or not.
    struct Quiet(bool);

    impl Feed for Quiet {
        fn next(&mut self, _: usize) -> Result<Fed, SourceError> {
            Ok(if self.0 { Fed::CaughtUp } else { Fed::Nothing })
        }
    }

    #[test]
    fn what_has_not_been_read_to_its_end_holds_the_others_longer() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let idle_after = |caught_up: bool| {
            let id = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
            let mut lane = Lane::new(id, None, Some(0), None, Box::new(Quiet(caught_up)));
            lane.touched = true;
            lane.fill(1, began).unwrap();
            (0..20).find(|n| lane.is_idle(10 * second, began + *n * 5 * second)).map(|n| 5 * n)
        };
        assert_eq!(idle_after(true), Some(10));
        assert_eq!(idle_after(false), Some(60));
    }
}
