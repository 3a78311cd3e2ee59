//! The table `intake`: what became of every record, summed by origin since the job began.

use drivetrain_schemas::reading::{IntakeCounts, Origin};
use drivetrain_schemas::row::{Cell, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Recorded wall time (µs) between two loggings.
const EVERY: i64 = 10_000_000;

/// The sums, and those that the log holds. When they are logged is decided by the tickets alone, so that a replay logs at
/// the same epochs.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) sums: BTreeMap<Arc<Origin>, IntakeCounts>,
    pub(super) logged: BTreeMap<Arc<Origin>, IntakeCounts>,
    /// Wall time of the last logging, or of the first epoch.
    pub(super) since: Option<i64>,
    /// Whose counts have changed since the last checkpoint.
    pub(super) changed: BTreeSet<Arc<Origin>>,
}

impl Intake {
    pub(super) fn add(&mut self, origin: Arc<Origin>, counts: &IntakeCounts) {
        *self.sums.entry(origin.clone()).or_default() += counts;
        self.changed.insert(origin);
    }

    /// The changes to log at an epoch with this wall time; `last`: log whatever the time, since the run ends or stops.
    pub(super) fn changes(&mut self, wall: i64, last: bool) -> Vec<(Row, i64)> {
        let since = *self.since.get_or_insert(wall);
        if !last && wall.saturating_sub(since) < EVERY {
            return Vec::new();
        }
        self.since = Some(wall);
        let mut rows = Vec::new();
        for (origin, sums) in &self.sums {
            let logged = self.logged.get(origin);
            if logged == Some(sums) {
                continue;
            }
            rows.extend(logged.map(|counts| (row(origin, counts), -1)));
            rows.push((row(origin, sums), 1));
            self.logged.insert(origin.clone(), *sums);
            self.changed.insert(origin.clone());
        }
        rows
    }
}

fn row(origin: &Origin, c: &IntakeCounts) -> Row {
    let counts =
        [c.records, c.readings, c.decoded, c.rejected, c.used, c.duplicates, c.late, c.invalid_values].map(Cell::Int);
    let mut cells = vec![Cell::from(&origin.source), Cell::from(&origin.name), Cell::Int(origin.partition.into())];
    cells.extend(counts);
    Row::new(&cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::catalogue::Catalogue;
    use drivetrain_schemas::table::{Table, TableId};

    #[test]
    fn logged_by_recorded_time_and_at_the_end() {
        let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 3 });
        let mut intake = Intake::default();
        let one = IntakeCounts { records: 1, decoded: 1, readings: 1, used: 1, ..IntakeCounts::default() };
        intake.add(origin.clone(), &one);
        assert!(intake.changes(5, false).is_empty());
        assert!(intake.changes(EVERY + 4, false).is_empty());
        let first = intake.changes(EVERY + 5, false);
        assert_eq!(first.iter().map(|r| r.1).collect::<Vec<_>>(), [1]);
        assert_eq!(first[0].0.width(), Table::new(TableId::Intake, &Catalogue::default()).columns.len());
        assert!(intake.changes(3 * EVERY, false).is_empty(), "nothing has changed");
        intake.add(origin, &one);
        let last = intake.changes(3 * EVERY, true);
        assert_eq!((last[0].1, last[1].1), (-1, 1));
        assert_eq!((&last[0].0, last[1].0.get(3)), (&first[0].0, Some(Cell::Int(2))));
    }
}
