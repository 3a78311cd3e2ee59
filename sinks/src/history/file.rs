//! One Parquet file of the history while it is written.
//!
//! ```text
//! <data>/staging/g<generation>/<table>_log/date=…/<seq>.parquet.tmp     being written
//! <data>/staging/g<generation>/<table>_log/date=…/g<gen>-<first>-<last>-<seq>.parquet    whole and durable
//! <data>/history/<table>_log/date=…/g<gen>-<first>-<last>-<seq>.parquet                  published
//! ```
//!
//! With a store a whole file goes to the same path there (`upload`), and is published there.

use super::config::HistoryConfig;
use super::{DateKey, HistoryError};
use crate::failpoint;
use crate::files::{At, FileError, create_dir, list, sync_dir};
use crate::housekeeping::log::COMPACTED;
use crate::progress::FileEntry;
use crate::progress::data::{STAGING, generation_of, generation_of_path};
use crate::store::{Remote, Storage};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use drivetrain_schemas::arrow::schema;
use drivetrain_schemas::table::{Kind, Table, TableId};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Where files go until they are published.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    data: PathBuf,
    /// Below the data directory, such as `staging/g3`.
    root: String,
    /// Of their names, such as `g3`.
    prefix: String,
}

impl Place {
    /// Of a run.
    pub(crate) fn staging(data: &Path, generation: u64) -> Self {
        Self { data: data.to_path_buf(), root: format!("{STAGING}/g{generation}"), prefix: format!("g{generation}") }
    }

    /// Of a change by [`crate::housekeeping`].
    pub(crate) fn compacted(data: &Path, number: u64) -> Self {
        Self { data: data.to_path_buf(), root: COMPACTED.to_string(), prefix: format!("c{number}") }
    }
}

/// What the rows of a row group are, beside their cells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupStats {
    pub(crate) retractions: u64,
    pub(crate) min_epoch: i64,
    pub(crate) max_epoch: i64,
}

/// A file being written. Dropping it leaves its `.tmp` behind, which nobody reads.
pub(crate) struct OpenFile {
    writer: ArrowWriter<Hashing>,
    tmp: PathBuf,
    place: Place,
    /// Such as `trips_log/date=2026-05-01`.
    dir: String,
    table: TableId,
    pub(super) seq: u64,
    rows: u64,
    stats: GroupStats,
}

/// Counts and hashes what goes to the file.
struct Hashing {
    file: BufWriter<File>,
    hash: Xxh3,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The directory of a table's partition below `history/` or `staging/g…/`.
pub(super) fn partition_dir(table: &Table, date: DateKey) -> String {
    match table.date {
        Some(_) => format!("{}_log/date={}", table.name, date.text()),
        None => format!("{}_log", table.name),
    }
}

impl OpenFile {
    /// Creates the file, which must not exist.
    pub(super) fn create(
        place: &Place,
        table: &Table,
        date: DateKey,
        seq: u64,
        config: &HistoryConfig,
    ) -> Result<Self, HistoryError> {
        Self::with_schema(place, table, schema(table, true), date, seq, config)
    }

    /// Creates the file with the columns of others.
    pub(crate) fn with_schema(
        place: &Place,
        table: &Table,
        schema: SchemaRef,
        date: DateKey,
        seq: u64,
        config: &HistoryConfig,
    ) -> Result<Self, HistoryError> {
        let dir = partition_dir(table, date);
        let staging = place.data.join(&place.root).join(&dir);
        create_dir(&staging)?;
        let tmp = staging.join(format!("{seq}.parquet.tmp"));
        let file = File::create_new(&tmp).at("cannot create", &tmp)?;
        let sink = Hashing { file: BufWriter::with_capacity(1 << 18, file), hash: Xxh3::new(), bytes: 0 };
        let properties = properties(table, config);
        let writer = ArrowWriter::try_new(sink, schema, Some(properties))
            .map_err(|source| HistoryError::parquet(&tmp, source))?;
        let stats = GroupStats { retractions: 0, min_epoch: i64::MAX, max_epoch: i64::MIN };
        Ok(Self { writer, tmp, place: place.clone(), dir, table: table.id, seq, rows: 0, stats })
    }

    /// Writes one row group.
    pub(super) fn write(&mut self, batch: &RecordBatch, stats: GroupStats) -> Result<(), HistoryError> {
        self.append(batch, stats)?;
        self.end_group()
    }

    /// Adds rows to the row group being written.
    pub(crate) fn append(&mut self, batch: &RecordBatch, stats: GroupStats) -> Result<(), HistoryError> {
        self.writer.write(batch).map_err(|source| HistoryError::parquet(&self.tmp, source))?;
        self.rows += batch.num_rows() as u64;
        self.stats.retractions += stats.retractions;
        self.stats.min_epoch = self.stats.min_epoch.min(stats.min_epoch);
        self.stats.max_epoch = self.stats.max_epoch.max(stats.max_epoch);
        Ok(())
    }

    /// Ends the row group being written.
    pub(crate) fn end_group(&mut self) -> Result<(), HistoryError> {
        self.writer.flush().map_err(|source| HistoryError::parquet(&self.tmp, source))
    }

    /// Bytes of the row group being written.
    pub(crate) fn held(&self) -> u64 {
        self.writer.in_progress_size() as u64
    }

    /// Notes that all rows of the partition up to this epoch are in its files, although this one may hold none of it.
    pub(crate) fn covers(&mut self, epoch: i64) {
        self.stats.max_epoch = self.stats.max_epoch.max(epoch);
        self.stats.min_epoch = self.stats.min_epoch.min(epoch);
    }

    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// The oldest epoch in it.
    pub(super) fn min_epoch(&self) -> i64 {
        self.stats.min_epoch
    }

    /// Completes the file and makes it durable under its staging name.
    pub(crate) fn finish(mut self) -> Result<FileEntry, HistoryError> {
        let error = |source| HistoryError::parquet(&self.tmp, source);
        self.writer.finish().map_err(error)?;
        let sink = self.writer.inner_mut();
        sink.flush().and_then(|()| sink.file.get_ref().sync_all()).at("cannot write", &self.tmp)?;
        let (checksum, bytes) = (format!("{:016x}", sink.hash.digest()), sink.bytes);
        let GroupStats { retractions, min_epoch, max_epoch } = self.stats;
        let name = format!("{}-{min_epoch}-{max_epoch}-{}.parquet", self.place.prefix, self.seq);
        let staged = self.tmp.with_file_name(&name);
        failpoint::hit("history.close")?;
        std::fs::rename(&self.tmp, &staged).at("cannot rename to", &staged)?;
        staged.parent().map_or(Ok(()), sync_dir)?;
        failpoint::hit("history.closed")?;
        let path = format!("history/{}/{name}", self.dir);
        Ok(FileEntry { table: self.table, path, rows: self.rows, bytes, retractions, min_epoch, max_epoch, checksum })
    }
}

/// The staging path of a file; both below the data directory, or the store's URL.
pub(super) fn staged(generation: u64, path: &str) -> String {
    format!("{STAGING}/g{generation}/{}", path.strip_prefix("history/").unwrap_or(path))
}

/// Where a file that is whole waits in the data directory.
pub(super) fn local_staged(data: &Path, generation: u64, path: &str) -> PathBuf {
    data.join(staged(generation, path))
}

/// Gives the files that a committed record of `generation` names their final names. It may be repeated, and done by a
/// successor of that generation: files that have their names already are left alone.
pub(crate) fn publish(storage: impl Into<Storage>, generation: u64, files: &[FileEntry]) -> Result<(), HistoryError> {
    let storage = storage.into();
    if let Some(remote) = storage.remote() {
        return Ok(publish_objects(remote, generation, files)?);
    }
    let data = storage.local();
    let mut dirs = std::collections::BTreeSet::new();
    for file in files {
        let published = data.join(&file.path);
        let staged = data.join(staged(generation, &file.path));
        if published.exists() {
            continue;
        }
        if let Some(dir) = published.parent() {
            create_dir(dir)?;
            dirs.insert(dir.to_path_buf());
        }
        match std::fs::rename(&staged, &published) {
            // A successor has done it meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && published.exists() => {}
            done => done.at("cannot publish as", &published)?,
        }
        failpoint::hit("publish.between")?;
    }
    dirs.iter().try_for_each(|d| sync_dir(d))?;
    Ok(())
}

/// A store has no renaming: copied, then deleted. Copying again gives the same bytes, so that it may be repeated at any
/// moment, by an instance that was overtaken too.
fn publish_objects(remote: &Remote, generation: u64, files: &[FileEntry]) -> Result<(), FileError> {
    for files in files.chunks(16) {
        let pairs: Vec<_> = files.iter().map(|f| (staged(generation, &f.path), f.path.clone())).collect();
        remote.copy(&pairs)?;
        failpoint::hit("publish.between")?;
        remote.delete(pairs.into_iter().map(|(staged, _)| staged).collect())?;
        failpoint::hit("publish.between")?;
    }
    Ok(())
}

/// Removes the staging directory of a generation that has published everything.
pub(crate) fn clear_staging(storage: &Storage, generation: u64) -> Result<(), FileError> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    if let Some(remote) = storage.remote() {
        remote.delete(remote.list(&format!("{STAGING}/g{generation}"))?)?;
    }
    let data = storage.local();
    let staging = data.join(STAGING);
    let own = staging.join(format!("g{generation}"));
    match std::fs::remove_dir_all(&own) {
        // An instance that was overtaken and does not know it yet may still write there: the next start tries again.
        Err(e) if e.kind() == DirectoryNotEmpty => tracing::warn!(path = %own.display(), "staging stays until later"),
        Err(e) if e.kind() != NotFound => Err(e).at("cannot delete", &own)?,
        _ => {}
    }
    // Stays when something else is in it.
    let _ = std::fs::remove_dir(&staging);
    Ok(())
}

/// Removes what generations before this one have left in staging. What a record names must have been published.
pub(crate) fn discard_staging(storage: impl Into<Storage>, generation: u64) -> Result<(), FileError> {
    let storage = storage.into();
    if let Some(remote) = storage.remote() {
        let older = |path: &String| generation_of_path(path).is_some_and(|g| g < generation);
        return remote.delete(remote.list(STAGING)?.into_iter().filter(older).collect());
    }
    for older in
        list(&storage.local().join(STAGING))?.iter().filter_map(|name| generation_of(name)).filter(|g| *g < generation)
    {
        clear_staging(&storage, older)?;
    }
    Ok(())
}

/// How the columns are encoded. Ids repeat and go through dictionaries; the log's `epoch` grows in small steps.
fn properties(table: &Table, config: &HistoryConfig) -> WriterProperties {
    let large = matches!(table.id, TableId::Readings | TableId::Windows);
    let level = if large { config.compression_level } else { 3 };
    let column = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level).unwrap_or_default()))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(1 << 20)
        .set_created_by(concat!("drivetrain ", env!("CARGO_PKG_VERSION")).to_string())
        .set_column_dictionary_enabled(column("epoch"), false)
        .set_column_encoding(column("epoch"), Encoding::DELTA_BINARY_PACKED)
        .set_sorting_columns(Some(sorting(table)));
    for c in &table.columns {
        let path = column(&c.name);
        match c.kind {
            // Values of measures repeat little; hashing each would cost more than it saves.
            Kind::Float => properties = properties.set_column_dictionary_enabled(path, false),
            Kind::Time => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            Kind::Binary => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_statistics_enabled(path, EnabledStatistics::None);
            }
            Kind::Text if table.key.contains(&c.name.as_str()) => {
                // The filter is folded down to what the row group really holds; this is its largest size (32 KiB).
                properties = properties
                    .set_column_bloom_filter_fpp(path.clone(), 0.01)
                    .set_column_bloom_filter_max_ndv(path, 20_000);
            }
            _ => {}
        }
    }
    properties.build()
}

/// The order of rows within a row group: the key, then the epoch.
fn sorting(table: &Table) -> Vec<SortingColumn> {
    let key = table.key.iter().filter_map(|k| table.column(k)).chain([table.columns.len()]);
    key.map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true }).collect()
}
