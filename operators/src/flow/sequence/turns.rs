//! An epoch's readings, sorted by vehicle: counted, and then put where each vehicle's stand together.
//!
//! ```text
//!  added     (v7) (v3) (v3) (v7) (v3)          turn of v7: 0, of v3: 1
//!  sorted    v7: 0 3 │ v3: 1 2 4               each vehicle's by event time
//! ```

use crate::sequence::Incoming;
use drivetrain_schemas::prefetch::{prefetch, prefetch_slice};
use drivetrain_schemas::reading::ReadingBatch;
use std::ops::Range;

/// No turn: the vehicle has no reading in this epoch.
pub(super) const NONE: u32 = u32::MAX;

/// Event time, batch and row of a reading.
pub(super) type Reading = (i64, u32, u32);

#[derive(Default)]
pub(super) struct Turns {
    /// The vehicles that have a reading, by turn.
    pub(super) vehicles: Vec<u32>,
    /// Readings as they came, each with its vehicle's turn.
    added: Vec<(Reading, u32)>,
    /// How many readings a turn has; once they are sorted, where they end.
    ends: Vec<u32>,
    sorted: Vec<Reading>,
    /// Of a batch: the turn of each of its circumstances' vehicle.
    pub(super) of: Vec<u32>,
}

impl Turns {
    /// The turn of the vehicle at `place`, which keeps it in `turn` for the rest of the epoch.
    #[inline]
    pub(super) fn turn(&mut self, turn: &mut u32, place: u32) -> u32 {
        if *turn == NONE {
            *turn = self.vehicles.len() as u32;
            self.vehicles.push(place);
            self.ends.push(0);
        }
        *turn
    }

    /// Adds a reading.
    #[inline]
    pub(super) fn add(&mut self, turn: u32, reading: Reading) {
        self.ends[turn as usize] += 1;
        self.added.push((reading, turn));
    }

    /// To be called when all have been added.
    pub(super) fn sort(&mut self) {
        let mut from = 0;
        for end in &mut self.ends {
            from += std::mem::replace(end, from);
        }
        self.sorted.resize(self.added.len(), (0, 0, 0));
        for (reading, turn) in &self.added {
            let end = &mut self.ends[*turn as usize];
            self.sorted[*end as usize] = *reading;
            *end += 1;
        }
    }

    /// Asks for the rows of a turn's readings, if there is that turn.
    #[inline]
    pub(super) fn ask(&self, turn: usize, batches: &[ReadingBatch]) {
        if turn >= self.ends.len() {
            return;
        }
        for &(_, batch, row) in &self.sorted[self.range(turn)] {
            let batch = &batches[batch as usize];
            prefetch(&batch.heads[row as usize]);
            prefetch_slice(batch.row(row as usize));
        }
    }

    /// Where a turn's readings stand, once they are sorted.
    fn range(&self, turn: usize) -> Range<usize> {
        let from = turn.checked_sub(1).map_or(0, |before| self.ends[before]);
        from as usize..self.ends[turn] as usize
    }

    /// A turn's readings by event time.
    pub(super) fn take(&mut self, turn: usize, incoming: &mut Vec<Incoming>) {
        let range = self.range(turn);
        let readings = &mut self.sorted[range];
        // Mostly they came in order.
        if !readings.is_sorted_by_key(|(at, ..)| *at) {
            readings.sort_unstable();
        }
        incoming.clear();
        incoming.extend(readings.iter().map(|&(_, batch, row)| Incoming { batch, row }));
    }

    pub(super) fn clear(&mut self) {
        self.vehicles.clear();
        self.added.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What came goes to its vehicle, by time, and nothing else does.
        #[test]
        fn all_come_once_in_order(readings in prop::collection::vec((0u32..5, 0i64..20), 0..60)) {
            let mut turns = Turns::default();
            for _ in 0..2 {
                let mut kept = [NONE; 5];
                for (row, (vehicle, at)) in readings.iter().enumerate() {
                    let turn = turns.turn(&mut kept[*vehicle as usize], *vehicle);
                    turns.add(turn, (*at, 0, row as u32));
                }
                turns.sort();
                let mut taken = Vec::new();
                for (turn, vehicle) in turns.vehicles.clone().into_iter().enumerate() {
                    let mut incoming = Vec::new();
                    turns.take(turn, &mut incoming);
                    let rows: Vec<u32> = incoming.iter().map(|i| i.row).collect();
                    prop_assert!(rows.iter().all(|row| readings[*row as usize].0 == vehicle));
                    prop_assert!(rows.is_sorted_by_key(|row| (readings[*row as usize].1, *row)));
                    taken.extend(rows);
                }
                taken.sort_unstable();
                prop_assert_eq!(taken, (0..readings.len() as u32).collect::<Vec<_>>());
                turns.clear();
            }
        }
    }
}
