//! Control documents: a later document of a key replaces the earlier one, as a retraction and an insertion.

use super::{Rows, Time};
use differential_dataflow::AsCollection;
use drivetrain_schemas::control::{ControlChange, ControlKind, Document};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

/// Folds changes (in their order of arrival within an epoch, which the source fixes) into the collection of documents
/// that hold.
pub fn documents<'scope>(changes: StreamVec<'scope, Time, ControlChange>) -> Rows<'scope, Document> {
    let exchange = Exchange::new(|change: &ControlChange| drivetrain_schemas::key::hash(&change.key));
    changes
        .unary_frontier(exchange, "documents", |_capability, _info| {
            let mut waiting = BTreeMap::new();
            let mut held: HashMap<(ControlKind, Arc<str>), Document, FixedState> = HashMap::default();
            move |(input, frontier), output| {
                input.for_each(|capability, data| {
                    let time = *capability.time();
                    waiting.entry(time).or_insert_with(|| (capability.retain(0), Vec::new())).1.append(data);
                });
                while let Some(entry) = waiting.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (time, (capability, changes)) = entry.remove_entry();
                    let mut session = output.session(&capability);
                    for change in changes {
                        apply(&mut held, change, |document, diff| session.give((document, time, diff)));
                    }
                }
            }
        })
        .as_collection()
}

fn apply(
    held: &mut HashMap<(ControlKind, Arc<str>), Document, FixedState>,
    change: ControlChange,
    mut give: impl FnMut(Document, isize),
) {
    let key = (change.kind, change.key);
    let old = match &change.document {
        Some(document) => held.insert(key, document.clone()),
        None => held.remove(&key),
    };
    if old == change.document {
        return;
    }
    if let Some(old) = old {
        give(old, -1);
    }
    if let Some(new) = change.document {
        give(new, 1);
    }
}
