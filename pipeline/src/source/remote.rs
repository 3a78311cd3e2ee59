//! The form in which a chunk goes to a worker of another process.
//!
//! The contract: a decoder is shown the same records, in the same order, with the same positions, keys, timestamps and
//! headers, by the chunk that arrives as by the one that was sent.

use super::chunk::{Chunk, ChunkData, LineBlock, Lines, Span};
use super::copied::Copied;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::reading::Origin;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A [`Chunk`] that owns its bytes and nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoteChunk {
    source: u16,
    partition: Arc<Origin>,
    origin: Arc<Origin>,
    data: Data,
}

#[derive(Debug, Serialize, Deserialize)]
enum Data {
    Lines(Text),
    Csv {
        header: Arc<CsvHeader>,
        text: Text,
    },
    /// `ipc`: Arrow's stream format, one batch.
    Columns {
        #[serde(with = "drivetrain_schemas::bytes")]
        ipc: Vec<u8>,
        first_row: i64,
    },
    Messages {
        messages: Copied,
        header: Option<Arc<CsvHeader>>,
    },
}

/// The lines of a chunk without those around them in their block.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    #[serde(with = "drivetrain_schemas::bytes")]
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl Text {
    fn new(lines: &Lines) -> Self {
        let mut text = Self { bytes: Vec::new(), spans: Vec::with_capacity(lines.spans().len()) };
        for span in lines.spans() {
            text.spans.push(Span { start: text.bytes.len() as u32, ..*span });
            text.bytes.extend_from_slice(lines.block.record(*span));
        }
        text
    }

    fn lines(self) -> Lines {
        Lines::new(LineBlock { bytes: self.bytes, spans: self.spans })
    }
}

impl RemoteChunk {
    /// # Errors
    /// A batch of columns that Arrow cannot write.
    pub fn new(chunk: &Chunk) -> Result<Self, String> {
        let data = match &chunk.data {
            ChunkData::Lines(lines) => Data::Lines(Text::new(lines)),
            ChunkData::Csv { header, lines } => Data::Csv { header: header.clone(), text: Text::new(lines) },
            ChunkData::Columns { batch, first_row } => {
                let mut ipc = Vec::new();
                let written = StreamWriter::try_new(&mut ipc, &batch.schema())
                    .and_then(|mut writer| writer.write(batch).and_then(|()| writer.finish()));
                written.map_err(|e| format!("{}: {e}", chunk.origin.name))?;
                Data::Columns { ipc, first_row: *first_row }
            }
            ChunkData::Kafka { header, .. } | ChunkData::Fetched { header, .. } => {
                let mut messages = Copied::default();
                chunk.for_each(|record| messages.push(&record));
                Data::Messages { messages, header: header.clone() }
            }
            ChunkData::Copied { messages, header } => {
                Data::Messages { messages: messages.clone(), header: header.clone() }
            }
        };
        Ok(Self { source: chunk.source, partition: chunk.partition.clone(), origin: chunk.origin.clone(), data })
    }

    /// The chunk, at the other end.
    ///
    /// # Errors
    /// A batch of columns that Arrow cannot read.
    pub fn into_chunk(self) -> Result<Chunk, String> {
        let Self { source, partition, origin, data } = self;
        let data = match data {
            Data::Lines(text) => ChunkData::Lines(text.lines()),
            Data::Csv { header, text } => ChunkData::Csv { header, lines: text.lines() },
            Data::Columns { ipc, first_row } => {
                let read =
                    StreamReader::try_new(ipc.as_slice(), None).and_then(|mut batches| batches.next().transpose());
                let batch = read.map_err(|e| format!("{}: {e}", origin.name))?;
                let batch = batch.ok_or_else(|| format!("{}: no batch of rows", origin.name))?;
                ChunkData::Columns { batch, first_row }
            }
            Data::Messages { messages, header } => ChunkData::Copied { messages, header },
        };
        Ok(Chunk { source, partition, origin, data })
    }
}
