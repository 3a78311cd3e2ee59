//! One pointer for equal circumstances of a vehicle.

use drivetrain_schemas::reading::Meta;
use smallvec::SmallVec;
use std::sync::Arc;

/// One pointer for equal circumstances. Each worker's decoders intern for themselves, so that the same circumstances come
/// under as many pointers as there are workers; behind this, the kernels compare pointers and not strings.
#[derive(Default)]
pub(super) struct Aliases {
    /// The first is the one that stands for all.
    equal: SmallVec<[Arc<Meta>; 2]>,
}

/// Pointers remembered of the same circumstances.
const ALIASES: usize = 16;

impl Aliases {
    /// Whether this pointer is among them.
    #[inline]
    pub(super) fn have(&self, meta: &Arc<Meta>) -> bool {
        self.equal.iter().any(|known| Arc::ptr_eq(known, meta))
    }

    pub(super) fn unify(&mut self, meta: &mut Arc<Meta>) {
        let Some(first) = self.equal.first() else {
            self.equal.push(meta.clone());
            return;
        };
        if Arc::ptr_eq(first, meta) {
            return;
        }
        if self.have(meta) {
            *meta = first.clone();
        } else if **first == **meta {
            let first = first.clone();
            if self.equal.len() < ALIASES {
                self.equal.push(std::mem::replace(meta, first));
            } else {
                *meta = first;
            }
        } else {
            self.equal.clear();
            self.equal.push(meta.clone());
        }
    }
}
