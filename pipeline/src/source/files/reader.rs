//! The thread that reads the files of a source, one after the other, ahead of the source thread by a few blocks.

use super::inputs::{FileInput, Packing};
use super::lines::Splitter;
use crate::source::chunk::{Chunk, ChunkData, LineBlock, Lines};
use crate::source::config::{Format, SourceSpec, TextFormat};
use crate::source::error::SourceError;
use crate::source::feed::{Fed, Feed, Progress};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::reading::Origin;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;

/// Blocks read ahead.
const AHEAD: usize = 4;
const BUFFER: usize = 256 * 1024;
const ROWS: usize = 4096;

/// What the reader thread needs to know.
pub(crate) struct Reading {
    pub(crate) source: u16,
    pub(crate) partition: Arc<Origin>,
    pub(crate) spec: SourceSpec,
    pub(crate) files: Vec<FileInput>,
    /// Positions up to which origins have been read before.
    pub(crate) done: BTreeMap<Arc<Origin>, i64>,
    /// Largest record in bytes.
    pub(crate) limit: usize,
    pub(crate) progress: Arc<Progress>,
    /// Whom to wake when a block is there.
    pub(crate) wake: Thread,
}

/// The identity of a file source's one partition.
pub(crate) fn partition(source: &Arc<str>) -> Arc<Origin> {
    Arc::new(Origin { source: source.clone(), name: "*".into(), partition: 0 })
}

/// Starts the reader thread of a source; it ends with the files or when the feed is dropped.
pub(crate) fn open(reading: Reading) -> Result<Box<dyn Feed>, SourceError> {
    let (sender, receiver) = bounded(AHEAD);
    let name = format!("read-{}", reading.spec.name);
    let thread = move || {
        let wake = reading.wake.clone();
        if let Err(Stopped::Failed(error)) = read_all(&reading, &sender) {
            // The feed may have gone; then nobody wants to know.
            let _ = sender.send(Err(error));
        }
        drop(sender);
        wake.unpark();
    };
    std::thread::Builder::new().name(name).spawn(thread).map_err(SourceError::Thread)?;
    Ok(Box::new(FileFeed { receiver, rest: None }))
}

struct FileFeed {
    receiver: Receiver<Result<Chunk, SourceError>>,
    rest: Option<Chunk>,
}

impl Feed for FileFeed {
    fn next(&mut self, max: usize) -> Result<Fed, SourceError> {
        let mut chunk = match self.rest.take() {
            Some(chunk) => chunk,
            None => match self.receiver.try_recv() {
                Ok(chunk) => chunk?,
                Err(TryRecvError::Empty) => return Ok(Fed::Nothing),
                Err(TryRecvError::Disconnected) => return Ok(Fed::Ended),
            },
        };
        if chunk.len() > max {
            self.rest = Some(chunk.split_off(max));
        }
        Ok(Fed::Chunk { chunk, last: false })
    }
}

enum Stopped {
    Failed(SourceError),
    /// The feed was dropped.
    Unwanted,
}

impl From<SourceError> for Stopped {
    fn from(error: SourceError) -> Self {
        Self::Failed(error)
    }
}

fn read_all(reading: &Reading, sender: &Sender<Result<Chunk, SourceError>>) -> Result<(), Stopped> {
    for file in &reading.files {
        let name: Arc<str> = file.path.to_string_lossy().into();
        let origin = Arc::new(Origin { source: reading.spec.name.clone(), name, partition: 0 });
        let skip = reading.done.get(&origin).copied().unwrap_or(0);
        let send = |data| {
            let chunk =
                Chunk { source: reading.source, partition: reading.partition.clone(), origin: origin.clone(), data };
            if chunk.is_empty() {
                return Ok(());
            }
            sender.send(Ok(chunk)).map_err(|_| Stopped::Unwanted)?;
            reading.wake.unpark();
            Ok(())
        };
        match file.format {
            Format::Parquet => read_parquet(reading, file, skip, send)?,
            format => read_text(reading, file, format, skip, send)?,
        }
    }
    Ok(())
}

fn read_text(
    reading: &Reading,
    file: &FileInput,
    format: Format,
    skip: i64,
    send: impl Fn(ChunkData) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let text = &reading.spec.text;
    let delimiter = text.delimiter(format);
    let quotes = (format == Format::Csv).then_some(delimiter);
    let mut header = text.fixed_header(format).map(Arc::new);
    let wants_header = format != Format::Json && header.is_none();
    // The header is needed even when its line has been read before.
    let skip_now = if wants_header { 0 } else { skip };
    let mut splitter = Splitter::new(unpack(file, reading)?, reading.limit, quotes, skip_now);
    loop {
        let block = splitter.next_block().map_err(|e| SourceError::Corrupt {
            path: file.path.clone(),
            position: format!("line {}", splitter.line() - 1),
            reason: e.to_string(),
        })?;
        let Some(mut block) = block else { return Ok(()) };
        if wants_header && header.is_none() {
            header = Some(Arc::new(take_header(&file.path, text, format, reading.limit, &mut block)?));
        }
        if wants_header {
            block.spans.retain(|span| span.line > skip);
        }
        let lines = Lines::new(block);
        send(match &header {
            Some(header) => ChunkData::Csv { header: header.clone(), lines },
            None => ChunkData::Lines(lines),
        })?;
    }
}

/// The header that a file's first line gives.
fn take_header(
    path: &Path,
    text: &TextFormat,
    format: Format,
    limit: usize,
    block: &mut LineBlock,
) -> Result<CsvHeader, SourceError> {
    let Some(span) = block.spans.first().copied() else { return Ok(text.first_line(format, b"").0) };
    let line = block.record(span);
    if line.len() > limit {
        let reason = format!("its first line, which must name the columns, has more than {limit} bytes");
        return Err(SourceError::Form { path: path.to_path_buf(), form: "delimited text", reason });
    }
    let (header, only) = text.first_line(format, line);
    if only {
        block.spans.remove(0);
    }
    Ok(header)
}

fn unpack(file: &FileInput, reading: &Reading) -> Result<Box<dyn Read>, SourceError> {
    let unreadable = |e: std::io::Error| SourceError::Unreadable { path: file.path.clone(), reason: e.to_string() };
    let input = Counted { input: File::open(&file.path).map_err(unreadable)?, progress: reading.progress.clone() };
    Ok(match file.packing {
        Packing::Plain => Box::new(input),
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, input))),
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(input).map_err(unreadable)?),
    })
}

/// Counts the bytes that come from the disk.
struct Counted {
    input: File,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

fn read_parquet(
    reading: &Reading,
    file: &FileInput,
    skip: i64,
    send: impl Fn(ChunkData) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut row = 0i64;
    let corrupt = |row: i64, reason: String| SourceError::Corrupt {
        path: file.path.clone(),
        position: format!("row {row}"),
        reason,
    };
    let input = File::open(&file.path).map_err(|e| corrupt(0, e.to_string()))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(input).map_err(|e| corrupt(0, e.to_string()))?;
    let total = builder.metadata().file_metadata().num_rows().max(1);
    let batches = builder.with_batch_size(ROWS).build().map_err(|e| corrupt(0, e.to_string()))?;
    let mut counted = 0;
    for batch in batches {
        let batch = batch.map_err(|e| corrupt(row, e.to_string()))?;
        let rows = batch.num_rows();
        let passed = usize::try_from(skip - row).unwrap_or(0).min(rows);
        if passed < rows {
            let first_row = row + passed as i64 + 1;
            send(ChunkData::Columns { batch: batch.slice(passed, rows - passed), first_row })?;
        }
        row += rows as i64;
        let share = (u128::from(file.size) * row.unsigned_abs() as u128 / total.unsigned_abs() as u128) as u64;
        reading.progress.bytes.fetch_add(share.saturating_sub(counted), Ordering::Relaxed);
        counted = share;
    }
    Ok(())
}
