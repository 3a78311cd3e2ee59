//! A part while it waits to be written: sorted, in compressed blocks.
//!
//! ```text
//!  Part ──sort──► records ──blocks of 64 KiB, zstd──► PackedPart ──one block at a time──► merged with the others
//! ```
//!
//! A checkpoint of a job that catches up is as large as the whole state, and all of it waits at once: so it takes two
//! fifths of what it would.

use super::format::{decode_record, encode_record};
use super::merge::Source;
use super::{CheckpointError, Part};
use crate::files::{At, FileError};
use drivetrain_schemas::records::{Record, RecordKind};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use zstd::bulk::{Compressor, Decompressor};

/// Plain bytes from which on a block is closed.
const BLOCK: usize = 1 << 16;
/// Faster than level 1: it is read once.
const LEVEL: i32 = -1;

/// See the module. Serialized, it goes to another process of the same version.
#[derive(Debug, Serialize, Deserialize)]
pub struct PackedPart {
    pub(super) operator: String,
    pub(super) worker: usize,
    pub(super) kind: RecordKind,
    blocks: Vec<Block>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Block {
    #[serde(with = "drivetrain_schemas::bytes")]
    stored: Vec<u8>,
    /// Bytes before compression; as many as are stored when it was not compressed.
    plain: usize,
}

impl PackedPart {
    pub(crate) fn operator(&self) -> &str {
        &self.operator
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    pub(super) fn open(self) -> Result<Unpacked, CheckpointError> {
        let decompressor = Decompressor::new().at("cannot decompress a part of", Path::new(&self.operator))?;
        let mut unpacked = Unpacked {
            operator: self.operator,
            kind: self.kind,
            blocks: self.blocks.into_iter(),
            decompressor,
            block: Vec::new(),
            record: 0..0,
        };
        unpacked.advance()?;
        Ok(unpacked)
    }
}

impl From<Part> for PackedPart {
    fn from(part: Part) -> Self {
        let Part { operator, worker, mut records } = part;
        records.sort();
        let mut compressor = Compressor::new(LEVEL).ok();
        let (mut blocks, mut plain) = (Vec::new(), Vec::new());
        for record in records.iter() {
            encode_record(&record, &mut plain);
            if plain.len() >= BLOCK {
                blocks.push(Block::new(&plain, compressor.as_mut()));
                plain.clear();
            }
        }
        if !plain.is_empty() {
            blocks.push(Block::new(&plain, compressor.as_mut()));
        }
        Self { operator, worker, kind: records.kind(), blocks }
    }
}

impl Block {
    /// Without a compressor, or where it does not help, as it is.
    fn new(plain: &[u8], compressor: Option<&mut Compressor<'_>>) -> Self {
        let stored = compressor.and_then(|c| c.compress(plain).ok()).filter(|stored| stored.len() < plain.len());
        let mut stored = stored.unwrap_or_else(|| plain.to_vec());
        stored.shrink_to_fit();
        Self { stored, plain: plain.len() }
    }
}

/// The records of a part, in their order.
pub(super) struct Unpacked {
    operator: String,
    kind: RecordKind,
    blocks: std::vec::IntoIter<Block>,
    decompressor: Decompressor<'static>,
    block: Vec<u8>,
    /// The current record within the block; empty at the end.
    record: Range<usize>,
}

impl Unpacked {
    fn next_block(&mut self) -> Result<bool, FileError> {
        let Some(Block { stored, plain }) = self.blocks.next() else { return Ok(false) };
        if stored.len() == plain {
            self.block = stored;
            return Ok(true);
        }
        self.block.resize(plain, 0);
        let read = self.decompressor.decompress_to_buffer(&stored, &mut self.block[..]);
        read.at("cannot decompress a part of", Path::new(&self.operator))?;
        Ok(true)
    }
}

impl Source for Unpacked {
    fn record(&self) -> Option<Record<'_>> {
        decode_record(self.kind, self.block.get(self.record.clone())?).map(|(record, _)| record)
    }

    fn advance(&mut self) -> Result<(), CheckpointError> {
        let mut start = self.record.end;
        if start == self.block.len() {
            start = 0;
            if !self.next_block()? {
                (self.block, self.record) = (Vec::new(), 0..0);
                return Ok(());
            }
        }
        // Encoded above, so that it can be decoded.
        let size = decode_record(self.kind, &self.block[start..]).map_or(0, |(_, size)| size);
        self.record = start..start + size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::records::{Change, Records};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_sorted(all in prop::collection::vec((0u16..500, prop::option::of(0usize..30_000)), 0..60)) {
            let mut records = Records::keyed();
            for (key, value) in &all {
                match value {
                    Some(size) => records.put(&key.to_be_bytes(), |out| out.extend((0..*size).map(|i| (i % 251) as u8))),
                    None => records.remove(&key.to_be_bytes()),
                }
            }
            let part = PackedPart::from(Part { operator: "op".into(), worker: 0, records: records.clone() });
            prop_assert_eq!(part.is_empty(), all.is_empty());
            records.sort();
            let mut unpacked = part.open().unwrap();
            for expected in records.iter() {
                prop_assert_eq!(unpacked.record(), Some(expected));
                prop_assert!(!matches!(expected.change, Change::Add(_)));
                unpacked.advance().unwrap();
            }
            prop_assert_eq!(unpacked.record(), None);
        }
    }
}
