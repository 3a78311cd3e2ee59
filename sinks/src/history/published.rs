//! What the history holds already when a job goes on after a restart.

use super::DateKey;
use crate::progress::FileEntry;
use drivetrain_schemas::table::TableId;
use std::collections::BTreeMap;

/// Up to which epoch published files hold the rows of each partition.
///
/// Invariant (kept by the history's thread): a file holds whole epochs of its partition, and a partition's files are
/// closed in the order of their epochs. So up to the newest epoch in any file of a partition, all its rows are in files;
/// after it, none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    partitions: BTreeMap<(TableId, DateKey), i64>,
    /// The newest of all.
    newest: Option<i64>,
}

impl Published {
    /// What these files hold.
    ///
    /// # Errors
    /// The first file whose path does not say its partition.
    pub fn of(files: &[FileEntry]) -> Result<Self, &FileEntry> {
        let mut published = Self::default();
        for file in files {
            let key = file.partition().ok_or(file)?;
            let epoch = published.partitions.entry(key).or_insert(file.max_epoch);
            *epoch = file.max_epoch.max(*epoch);
            published.newest = published.newest.max(Some(file.max_epoch));
        }
        Ok(published)
    }

    /// Whether the rows of a partition at this epoch are in published files.
    pub fn has(&self, partition: (TableId, DateKey), epoch: i64) -> bool {
        // Soon after the restart this is all that it costs.
        if self.newest.is_none_or(|newest| epoch > newest) {
            return false;
        }
        self.partitions.get(&partition).is_some_and(|newest| epoch <= *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, table: TableId, max_epoch: i64) -> FileEntry {
        let (path, checksum) = (path.to_string(), String::new());
        FileEntry { table, path, rows: 1, bytes: 1, retractions: 0, min_epoch: 0, max_epoch, checksum }
    }

    #[test]
    fn each_partition_has_its_own_end() {
        let files = [
            file("history/trips_log/date=1970-01-02/a", TableId::Trips, 7),
            file("history/trips_log/date=1970-01-02/b", TableId::Trips, 9),
            file("history/trips_log/date=1970-01-03/c", TableId::Trips, 4),
            file("history/intake_log/d", TableId::Intake, 12),
        ];
        let published = Published::of(&files).unwrap();
        let day = |d: i64| DateKey::of(d * 86_400_000_000);
        let up_to = |key| (0..20).take_while(|e| published.has(key, *e)).count() as i64 - 1;
        assert_eq!(up_to((TableId::Trips, day(1))), 9);
        assert_eq!(up_to((TableId::Trips, day(2))), 4);
        assert_eq!(up_to((TableId::Trips, day(3))), -1);
        assert_eq!(up_to((TableId::Intake, DateKey::NONE)), 12);
        assert_eq!(up_to((TableId::Events, day(1))), -1);
        assert!(!Published::default().has((TableId::Trips, day(1)), 0));
        assert!(Published::of(&[file("elsewhere/x", TableId::Trips, 1)]).is_err());
    }
}
