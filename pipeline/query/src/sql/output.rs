//! Writes a result as table, CSV, JSON lines or Parquet, batch by batch. Only the format `table` keeps rows in memory,
//! and of those a limited number.

use super::QueryError;
use clap::ValueEnum;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringBuilder};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::json::writer::{EncoderOptions, LineDelimited, make_encoder};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::arrow::{csv, json};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use std::fs::File;
use std::future::poll_fn;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

/// Rows that the format `table` shows at most.
pub(super) const TABLE_ROWS: usize = 10_000;

/// How a result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: aligned columns, the first 10,000 rows.
    #[default]
    Table,
    /// With a header; times RFC 3339, nested values as JSON, null as the empty field.
    Csv,
    /// One object a line.
    Json,
    /// zstd; needs `--out`.
    Parquet,
}

/// The next batch of a stream.
async fn next(stream: &mut SendableRecordBatchStream) -> Result<Option<RecordBatch>, QueryError> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await.transpose().map_err(QueryError::from)
}

/// Writes the whole stream to `out`; returns the number of rows.
///
/// # Errors
/// A failing query, or a failing write; a closed pipe is [`QueryError::Closed`].
pub async fn write(
    format: Format,
    mut stream: SendableRecordBatchStream,
    out: &mut (dyn Write + Send),
) -> Result<usize, QueryError> {
    let rows = match format {
        Format::Table => table(&mut stream, out).await?,
        Format::Csv => comma_separated(&mut stream, out).await?,
        Format::Json => {
            let mut writer = json::WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut *out);
            let mut rows = 0;
            while let Some(batch) = next(&mut stream).await? {
                rows += batch.num_rows();
                writer.write(&batch)?;
            }
            writer.finish()?;
            rows
        }
        Format::Parquet => return Err(QueryError::Usage("--format parquet needs --out FILE".into())),
    };
    out.flush()?;
    Ok(rows)
}

/// Writes the stream to a file, which appears when it is complete.
///
/// # Errors
/// As [`write()`], with the file's path.
pub async fn write_file(
    format: Format,
    mut stream: SendableRecordBatchStream,
    path: &Path,
) -> Result<usize, QueryError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let file = File::create(part).map_err(|e| QueryError::file(part, e))?;
    let rows = if format == Format::Parquet {
        let level = ZstdLevel::try_new(3).map_err(|e| QueryError::Failed(e.to_string()))?;
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
        let mut writer = ArrowWriter::try_new(file, stream.schema(), Some(properties))?;
        let mut rows = 0;
        while let Some(batch) = next(&mut stream).await? {
            rows += batch.num_rows();
            writer.write(&batch)?;
        }
        writer.close()?;
        rows
    } else {
        write(format, stream, &mut BufWriter::with_capacity(1 << 20, file)).await?
    };
    std::fs::rename(part, path).map_err(|e| QueryError::file(path, e))?;
    Ok(rows)
}

async fn table(stream: &mut SendableRecordBatchStream, out: &mut (dyn Write + Send)) -> Result<usize, QueryError> {
    let (mut batches, mut rows) = (vec![RecordBatch::new_empty(stream.schema())], 0);
    let mut more = false;
    while let Some(batch) = next(stream).await? {
        let room = TABLE_ROWS - rows;
        more = batch.num_rows() > room;
        let batch = batch.slice(0, batch.num_rows().min(room));
        rows += batch.num_rows();
        batches.push(batch);
        if more {
            break;
        }
    }
    writeln!(out, "{}", pretty_format_batches(&batches)?)?;
    if more {
        writeln!(out, "the first {rows} rows; use --format csv, json or parquet for all of them")?;
    } else {
        writeln!(out, "{rows} row{}", if rows == 1 { "" } else { "s" })?;
    }
    Ok(rows)
}

async fn comma_separated(
    stream: &mut SendableRecordBatchStream,
    out: &mut (dyn Write + Send),
) -> Result<usize, QueryError> {
    let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
    let mut rows = 0;
    // Written before the first row, so that an empty result has its header.
    writer.write(&flat(&RecordBatch::new_empty(stream.schema()))?)?;
    while let Some(batch) = next(stream).await? {
        rows += batch.num_rows();
        writer.write(&flat(&batch)?)?;
    }
    Ok(rows)
}

/// The batch with nested columns as JSON text, which CSV can hold.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(json_text(field, column)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

fn json_text(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column.as_ref(), &options)?;
    let (mut text, mut bytes) = (StringBuilder::new(), Vec::new());
    for row in 0..column.len() {
        if encoder.is_null(row) {
            text.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        text.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(text.finish()))
}
