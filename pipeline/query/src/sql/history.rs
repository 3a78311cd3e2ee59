//! The log of a history table as DataFusion reads it: the Parquet files under `<data>/history/<table>_log`, with the
//! partition column `date`, pruned by it and by the time column it follows from.

use super::QueryError;
use super::database::log_directory;
use bytes::{Buf, Bytes};
use datafusion::arrow::array::{ArrayRef, BooleanArray, Date32Array, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::{ObjectMeta, path::Path as StorePath};
use datafusion::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::ParquetMetaData;
use datafusion::parquet::file::reader::{ChunkReader, Length};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use drivetrain_schemas::table::TableId;
use drivetrain_sinks::housekeeping::locate;
use drivetrain_sinks::manifest::Manifest;
use drivetrain_sinks::progress::FileEntry;
use drivetrain_sinks::store::{Remote, Storage};
use std::fs::File;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

const DAY: i64 = 86_400_000_000;

/// One Parquet file of a log.
#[derive(Clone, Debug)]
pub(super) struct HistoryFile {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Days since 1970 of its partition; `None` where the table has none or the directory does not say.
    pub(super) date: Option<i32>,
    /// It holds a row with `diff` < 0, or does not say that it holds none.
    pub(super) retracts: bool,
    /// Its oldest and newest epoch, where known.
    pub(super) epochs: Option<(i64, i64)>,
    /// Its columns; `None`: those of the table's definition.
    pub(super) schema: Option<SchemaRef>,
}

/// The log's files, sorted by path: those that the manifest names, so that the result is exact while the job runs; in
/// a directory without a manifest, those that are there.
///
/// Footers are read where the manifest does not say enough: without one, and for `readings`, whose columns have
/// changed with the configuration.
///
/// # Errors
/// A directory or file that can't be read, with its path.
pub(super) fn files(storage: &Storage, manifest: &Manifest, id: TableId) -> Result<Vec<HistoryFile>, QueryError> {
    if let Some(remote) = storage.remote() {
        return objects(remote, manifest, id);
    }
    let data = storage.local();
    if manifest.generation == 0 && manifest.files.is_empty() {
        let mut paths = Vec::new();
        collect(&log_directory(data, id), &mut paths)?;
        paths.sort();
        return paths.into_iter().map(footer).collect();
    }
    let mut files: Vec<HistoryFile> = Vec::new();
    for entry in manifest.files.iter().filter(|f| f.table == id) {
        let path = locate(data, &entry.path);
        files.push(HistoryFile {
            schema: if id == TableId::Readings { footer(path.clone())?.schema } else { None },
            size: entry.bytes,
            date: partition(&path),
            retracts: entry.retractions > 0,
            epochs: Some((entry.min_epoch, entry.max_epoch)),
            path,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// As [`files`], in a store: their paths are relative to its URL.
fn objects(remote: &Remote, manifest: &Manifest, id: TableId) -> Result<Vec<HistoryFile>, QueryError> {
    let entries: Vec<_> = manifest.files.iter().filter(|f| f.table == id).collect();
    let mut schemas: Vec<Option<SchemaRef>> = vec![None; entries.len()];
    if id == TableId::Readings {
        let named: Vec<(String, u64)> = entries.iter().map(|f| (f.path.clone(), f.bytes)).collect();
        let ends = remote.read_ends(&named, END).map_err(|e| QueryError::Failed(e.to_string()))?;
        for ((schema, (path, size)), end) in schemas.iter_mut().zip(named).zip(ends) {
            let end = End { remote: remote.clone(), path, size, end };
            let metadata = ArrowReaderMetadata::load(&end, ArrowReaderOptions::new());
            let metadata =
                metadata.map_err(|e| QueryError::File { path: remote.place(&end.path), message: e.to_string() })?;
            *schema = Some(metadata.schema().clone());
        }
    }
    let file = |(entry, schema): (&&FileEntry, Option<SchemaRef>)| HistoryFile {
        path: PathBuf::from(&entry.path),
        size: entry.bytes,
        date: partition(Path::new(&entry.path)),
        retracts: entry.retractions > 0,
        epochs: Some((entry.min_epoch, entry.max_epoch)),
        schema,
    };
    let mut files: Vec<HistoryFile> = entries.iter().zip(schemas).map(file).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Bytes of a file's end that are fetched at once: more than most footers have.
const END: u64 = 64 << 10;

/// A file in a store of which the end is here.
struct End {
    remote: Remote,
    path: String,
    size: u64,
    end: Bytes,
}

impl Length for End {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for End {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.get_bytes(start, self.size.saturating_sub(start) as usize)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let (first, stop) = (self.size - self.end.len() as u64, start + length as u64);
        if start < first {
            // A footer of many columns and row groups: from here to the end.
            let whole = self.remote.read_ends(&[(self.path.clone(), self.size)], self.size - start);
            let whole = whole.map_err(|e| ParquetError::External(Box::new(e)))?.pop().unwrap_or_default();
            return Ok(whole.slice(..length.min(whole.len())));
        }
        if stop > self.size {
            return Err(ParquetError::EOF(format!("the file has {} bytes", self.size)));
        }
        Ok(self.end.slice((start - first) as usize..(stop - first) as usize))
    }
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<(), QueryError> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(QueryError::file(directory, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| QueryError::file(directory, e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            collect(&path, paths)?;
        } else if name.ends_with(".parquet") && !name.starts_with(['.', '_']) {
            paths.push(path);
        }
    }
    Ok(())
}

/// The day in the file's path (`…/date=2026-05-01/…`).
fn partition(path: &Path) -> Option<i32> {
    let names = path.components().filter_map(|c| c.as_os_str().to_str());
    names.filter_map(|n| n.strip_prefix("date=")).filter_map(days).next_back()
}

/// Days since 1970 of `YYYY-MM-DD`.
fn days(date: &str) -> Option<i32> {
    let at = drivetrain_schemas::time::parse_rfc3339(&format!("{date}T00:00:00Z")).ok()?;
    i32::try_from(at.div_euclid(DAY)).ok()
}

fn footer(path: PathBuf) -> Result<HistoryFile, QueryError> {
    let file = File::open(&path).map_err(|e| QueryError::file(&path, e))?;
    let size = file.metadata().map_err(|e| QueryError::file(&path, e))?.len();
    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        .map_err(|e| QueryError::File { path: path.clone(), message: e.to_string() })?;
    Ok(HistoryFile {
        size,
        date: partition(&path),
        retracts: retracts(metadata.metadata()),
        epochs: None,
        schema: Some(metadata.schema().clone()),
        path,
    })
}

/// Does the column `diff` go below zero, as far as the statistics say?
fn retracts(metadata: &ParquetMetaData) -> bool {
    let columns = metadata.file_metadata().schema_descr().columns();
    let Some(diff) = columns.iter().position(|c| c.name() == "diff") else { return false };
    metadata.row_groups().iter().any(|group| match group.column(diff).statistics() {
        Some(Statistics::Int64(s)) => s.min_opt().is_none_or(|min| *min < 0),
        _ => true,
    })
}

/// A set of files of one log as a table: the files' columns, then `date` where the table is partitioned.
#[derive(Debug)]
pub(super) struct History {
    files: Vec<HistoryFile>,
    table: TableSchema,
    /// The column whose UTC day is `date`.
    time: Option<&'static str>,
    storage: Storage,
}

impl History {
    /// `schema` holds the files' columns; those that a file lacks are null.
    pub(super) fn new(
        storage: &Storage,
        schema: SchemaRef,
        time: Option<&'static str>,
        files: Vec<HistoryFile>,
    ) -> History {
        let partitions: Vec<_> =
            time.map(|_| Arc::new(Field::new("date", DataType::Date32, true))).into_iter().collect();
        let table = TableSchema::builder(schema).with_table_partition_cols(partitions).build();
        History { files, table, time, storage: storage.clone() }
    }

    /// The same table over those of its files that `keep` names.
    pub(super) fn only(&self, keep: impl Fn(&HistoryFile) -> bool) -> History {
        let files = self.files.iter().filter(|f| keep(f)).cloned().collect();
        History { files, table: self.table.clone(), time: self.time, storage: self.storage.clone() }
    }

    pub(super) fn files(&self) -> &[HistoryFile] {
        &self.files
    }

    fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files = self.prune(state, filters)?;
        if files.is_empty() {
            let schema = match projection {
                None => self.schema(),
                Some(columns) => Arc::new(self.schema().project(columns)?),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let parts = files.into_iter().map(|f| self.part(f)).collect::<DfResult<Vec<_>>>()?;
        let groups = FileGroup::new(parts).split_files(state.config().target_partitions());
        let source = Arc::new(ParquetSource::new(self.table.clone()));
        let config = FileScanConfigBuilder::new(self.store()?, source)
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// Where DataFusion finds the files.
    fn store(&self) -> DfResult<ObjectStoreUrl> {
        match self.storage.remote() {
            None => Ok(ObjectStoreUrl::local_filesystem()),
            Some(remote) => ObjectStoreUrl::parse(remote.bucket().1),
        }
    }

    fn part(&self, file: &HistoryFile) -> DfResult<PartitionedFile> {
        let location = match self.storage.remote() {
            None => StorePath::from_absolute_path(std::path::absolute(&file.path)?)?,
            Some(remote) => remote.location(&file.path.to_string_lossy()),
        };
        let meta = ObjectMeta {
            location,
            // Files are never changed; nothing compares this.
            last_modified: SystemTime::UNIX_EPOCH.into(),
            size: file.size,
            e_tag: None,
            version: None,
        };
        let values = self.time.map(|_| ScalarValue::Date32(file.date)).into_iter().collect();
        Ok(PartitionedFile::new_from_meta(meta).with_partition_values(values))
    }

    /// The files that may hold rows for which all filters are true.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Vec<&HistoryFile>> {
        let all = || self.files.iter().collect();
        let Some(filter) = conjunction(filters.to_vec()).filter(|_| self.time.is_some()) else { return Ok(all()) };
        let schema = DFSchema::try_from(self.schema())?;
        let Ok(predicate) = state.create_physical_expr(filter, &schema) else { return Ok(all()) };
        // A filter that can't be used for pruning is no reason to fail: it is evaluated above the scan.
        let builder = PruningPredicateBuilder::new().with_file_schema(self.schema());
        let Ok(pruning) = builder.try_build(predicate) else { return Ok(all()) };
        let keep = pruning.prune(&Days { files: &self.files, time: self.time })?;
        Ok(self.files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }
}

impl TableProvider for History {
    fn schema(&self) -> SchemaRef {
        self.table.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    // Written out as `#[async_trait]` would expand it.
    fn scan<'a, 'b, 'c, 'd, 'e>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'e>>
    where
        'a: 'e,
        'b: 'e,
        'c: 'e,
        'd: 'e,
        Self: 'e,
    {
        let plan = self.plan(state, projection, filters, limit);
        Box::pin(std::future::ready(plan))
    }
}

/// What the directories say of the files' contents.
struct Days<'a> {
    files: &'a [HistoryFile],
    time: Option<&'static str>,
}

impl Days<'_> {
    fn bound(&self, column: &Column, last: bool) -> Option<ArrayRef> {
        if column.name == "date" {
            return Some(Arc::new(self.files.iter().map(|f| f.date).collect::<Date32Array>()));
        }
        if Some(column.name.as_str()) != self.time {
            return None;
        }
        let offset = if last { DAY - 1 } else { 0 };
        let bounds = self.files.iter().map(|f| f.date.map(|d| i64::from(d) * DAY + offset));
        Some(Arc::new(bounds.collect::<TimestampMicrosecondArray>().with_timezone("UTC")))
    }
}

impl PruningStatistics for Days<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, false)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, true)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    #[allow(clippy::disallowed_types, reason = "the trait's signature")]
    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// One schema for all files: columns of all of them, in the order in which they first appear, nullable where one file
/// lacks it. `None` when no file says.
///
/// # Errors
/// Two files that disagree on a column's type, with the later file's path.
pub(super) fn merged_schema(files: &[HistoryFile]) -> Result<Option<Schema>, QueryError> {
    let schemas: Vec<&SchemaRef> = files.iter().filter_map(|f| f.schema.as_ref()).collect();
    let plain = |s: &SchemaRef| {
        let fields = s.fields().iter().map(|f| f.as_ref().clone().with_metadata(Default::default()));
        Schema::new(fields.collect::<Vec<_>>())
    };
    let mut merged: Option<Schema> = None;
    for file in files {
        let Some(schema) = &file.schema else { continue };
        let Some(so_far) = merged else {
            merged = Some(plain(schema));
            continue;
        };
        if so_far.fields().len() == schema.fields().len() && so_far.contains(&plain(schema)) {
            merged = Some(so_far);
            continue;
        }
        let both = Schema::try_merge([so_far, plain(schema)])
            .map_err(|e| QueryError::File { path: file.path.clone(), message: e.to_string() })?;
        merged = Some(both);
    }
    let everywhere = |name: &str| schemas.iter().all(|s| s.field_with_name(name).is_ok());
    let field = |f: &Arc<Field>| f.as_ref().clone().with_nullable(f.is_nullable() || !everywhere(f.name()));
    Ok(merged.map(|s| Schema::new(s.fields().iter().map(field).collect::<Vec<_>>())))
}
