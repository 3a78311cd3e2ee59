//! Sorted files become fewer sorted files; changes that cancel each other go.
//!
//! A **run** is a sorted stretch of rows: a row group of a file that the job has written, or all of a file that came out
//! of here. Runs are merged by (key, epoch) through Arrow's row format, some thousand rows of each in memory.
//!
//! Memory: the decoded row groups of the runs under way ([`FAN_IN_BYTES`]; more runs are merged in several passes), the
//! row group being written (`history.buffer`), and the rows of one key.

use super::HousekeepingError;
use super::cancel::{Change, cancel};
use super::place::locate;
use crate::history::{DateKey, GroupStats, HistoryConfig, OpenFile, Place};
use crate::progress::FileEntry;
use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::table::{Column, Kind, Table, TableId};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Decoded bytes of all row groups that are merged at once, at most (but always two).
const FAN_IN_BYTES: u64 = 256 << 20;
/// Files open at once, at most.
pub(super) const FAN_IN: usize = 128;
/// Rows of a batch, at most, and about how many bytes one has.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: u64 = 4 << 20;

/// What is merged, and how.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) data: &'a Path,
    pub(super) config: &'a HistoryConfig,
    /// In the names of the new files.
    pub(super) number: u64,
    pub(super) table: TableId,
    pub(super) date: DateKey,
    /// Of one schema.
    pub(super) files: &'a [FileEntry],
    /// Cancel changes up to this epoch.
    pub(super) limit: Option<i64>,
    /// Runs merged at once, at most: [`FAN_IN`].
    pub(super) fan_in: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) files: Vec<FileEntry>,
    /// Rows that cancelled each other.
    pub(super) cancelled: u64,
}

/// A sorted stretch of rows in a file.
#[derive(Clone, Debug)]
struct Stretch {
    path: PathBuf,
    groups: Vec<usize>,
    /// Decoded bytes of its largest row group.
    bytes: u64,
    /// Of a row, about.
    row_bytes: u64,
}

/// The columns of a file; two files are merged when these are equal.
pub(super) fn fields(data: &Path, file: &FileEntry) -> Result<Vec<Field>, HousekeepingError> {
    let (_, metadata) = open(&locate(data, &file.path))?;
    Ok(metadata.schema().fields().iter().map(|f| f.as_ref().clone().with_metadata(Default::default())).collect())
}

fn open(path: &Path) -> Result<(File, ArrowReaderMetadata), HousekeepingError> {
    let file = File::open(path).map_err(|e| HousekeepingError::read(path, e.into()))?;
    let metadata =
        ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|e| HousekeepingError::read(path, e))?;
    Ok((file, metadata))
}

/// Whether the file holds a retraction at or before this epoch.
pub(super) fn retracts_until(data: &Path, file: &FileEntry, limit: i64) -> Result<bool, HousekeepingError> {
    let path = locate(data, &file.path);
    let error = |e| HousekeepingError::read(&path, e);
    let (file, metadata) = open(&path)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let mask = parquet::arrow::ProjectionMask::columns(builder.parquet_schema(), ["epoch", "diff"]);
    for batch in builder.with_projection(mask).build().map_err(error)? {
        let batch = batch.map_err(|e| error(e.into()))?;
        let (epochs, diffs) = (longs(&batch, 0), longs(&batch, 1));
        if epochs.values().iter().zip(diffs.values()).any(|(e, d)| *d < 0 && *e <= limit) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// An Int64 column.
fn longs(batch: &RecordBatch, column: usize) -> &Int64Array {
    batch.column(column).as_primitive::<Int64Type>()
}

/// Merges the files. What comes out lies aside, durable; nobody knows of it yet.
///
/// # Errors
/// A file that cannot be read or written, or whose rows were not what the manifest says.
pub(super) fn merge(job: &Job<'_>) -> Result<Merged, HousekeepingError> {
    let mut stretches = VecDeque::new();
    for file in job.files {
        stretches.extend(stretches_of(job.data, file)?);
    }
    let Some(first) = job.files.first() else { return Ok(Merged::default()) };
    let (_, metadata) = open(&locate(job.data, &first.path))?;
    let shape = Shape::new(job.table, metadata.schema().clone());
    let (mut seq, mut cancelled, mut passing) = (0, 0, Vec::new());
    let files = loop {
        let count = fan_in(&stretches, job.fan_in);
        let now: Vec<Stretch> = stretches.drain(..count).collect();
        let last = stretches.is_empty();
        let target = if last { job.config.roll_bytes.0 } else { u64::MAX };
        let mut output = Output::new(job, &shape, &mut seq, target);
        // Among a part of the runs a retraction could meet another row than its own.
        let limit = job.limit.filter(|_| last);
        cancelled += merge_runs(limit, &shape, &now, &mut output)?;
        let files = output.finish(if last { newest(job.files) } else { None })?;
        if last {
            break files;
        }
        for file in files {
            stretches.extend(stretches_of(job.data, &file)?);
            passing.push(locate(job.data, &file.path));
        }
    };
    for path in passing {
        crate::files::remove_file(&path)?;
    }
    let rows = |files: &[FileEntry]| files.iter().map(|f| f.rows).sum::<u64>();
    if rows(job.files) != rows(&files) + cancelled {
        return Err(HousekeepingError::Rows {
            table: job.table.name(),
            date: job.date.text(),
            expected: rows(job.files),
            found: rows(&files) + cancelled,
        });
    }
    Ok(Merged { files, cancelled })
}

/// A partition's files say together up to which epoch they hold its rows ([`crate::history::Published`]).
fn newest(files: &[FileEntry]) -> Option<i64> {
    files.iter().map(|f| f.max_epoch).max()
}

/// How many of the first stretches may be merged at once.
fn fan_in(stretches: &VecDeque<Stretch>, most: usize) -> usize {
    let mut bytes = 0;
    let fits = stretches.iter().take(most).take_while(|s| {
        bytes += s.bytes;
        bytes <= FAN_IN_BYTES
    });
    fits.count().max(2).min(stretches.len())
}

fn stretches_of(data: &Path, file: &FileEntry) -> Result<Vec<Stretch>, HousekeepingError> {
    let path = locate(data, &file.path);
    let (_, metadata) = open(&path)?;
    let groups = metadata.metadata().row_groups();
    let bytes = |i: &usize| u64::try_from(groups[*i].total_byte_size()).unwrap_or(0);
    let stretch = |groups_of: Vec<usize>| {
        let rows = groups_of.iter().map(|i| u64::try_from(groups[*i].num_rows()).unwrap_or(0)).sum::<u64>();
        let row_bytes = groups_of.iter().map(bytes).sum::<u64>() / rows.max(1);
        let bytes = groups_of.iter().map(bytes).max().unwrap_or(0);
        Stretch { path: path.clone(), groups: groups_of, bytes, row_bytes }
    };
    // What came out of here is sorted from its first row to its last, else each row group is.
    let ours = file.path.rsplit('/').next().is_some_and(|name| name.starts_with('c'));
    let all: Vec<usize> = (0..groups.len()).collect();
    Ok(if ours { vec![stretch(all)] } else { all.into_iter().map(|i| stretch(vec![i])).collect() })
}

/// A table as its files have it.
struct Shape {
    table: Table,
    schema: SchemaRef,
    /// Columns of the key.
    key: Vec<usize>,
    epoch: usize,
    diff: usize,
}

impl Shape {
    /// The columns of `readings` follow the configuration of then, so the files say what they are.
    fn new(id: TableId, schema: SchemaRef) -> Self {
        let mut table = Table::new(id, &Catalogue::default());
        let own = |f: &&Arc<Field>| f.name() != "epoch" && f.name() != "diff";
        let column = |f: &Arc<Field>| Column {
            name: f.name().clone(),
            kind: kind(f.data_type()),
            nullable: f.is_nullable(),
            doc: String::new(),
        };
        table.columns = schema.fields().iter().filter(own).map(column).collect();
        let key = table.key.iter().filter_map(|k| table.column(k)).collect();
        let epoch = table.columns.len();
        Self { table, schema, key, epoch, diff: epoch + 1 }
    }

    fn converter(&self, columns: impl Iterator<Item = usize>) -> Result<RowConverter, HousekeepingError> {
        let fields = columns.map(|c| SortField::new(self.schema.field(c).data_type().clone())).collect();
        RowConverter::new(fields).map_err(HousekeepingError::arrow)
    }
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Int64 => Kind::Int,
        DataType::Timestamp(..) => Kind::Time,
        DataType::Float64 => Kind::Float,
        DataType::Boolean => Kind::Bool,
        DataType::Binary => Kind::Binary,
        _ => Kind::Text,
    }
}

/// What rows are compared by.
struct Converters {
    order: (Vec<usize>, RowConverter),
    /// Where changes may cancel.
    content: Option<(Vec<usize>, RowConverter)>,
}

impl Converters {
    fn new(shape: &Shape, cancels: bool) -> Result<Self, HousekeepingError> {
        let columns: Vec<usize> = shape.key.iter().copied().chain([shape.epoch]).collect();
        let order = (columns.clone(), shape.converter(columns.into_iter())?);
        let all: Vec<usize> = (0..shape.epoch).collect();
        let content = if cancels { Some((all.clone(), shape.converter(all.into_iter())?)) } else { None };
        Ok(Self { order, content })
    }
}

fn rows_of(pair: &(Vec<usize>, RowConverter), batch: &RecordBatch) -> Result<Rows, HousekeepingError> {
    let columns: Vec<ArrayRef> = pair.0.iter().map(|c| batch.column(*c).clone()).collect();
    pair.1.convert_columns(&columns).map_err(HousekeepingError::arrow)
}

/// A run being read; it stands at a row.
struct Run {
    reader: ParquetRecordBatchReader,
    path: PathBuf,
    batch: Arc<RecordBatch>,
    order: Rows,
    content: Option<Rows>,
    row: usize,
}

impl Run {
    /// `None` when there is no row.
    fn open(stretch: &Stretch, converters: &Converters, batch_rows: usize) -> Result<Option<Self>, HousekeepingError> {
        // A file each: readers of one would share its position.
        let (file, metadata) = open(&stretch.path)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let mut reader = builder
            .with_row_groups(stretch.groups.clone())
            .with_batch_size(batch_rows)
            .build()
            .map_err(|e| HousekeepingError::read(&stretch.path, e))?;
        let Some(batch) = next(&mut reader, &stretch.path)? else { return Ok(None) };
        let (order, content) = Self::rows(&batch, converters)?;
        Ok(Some(Self { reader, path: stretch.path.clone(), batch: Arc::new(batch), order, content, row: 0 }))
    }

    fn rows(batch: &RecordBatch, converters: &Converters) -> Result<(Rows, Option<Rows>), HousekeepingError> {
        let content = converters.content.as_ref().map(|c| rows_of(c, batch)).transpose()?;
        Ok((rows_of(&converters.order, batch)?, content))
    }

    /// Goes to the next row; false at the end.
    fn advance(&mut self, converters: &Converters) -> Result<bool, HousekeepingError> {
        self.row += 1;
        if self.row < self.batch.num_rows() {
            return Ok(true);
        }
        let Some(batch) = next(&mut self.reader, &self.path)? else { return Ok(false) };
        (self.order, self.content) = Self::rows(&batch, converters)?;
        (self.batch, self.row) = (Arc::new(batch), 0);
        Ok(true)
    }

    /// The row with what it says.
    fn change(&self, shape: &Shape) -> Change {
        Change {
            batch: self.batch.clone(),
            row: self.row,
            epoch: longs(&self.batch, shape.epoch).value(self.row),
            diff: longs(&self.batch, shape.diff).value(self.row),
            content: self.content.as_ref().map(|c| c.row(self.row).owned()),
        }
    }
}

fn next(reader: &mut ParquetRecordBatchReader, path: &Path) -> Result<Option<RecordBatch>, HousekeepingError> {
    loop {
        match reader.next().transpose().map_err(|e| HousekeepingError::read(path, e.into()))? {
            Some(batch) if batch.num_rows() == 0 => {}
            other => return Ok(other),
        }
    }
}

/// Merges these into the output, where changes up to `limit` cancel. Returns how many rows cancelled each other.
fn merge_runs(
    limit: Option<i64>,
    shape: &Shape,
    stretches: &[Stretch],
    output: &mut Output<'_>,
) -> Result<u64, HousekeepingError> {
    let converters = Converters::new(shape, limit.is_some())?;
    let row_bytes = stretches.iter().map(|s| s.row_bytes).max().unwrap_or(0).max(1);
    let rows = usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(BATCH_ROWS).clamp(16, BATCH_ROWS);
    output.batch_rows = rows.min(output.job.config.row_group_rows);
    let mut runs = Vec::new();
    for stretch in stretches {
        runs.extend(Run::open(stretch, &converters, output.batch_rows)?);
    }
    let mut heap: Vec<usize> = (0..runs.len()).collect();
    (0..heap.len()).rev().for_each(|at| sift(&mut heap, &runs, at));
    let (mut cancelled, mut group, mut group_key): (u64, Vec<Change>, Vec<u8>) = (0, Vec::new(), Vec::new());
    while let Some(&top) = heap.first() {
        let change = runs[top].change(shape);
        match limit {
            None => output.push(change)?,
            Some(limit) => {
                let key = key_bytes(&runs[top]);
                if key != group_key.as_slice() {
                    cancelled += flush(&mut group, limit, output)?;
                    group_key = key.to_vec();
                }
                group.push(change);
            }
        }
        if !runs[top].advance(&converters)? {
            heap.swap_remove(0);
        }
        sift(&mut heap, &runs, 0);
    }
    Ok(cancelled + limit.map_or(Ok(0), |limit| flush(&mut group, limit, output))?)
}

/// The row's key: its order without the epoch, which is encoded last, a marker and eight bytes.
fn key_bytes(run: &Run) -> &[u8] {
    let row = run.order.row(run.row).data();
    &row[..row.len().saturating_sub(9)]
}

/// Writes what is left of the changes of one key.
fn flush(group: &mut Vec<Change>, limit: i64, output: &mut Output<'_>) -> Result<u64, HousekeepingError> {
    let cancelled = cancel(group, limit);
    group.drain(..).try_for_each(|change| output.push(change))?;
    Ok(cancelled)
}

/// Moves the run at a place of the heap down to where it belongs. Of equal rows the earlier run's comes first.
fn sift(heap: &mut [usize], runs: &[Run], mut at: usize) {
    let order = |i: usize| runs[i].order.row(runs[i].row);
    let less = |a: usize, b: usize| order(a).cmp(&order(b)).then(a.cmp(&b)).is_lt();
    loop {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let mut least = at;
        for child in [left, right] {
            if child < heap.len() && less(heap[child], heap[least]) {
                least = child;
            }
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}

/// Writes rows to files of about the size asked for.
struct Output<'a> {
    job: &'a Job<'a>,
    shape: &'a Shape,
    place: Place,
    seq: &'a mut u64,
    target: u64,
    batch_rows: usize,
    waiting: Vec<Change>,
    file: Option<OpenFile>,
    group_rows: usize,
    done: Vec<FileEntry>,
}

impl<'a> Output<'a> {
    fn new(job: &'a Job<'a>, shape: &'a Shape, seq: &'a mut u64, target: u64) -> Self {
        let place = Place::compacted(job.data, job.number);
        let (waiting, done) = (Vec::new(), Vec::new());
        Self { job, shape, place, seq, target, batch_rows: BATCH_ROWS, waiting, file: None, group_rows: 0, done }
    }

    fn push(&mut self, change: Change) -> Result<(), HousekeepingError> {
        self.waiting.push(change);
        if self.waiting.len() >= self.batch_rows { self.write() } else { Ok(()) }
    }

    /// Writes the waiting rows; ends the row group and the file when they are large enough.
    fn write(&mut self) -> Result<(), HousekeepingError> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        let (batch, stats) = gather(self.shape, &waiting)?;
        drop(waiting);
        let config = self.job.config;
        let file = self.open()?;
        file.append(&batch, stats)?;
        let held = file.held();
        self.group_rows += batch.num_rows();
        if self.group_rows < config.row_group_rows && held < config.buffer.0 {
            return Ok(());
        }
        self.group_rows = 0;
        let file = self.open()?;
        file.end_group()?;
        if file.bytes() >= self.target
            && let Some(file) = self.file.take()
        {
            self.done.push(file.finish()?);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut OpenFile, HousekeepingError> {
        if self.file.is_none() {
            let (table, schema) = (&self.shape.table, self.shape.schema.clone());
            let file = OpenFile::with_schema(&self.place, table, schema, self.job.date, *self.seq, self.job.config)?;
            *self.seq += 1;
            self.file = Some(file);
        }
        let nothing = || HousekeepingError::arrow(arrow::error::ArrowError::ComputeError("no file is open".into()));
        self.file.as_mut().ok_or_else(nothing)
    }

    /// The files, of which one says that it holds the rows up to `newest`: an empty one when nothing was left.
    fn finish(mut self, newest: Option<i64>) -> Result<Vec<FileEntry>, HousekeepingError> {
        self.write()?;
        if self.file.is_none() && self.done.is_empty() {
            self.open()?;
        }
        if let Some(mut file) = self.file.take() {
            newest.into_iter().for_each(|epoch| file.covers(epoch));
            self.done.push(file.finish()?);
        } else if let (Some(last), Some(newest)) = (self.done.last_mut(), newest) {
            last.max_epoch = last.max_epoch.max(newest);
        }
        Ok(self.done)
    }
}

/// The rows as a batch, each with its own `diff`.
fn gather(shape: &Shape, changes: &[Change]) -> Result<(RecordBatch, GroupStats), HousekeepingError> {
    let mut batches: Vec<&RecordBatch> = Vec::new();
    let mut places: std::collections::BTreeMap<*const RecordBatch, usize> = Default::default();
    let mut picks = Vec::with_capacity(changes.len());
    for change in changes {
        let place = *places.entry(Arc::as_ptr(&change.batch)).or_insert_with(|| {
            batches.push(&change.batch);
            batches.len() - 1
        });
        picks.push((place, change.row));
    }
    let batch = interleave_record_batch(&batches, &picks).map_err(HousekeepingError::arrow)?;
    let mut columns = batch.columns().to_vec();
    if let Some(diff) = columns.get_mut(shape.diff) {
        *diff = Arc::new(Int64Array::from_iter_values(changes.iter().map(|c| c.diff)));
    }
    let batch = RecordBatch::try_new(shape.schema.clone(), columns).map_err(HousekeepingError::arrow)?;
    let epochs = || changes.iter().map(|c| c.epoch);
    let stats = GroupStats {
        retractions: changes.iter().filter(|c| c.diff < 0).count() as u64,
        min_epoch: epochs().min().unwrap_or(i64::MAX),
        max_epoch: epochs().max().unwrap_or(i64::MIN),
    };
    Ok((batch, stats))
}
