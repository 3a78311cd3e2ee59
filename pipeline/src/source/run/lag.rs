//! How far the job has come, said to lag monitors as the offsets of a consumer group that nobody has joined. Nothing
//! depends on them: a job goes on where its progress says.

use super::Reader;
use crate::source::kafka::Client;
use drivetrain_schemas::reading::Origin;
use drivetrain_sinks::message::Binding;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often offsets are committed.
const EVERY: Duration = Duration::from_secs(5);
/// How long a job that ends waits until its last epoch is committed, and then for the broker's answer.
const LAST_EPOCH: Duration = Duration::from_secs(30);
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// Partitions and how far they have been read.
type Ends = Vec<(Arc<Origin>, i64)>;

/// Offsets on their way to the lag monitors.
#[derive(Default)]
pub(super) struct Lag {
    /// Of epochs that are not committed yet.
    pending: VecDeque<(i64, Ends)>,
    /// How far each partition is committed; `changed` since this was sent.
    ready: BTreeMap<Arc<Origin>, i64>,
    changed: bool,
    at: Option<Instant>,
}

impl Lag {
    /// Where the job goes on. It is said at once: an earlier run may not have come to it, and perhaps nothing more is to
    /// be read.
    pub(super) fn begin(&mut self, at: impl Iterator<Item = (Arc<Origin>, i64)>) {
        self.ready.extend(at);
        self.changed = true;
    }

    /// An epoch has been handed out.
    pub(super) fn closed(&mut self, epoch: i64, bindings: &[Binding]) {
        self.pending.push_back((epoch, bindings.iter().map(|b| (b.origin.clone(), b.end)).collect()));
    }

    /// `committed`: the last epoch that is; [`i64::MAX`] when the committer has failed: it lets nobody wait, but has
    /// committed nothing more.
    fn settle(&mut self, committed: i64) {
        let committed = Some(committed).filter(|epoch| *epoch < i64::MAX).unwrap_or(-1);
        while let Some((_, ends)) = self.pending.pop_front_if(|(epoch, _)| *epoch <= committed) {
            self.changed |= !ends.is_empty();
            self.ready.extend(ends);
        }
    }

    pub(super) fn say(&mut self, client: &Client, committed: i64, now: Instant) {
        self.settle(committed);
        if self.at.is_none_or(|at| now.duration_since(at) >= EVERY) {
            // One that failed is made again, also where nothing more comes.
            if std::mem::take(&mut self.changed) | client.commit_failed() {
                client.commit(&self.ready);
            }
            self.at = Some(now);
        }
    }
}

impl Reader {
    /// Says how far the job has come with its last epoch, as soon as that is committed: who stops a job finds no lag.
    pub(super) fn say_last(&mut self) {
        let (Some(client), Some(last)) = (&self.client, self.summary.last_epoch) else { return };
        let until = Instant::now() + LAST_EPOCH;
        let committed = || self.job.committed.load(Ordering::Acquire);
        while committed() < last && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.lag.settle(committed());
        if self.lag.changed || client.commit_failed() {
            client.commit_and_wait(&self.lag.ready, LAST_ANSWER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_is_said() {
        let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
        let to = |end| [Binding { origin: origin.clone(), topic_id: None, start: None, end, clock: None }];
        let mut lag = Lag::default();
        lag.begin([(origin.clone(), 5)].into_iter());
        assert!(std::mem::take(&mut lag.changed), "where it goes on");
        lag.closed(1, &to(7));
        lag.closed(2, &[]);
        lag.closed(3, &to(9));
        for (committed, changed, end) in
            [(0, false, 5), (1, true, 7), (2, false, 7), (i64::MAX, false, 7), (3, true, 9)]
        {
            lag.settle(committed);
            assert_eq!((std::mem::take(&mut lag.changed), lag.ready[&origin]), (changed, end), "{committed}");
        }
    }
}
