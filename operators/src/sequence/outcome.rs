//! What an epoch comes to: facts, readings, late ones and counts of all vehicles of a worker.

use super::row::{Incoming, OwnedReading, RowRef};
use crate::config::KernelConfig;
use crate::facts::{Change, Facts, QualityFact};
use crate::late;
use drivetrain_schemas::reading::{Head, IntakeCounts, NULL, Origin, ReadingBatch, Reject};
use drivetrain_schemas::time::format_rfc3339;
use std::sync::Arc;

/// Gathers what [`super::VehicleState`] says, over any number of vehicles.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Changes of facts; those of one vehicle and call are consolidated.
    pub facts: Facts,
    /// Hours of `quality`.
    pub quality: Vec<Change<QualityFact>>,
    /// Readings of this vehicle that equal others (emptied with each vehicle).
    pub(super) repeated: Vec<Incoming>,
    /// Readings that count from now on, by batch and row.
    pub accepted: Vec<Incoming>,
    /// Readings that count no longer (-1), since a duplicate with smaller circumstances has come (which is among
    /// `accepted`).
    pub swapped: Vec<(OwnedReading, i64)>,
    /// `used`, `duplicates` and `late` by origin. A reading that is displaced counts -1 used and +1 duplicate at its
    /// origin.
    pub counts: Vec<(Arc<Origin>, IntakeCounts)>,
    /// Readings behind the horizon; reason `late`, the payload is the reading as JSON.
    pub late: Vec<Reject>,
}

impl Outcome {
    /// The readings that began or ceased to count, in batches by difference, in the order of the epoch's batches.
    /// Whole batches are handed on as they are.
    pub fn readings(&self, batches: Vec<ReadingBatch>) -> Vec<(ReadingBatch, i64)> {
        let mut used: Vec<Vec<bool>> = batches.iter().map(|batch| vec![false; batch.len()]).collect();
        for incoming in &self.accepted {
            if let Some(used) = used.get_mut(incoming.batch as usize).and_then(|b| b.get_mut(incoming.row as usize)) {
                *used = true;
            }
        }
        let mut result = Vec::with_capacity(batches.len());
        for (batch, used) in batches.into_iter().zip(used) {
            if used.iter().all(|used| *used) {
                if !batch.is_empty() {
                    result.push((batch, 1));
                }
                continue;
            }
            let mut kept = ReadingBatch::new(batch.origin.clone(), batch.width);
            for i in used.iter().enumerate().filter(|(_, used)| **used).map(|(i, _)| i) {
                kept.push(batch.heads[i], batch.meta(i), batch.row(i));
            }
            if !kept.is_empty() {
                result.push((kept, 1));
            }
        }
        for (reading, diff) in &self.swapped {
            let (at, position, element) = (reading.at, reading.position, reading.element);
            let mut batch = ReadingBatch::new(reading.origin.clone(), reading.values.len());
            let head = Head { at, position, record_time: NULL, meta: 0, element };
            batch.push(head, &reading.meta, &reading.values);
            result.push((batch, *diff));
        }
        result
    }

    /// The counts of an origin.
    pub(super) fn count(&mut self, origin: &Arc<Origin>) -> &mut IntakeCounts {
        let same = self.counts.iter().rposition(|(o, _)| Arc::ptr_eq(o, origin));
        let place = same.or_else(|| self.counts.iter().rposition(|(o, _)| o == origin)).unwrap_or_else(|| {
            self.counts.push((origin.clone(), IntakeCounts::default()));
            self.counts.len() - 1
        });
        &mut self.counts[place].1
    }

    pub(super) fn too_late(&mut self, cfg: &KernelConfig, row: &RowRef<'_>, record_time: i64, floor: i64) {
        self.count(row.origin).late += 1;
        self.late.push(Reject {
            origin: row.origin.clone(),
            position: row.position,
            record_time,
            reason: "late".into(),
            detail: format!(
                "vehicle {:?} at {}: before {}, from which on it can still be put in order",
                row.meta.vehicle,
                format_rfc3339(row.at),
                format_rfc3339(floor)
            ),
            payload: Some(late::reading(cfg, row.at, row.meta, row.values).into_bytes()),
        });
    }
}

/// Lengths of the lists of facts, to consolidate what comes behind them.
#[derive(Clone, Copy)]
pub(super) struct Mark([usize; 4]);

impl Mark {
    pub(super) fn of(facts: &Facts) -> Self {
        Mark([facts.windows.len(), facts.events.len(), facts.trips.len(), facts.anomalies.len()])
    }

    /// Consolidates what has come since.
    pub(super) fn consolidate(self, facts: &mut Facts) {
        consolidate(&mut facts.windows, self.0[0]);
        consolidate(&mut facts.events, self.0[1]);
        consolidate(&mut facts.trips, self.0[2]);
        consolidate(&mut facts.anomalies, self.0[3]);
    }

    /// Consolidates the facts that can have been said and taken back since without a rewind.
    pub(super) fn consolidate_open(self, facts: &mut Facts) {
        consolidate(&mut facts.trips, self.0[2]);
        consolidate(&mut facts.anomalies, self.0[3]);
    }

    /// Turns what has come since into its opposite.
    pub(super) fn negate(self, facts: &mut Facts) {
        facts.windows.iter_mut().skip(self.0[0]).for_each(|(_, diff)| *diff = -*diff);
        facts.events.iter_mut().skip(self.0[1]).for_each(|(_, diff)| *diff = -*diff);
        facts.trips.iter_mut().skip(self.0[2]).for_each(|(_, diff)| *diff = -*diff);
        facts.anomalies.iter_mut().skip(self.0[3]).for_each(|(_, diff)| *diff = -*diff);
    }
}

/// Sorts the changes from `from` on and adds up those of equal facts.
pub(crate) fn consolidate<F: Ord>(changes: &mut Vec<Change<F>>, from: usize) {
    // Without a retraction nothing can cancel; equal facts are added up by whoever keeps them.
    if changes.len() < from + 2 || changes[from..].iter().all(|(_, diff)| *diff > 0) {
        return;
    }
    changes[from..].sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut kept = from;
    for i in from + 1..changes.len() {
        if changes[i].0 == changes[kept].0 {
            changes[kept].1 += changes[i].1;
            continue;
        }
        kept += usize::from(changes[kept].1 != 0);
        changes.swap(kept, i);
    }
    kept += usize::from(changes[kept].1 != 0);
    changes.truncate(kept);
}
