//! What operators hand over at a checkpoint, and what they begin with after a restart (docs/adr/0004).
//!
//! ```text
//!  Mark::Epoch { checkpoint } ─► operator ─(has finished that epoch)─► Keep(epoch, name, what has changed) ─► committer
//!                                                         restart: Restored { name → records } ─► operator
//! ```
//!
//! An operator with much to hand over does it behind the epoch, between two [`Handing`]s, so that nobody waits for it.
//!
//! Contract: the parts of all flagged epochs up to c, merged, are the operator's whole state after c; nothing of c + 1
//! is in them. So an operator that begins with them and gets the epochs from c + 1 on does what one that never stopped
//! would do. The state is found by key, so the number of workers may be another one.

use super::sequence::Mark;
use super::{Rows, Time};
use crate::pack::{pack, sums, unpack};
use differential_dataflow::{AsCollection, ExchangeData};
use drivetrain_schemas::records::{Change, Records};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::rc::Rc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::ToStream;

/// An operator that keeps says nothing downstream.
type Nothing = CapacityContainerBuilder<Vec<()>>;

/// Takes what an operator of this worker has changed up to an epoch: (epoch, operator, its next word).
pub type Keep = Rc<dyn Fn(Time, &'static str, Handing)>;

/// An operator's word on a checkpoint.
#[derive(Debug)]
pub enum Handing {
    /// Of what has changed up to the epoch, all or some; no two parts have a key in common.
    Part(Records),
    /// Said before the epoch is over: parts of it come later, too, and then [`Handing::Done`].
    Begun,
    Done,
}

/// What a worker begins with: by operator, the records that are its own, each key once, in the order of keys. They come in
/// blocks, so that none grows by being copied, and each is given back when it has been read. Of an operator that begins with
/// nothing there is one without records: it has to know that this is a restart.
#[derive(Debug, Default)]
pub struct Restored {
    parts: BTreeMap<String, Vec<Records>>,
    problem: Option<String>,
}

impl Restored {
    pub fn new(parts: BTreeMap<String, Vec<Records>>) -> Self {
        Self { parts, problem: None }
    }

    /// All of it, by operator: for a worker in another process.
    pub fn into_parts(self) -> BTreeMap<String, Vec<Records>> {
        self.parts
    }

    /// The records of an operator; each is asked for once.
    pub fn take(&mut self, operator: &str) -> Option<Vec<Records>> {
        self.parts.remove(operator)
    }

    /// Has an operator take its records; false: there are none, since this is no restart. Records that it cannot read are a
    /// [`Self::problem`].
    pub fn restore(&mut self, operator: &str, take: impl FnOnce(Vec<Records>) -> Result<(), String>) -> bool {
        let Some(blocks) = self.take(operator) else { return false };
        if let Err(problem) = take(blocks) {
            self.problem = Some(format!("{operator}: {problem}"));
        }
        true
    }

    /// The rows of a collection with their counts. Rows that cannot be read are a [`Self::problem`].
    pub fn rows<D: DeserializeOwned>(&mut self, operator: &str) -> Vec<(D, isize)> {
        let blocks = self.take(operator).unwrap_or_default();
        let mut rows = Vec::with_capacity(blocks.iter().map(Records::len).sum());
        for record in blocks.iter().flat_map(Records::iter) {
            let Change::Add(count) = record.change else { continue };
            match unpack(record.key) {
                Ok(row) => rows.push((row, count as isize)),
                Err(problem) => self.problem = Some(format!("{operator}: {problem}")),
            }
        }
        rows
    }

    /// What could not be read, if anything: the worker must not go on.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }
}

/// Whether an epoch with these marks is one of a checkpoint.
pub(super) fn is_flagged(marks: &[Mark]) -> bool {
    marks.iter().any(|mark| matches!(mark, Mark::Epoch { checkpoint: true, .. }))
}

/// Keeps a collection: hands over its changes at each flagged epoch and begins with `restored`, at epoch 0, which is
/// before all epochs of a restart. `epochs` are this worker's own marks.
pub fn kept<'scope, D: ExchangeData + Serialize>(
    name: &'static str,
    rows: Rows<'scope, D>,
    epochs: StreamVec<'scope, Time, Mark>,
    restored: Vec<(D, isize)>,
    keep: Option<Keep>,
) -> Rows<'scope, D> {
    let scope = rows.inner.scope();
    let first = restored.into_iter().map(|(row, count)| (row, 0, count)).to_stream(scope);
    if let Some(keep) = keep {
        let mut changes: BTreeMap<Time, Vec<(D, isize)>> = BTreeMap::new();
        let mut flagged: Vec<Time> = Vec::new();
        let done = rows.inner.clone().binary_frontier::<_, Nothing, _, _, _, _>(
            epochs,
            Pipeline,
            Pipeline,
            &format!("keep {name}"),
            move |_, _| {
                move |(rows, rows_frontier), (epochs, epochs_frontier), _output| {
                    rows.for_each(|_, data| {
                        data.drain(..).for_each(|(row, time, diff)| changes.entry(time).or_default().push((row, diff)));
                    });
                    epochs.for_each(|capability, marks| {
                        if is_flagged(marks) {
                            flagged.push(*capability.time());
                        }
                    });
                    flagged.sort_unstable();
                    while let Some(epoch) = flagged.first().copied()
                        && !rows_frontier.less_equal(&epoch)
                        && !epochs_frontier.less_equal(&epoch)
                    {
                        flagged.remove(0);
                        let later = changes.split_off(&(epoch + 1));
                        let upto = std::mem::replace(&mut changes, later);
                        let changed = sums(upto.into_values().flatten().collect(), pack);
                        keep(epoch, name, Handing::Part(changed));
                    }
                }
            },
        );
        drop(done);
    }
    rows.inner.concat(first).as_collection()
}
