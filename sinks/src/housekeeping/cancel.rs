//! Changes of one key that cancel each other.

use arrow::record_batch::RecordBatch;
use arrow::row::OwnedRow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row of a log.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) batch: Arc<RecordBatch>,
    pub(super) row: usize,
    pub(super) epoch: i64,
    pub(super) diff: i64,
    /// The cells without `epoch` and `diff`, where changes may cancel.
    pub(super) content: Option<OwnedRow>,
}

/// Takes out changes up to `limit` that cancel: a retraction, and of the same content the latest that became true before
/// it. So what became true last stays, with its epoch, and the state at `limit` and after is what it was, whichever rows
/// were true twice. A retraction of what is not here stays. Returns how many went.
///
/// The changes must be in the order of their epochs.
pub(super) fn cancel(changes: &mut Vec<Change>, limit: i64) -> u64 {
    if changes.iter().all(|c| c.diff > 0 || c.epoch > limit) {
        return 0;
    }
    let before = changes.len();
    let mut left: Vec<i64> = changes.iter().map(|c| c.diff).collect();
    // By content: the places of what is true.
    let mut open: BTreeMap<&OwnedRow, Vec<usize>> = BTreeMap::new();
    for (i, change) in changes.iter().enumerate().filter(|(_, c)| c.epoch <= limit) {
        let Some(content) = &change.content else { continue };
        let open = open.entry(content).or_default();
        while left[i] < 0
            && let Some(&last) = open.last()
        {
            let both = left[last].min(-left[i]);
            left[last] -= both;
            left[i] += both;
            if left[last] == 0 {
                open.pop();
            }
        }
        if left[i] > 0 {
            open.push(i);
        }
    }
    changes.iter_mut().zip(left).for_each(|(change, left)| change.diff = left);
    changes.retain(|c| c.diff != 0);
    (before - changes.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use arrow::row::{RowConverter, SortField};
    use proptest::prelude::*;

    fn changes(of: &[(u8, i64, i64)]) -> Vec<Change> {
        let converter = RowConverter::new(vec![SortField::new(arrow::datatypes::DataType::Utf8)]).unwrap();
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(of.iter().map(|c| c.0.to_string())));
        let rows = converter.convert_columns(std::slice::from_ref(&texts)).unwrap();
        let batch = Arc::new(RecordBatch::try_from_iter([("x", texts)]).unwrap());
        let change = |(row, (_, epoch, diff)): (usize, &(u8, i64, i64))| Change {
            batch: batch.clone(),
            row,
            epoch: *epoch,
            diff: *diff,
            content: Some(rows.row(row).owned()),
        };
        of.iter().enumerate().map(change).collect()
    }

    fn left(of: &[(u8, i64, i64)], limit: i64) -> Vec<(u8, i64, i64)> {
        let mut changes = changes(of);
        let gone = cancel(&mut changes, limit);
        assert_eq!(gone as usize + changes.len(), of.len());
        changes.iter().map(|c| (of[c.row].0, c.epoch, c.diff)).collect()
    }

    #[test]
    fn what_became_true_last_stays() {
        let log = [(1, 1, 1), (1, 4, -1), (2, 4, 1), (2, 7, -1), (1, 7, 1)];
        assert_eq!(left(&log, 7), [(1, 7, 1)]);
        assert_eq!(left(&log, 6), [(2, 4, 1), (2, 7, -1), (1, 7, 1)]);
        assert_eq!(left(&log, 3), log);
        assert_eq!(left(&[(1, 1, 2), (1, 3, -1)], 9), [(1, 1, 1)]);
        assert_eq!(left(&[(1, 1, 1), (1, 2, 1), (1, 3, -1)], 9), [(1, 1, 1)]);
        // What retracts something that is elsewhere.
        assert_eq!(left(&[(1, 1, -1), (1, 2, -1), (1, 3, 1)], 9), [(1, 1, -1), (1, 2, -1), (1, 3, 1)]);
    }

    proptest! {
        /// The sum of each content at the limit, and every change after it, are what they were.
        #[test]
        fn the_state_at_the_limit_and_after_stays(
            mut log in proptest::collection::vec((0u8..3, 0i64..12, prop_oneof![Just(1i64), Just(-1), Just(2)]), 0..24),
            limit in -1i64..13,
        ) {
            log.sort_by_key(|c| c.1);
            let after = left(&log, limit);
            for until in limit.max(0)..13 {
                for content in 0..3 {
                    let sum = |log: &[(u8, i64, i64)]| -> i64 {
                        log.iter().filter(|c| c.0 == content && c.1 <= until).map(|c| c.2).sum()
                    };
                    prop_assert_eq!(sum(&log), sum(&after), "{} at {}", content, until);
                }
            }
            let later = |log: &[(u8, i64, i64)]| log.iter().copied().filter(|c| c.1 > limit).collect::<Vec<_>>();
            prop_assert_eq!(later(&log), later(&after));
        }
    }
}
