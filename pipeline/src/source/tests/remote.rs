//! Chunks that go to another process.

use super::*;
use crate::source::chunk::{LineBlock, Span};
use crate::source::copied::Copied;
use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::reading::Origin;

/// All that a decoder is shown, and where the chunk says that it is.
fn seen(chunk: &Chunk) -> Vec<String> {
    let mut seen = vec![format!("{} {:?} {:?}", chunk.source, chunk.partition, chunk.end())];
    chunk.for_each(|r| {
        let text = match &r.body {
            Body::Columns { batch, row } => format!("{:?} {:?}", batch.schema(), batch.slice(*row, 1)),
            _ => body(&r),
        };
        seen.push(format!("{:?} {} {:?} {:?} {:?} {text}", r.origin, r.position, r.timestamp, r.key, r.headers));
    });
    seen
}

fn chunk(data: ChunkData) -> Chunk {
    let origin = |name: &str| Arc::new(Origin { source: "s".into(), name: name.into(), partition: 3 });
    Chunk { source: 2, partition: origin("*"), origin: origin("here"), data }
}

fn lines() -> Lines {
    let spans = [(0, 3, 1), (4, 0, 2), (5, 2, 4)].map(|(start, len, line)| Span { start, len, line });
    let mut lines = Lines::new(LineBlock { bytes: b"{1}\n\n{}\n".to_vec(), spans: spans.to_vec() });
    // Cut, so that the block has more than the chunk.
    lines.range.start = 1;
    lines
}

#[test]
fn chunks_show_the_same_at_the_other_end() {
    let header = Arc::new(CsvHeader::parse(b"a;\"b;c\"", b';'));
    let columns: [(&str, ArrayRef); 2] = [
        ("at", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("vehicle", Arc::new(StringArray::from(vec!["v1", "", "ö"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap().slice(1, 2);
    let mut messages = Copied::default();
    let origin = Origin { source: "s".into(), name: "here".into(), partition: 3 };
    let origin = Arc::new(origin);
    let empty: &[u8] = b"";
    let headers: [(&str, Option<&[u8]>); 2] = [("unit", Some(b"km")), ("empty", None)];
    let mut record = Record {
        origin: &origin,
        position: 40,
        timestamp: Some(7),
        key: Some(b"v1"),
        headers: &headers,
        body: Body::Json(b"{}"),
    };
    messages.push(&record);
    (record.position, record.key, record.headers, record.body) = (42, None, &[], Body::Tombstone);
    messages.push(&record);
    (record.position, record.timestamp, record.key, record.body) = (43, None, Some(empty), Body::Json(b""));
    messages.push(&record);
    for (data, records, end) in [
        (ChunkData::Lines(lines()), 2, 4),
        (ChunkData::Csv { header: header.clone(), lines: lines() }, 2, 4),
        (ChunkData::Columns { batch, first_row: 8 }, 2, 9),
        (ChunkData::Copied { messages: messages.clone(), header: None }, 3, 44),
        (ChunkData::Copied { messages, header: Some(header) }, 3, 44),
    ] {
        let mut sent = chunk(data);
        assert_eq!((sent.len(), sent.end()), (records, Some(end)));
        let bytes = postcard::to_extend(&RemoteChunk::new(&sent).unwrap(), Vec::new()).unwrap();
        let mut came = postcard::from_bytes::<RemoteChunk>(&bytes).unwrap().into_chunk().unwrap();
        assert_eq!(seen(&sent), seen(&came));
        // Cutting leaves the same on both sides.
        let (rest, behind) = (sent.split_off(1), came.split_off(1));
        assert_eq!((seen(&sent), seen(&rest)), (seen(&came), seen(&behind)));
    }
}
