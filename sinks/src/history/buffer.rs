//! Rows that wait for their row group: one buffer a (table, date).

use super::file::{GroupStats, OpenFile};
use super::{DAY, DateKey, HistoryError};
use arrow::record_batch::RecordBatch;
use drivetrain_schemas::arrow::{ReadingPart, batch, readings};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::reading::{Head, ReadingBatch};
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::{Table, TableId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// A (table, date): its waiting rows and the file being written, if one is.
pub(super) struct Partition {
    pub(super) rows: Vec<(Row, i64, i64)>,
    pub(super) readings: Vec<ReadingPart>,
    pub(super) reading_rows: usize,
    pub(super) bytes: u64,
    pub(super) file: Option<OpenFile>,
    /// When the first row came that is in no closed file yet.
    pub(super) since: Instant,
    /// The oldest waiting epoch.
    min_epoch: i64,
    max_epoch: i64,
}

impl Partition {
    pub(super) fn new(since: Instant) -> Self {
        let (min_epoch, max_epoch) = (i64::MAX, i64::MIN);
        let (rows, readings) = (Vec::new(), Vec::new());
        Self { rows, readings, reading_rows: 0, bytes: 0, file: None, since, min_epoch, max_epoch }
    }

    pub(super) fn push_row(&mut self, row: Row, epoch: i64, diff: i64) -> u64 {
        let bytes = row_bytes(&row);
        self.rows.push((row, epoch, diff));
        self.grow(bytes, epoch)
    }

    pub(super) fn push_readings(&mut self, part: ReadingPart) -> u64 {
        let each = size_of::<Head>() + 8 * part.batch.width + size_of::<usize>();
        let bytes = (each * part.batch.len()) as u64;
        self.reading_rows += part.batch.len();
        let epoch = part.epoch;
        self.readings.push(part);
        self.grow(bytes, epoch)
    }

    fn grow(&mut self, bytes: u64, epoch: i64) -> u64 {
        self.bytes += bytes;
        self.min_epoch = self.min_epoch.min(epoch);
        self.max_epoch = self.max_epoch.max(epoch);
        bytes
    }

    /// The oldest epoch that is in no closed file; `i64::MAX` when there is none.
    pub(super) fn oldest(&self) -> i64 {
        self.min_epoch.min(self.file.as_ref().map_or(i64::MAX, OpenFile::min_epoch))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.readings.is_empty()
    }

    /// Takes the waiting rows as one sorted batch; `None` when nothing is left of them. All rows of each epoch are
    /// there, since epochs come whole.
    pub(super) fn take(
        &mut self,
        table: &Table,
        catalogue: &Catalogue,
    ) -> Result<Option<(RecordBatch, GroupStats)>, HistoryError> {
        let (mut rows, parts) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.readings));
        let (min_epoch, max_epoch) = (self.min_epoch, self.max_epoch);
        self.reading_rows = 0;
        self.bytes = 0;
        (self.min_epoch, self.max_epoch) = (i64::MAX, i64::MIN);
        let batch = if table.id == TableId::Readings {
            readings(catalogue, table, &parts)?
        } else {
            sort(table, &mut rows);
            batch(table, &rows)?
        };
        if batch.num_rows() == 0 {
            return Ok(None);
        }
        let diffs = batch.column(batch.num_columns() - 1);
        let diffs = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(diffs);
        let retractions = diffs.values().iter().filter(|d| **d < 0).count() as u64;
        Ok(Some((batch, GroupStats { retractions, min_epoch, max_epoch })))
    }
}

/// By key, epoch, then content, so that a file does not depend on arrival: the rows of an epoch come in the order of their
/// contents, and the sort is stable.
fn sort(table: &Table, rows: &mut [(Row, i64, i64)]) {
    let columns: Vec<usize> = table.key.iter().filter_map(|k| table.column(k)).collect();
    rows.sort_by_cached_key(|(row, epoch, diff)| {
        let mut key = Vec::with_capacity(64);
        row.sort_key(&columns, &mut key);
        [*epoch, *diff].iter().for_each(|v| Cell::Int(*v).sort_key(&mut key));
        key
    });
}

/// What a row takes while it waits: its cells, the allocation, and what stands beside it.
fn row_bytes(row: &Row) -> u64 {
    (row.bytes().len() + 16 + size_of::<(Row, i64, i64)>()) as u64
}

/// The day on which a row stands.
pub(super) fn date_of(row: &Row, date: Option<usize>) -> DateKey {
    match date.and_then(|c| row.get(c)) {
        Some(Cell::Time(at)) => DateKey::of(at),
        _ => DateKey::NONE,
    }
}

/// A batch's readings by day. Mostly there is one, and the batch is used whole; else they are copied, lest a day that
/// is written late keep all the others in memory.
pub(super) fn by_date(batch: &Arc<ReadingBatch>, epoch: i64, diff: i64) -> Vec<(DateKey, ReadingPart)> {
    let days = batch.heads.iter().map(|h| h.at.div_euclid(DAY));
    let (Some(first), Some(last)) = (days.clone().min(), days.max()) else { return Vec::new() };
    if first == last {
        return vec![(DateKey::of(first.saturating_mul(DAY)), ReadingPart { epoch, diff, batch: batch.clone() })];
    }
    let mut dates: BTreeMap<DateKey, ReadingBatch> = BTreeMap::new();
    for (i, head) in batch.heads.iter().enumerate() {
        let part =
            dates.entry(DateKey::of(head.at)).or_insert_with(|| ReadingBatch::new(batch.origin.clone(), batch.width));
        part.push(*head, batch.meta(i), batch.row(i));
    }
    dates.into_iter().map(|(date, part)| (date, ReadingPart { epoch, diff, batch: Arc::new(part) })).collect()
}
