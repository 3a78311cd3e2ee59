//! Record batches (Kafka's message format 2): which offsets they span, and their records.
//!
//! ```text
//!  0 base offset i64   8 length i32  12 leader epoch i32  16 magic i8 (2)  17 crc32c u32, of what follows
//! 21 attributes i16   23 last offset delta i32   27 base timestamp i64   35 largest timestamp i64
//! 43 producer id i64  51 epoch i16  53 sequence i32  57 count i32  61 records, packed as the attributes say
//!
//! record  length | attributes i8 | timestamp delta | offset delta | key | value | count of headers | (name | value)…
//!         lengths, deltas and counts are zigzag varints; the length of what is null is -1
//! ```

use super::block::{Block, NULL, Place};
use super::codec;
use std::collections::VecDeque;
use std::ops::ControlFlow;

const HEAD: usize = 61;
/// What is counted by the batch's length.
const COUNTED: usize = 12;

/// Why a batch cannot be read; for a person.
pub(super) type Damage = String;

/// One whole batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) base: i64,
    /// The offset behind its last one, also where that record is no longer there.
    pub(super) end: i64,
    attributes: i16,
    base_timestamp: i64,
    largest_timestamp: i64,
    producer: i64,
    count: i32,
    crc: u32,
    /// What the checksum is of.
    checked: &'a [u8],
    records: &'a [u8],
}

/// The whole batches of an answer; what is cut off behind the last one comes again with the next answer.
///
/// # Errors
/// What is wrong with the first that cannot be read.
pub(super) fn batches(mut bytes: &[u8]) -> Result<Vec<Batch<'_>>, Damage> {
    let mut all = Vec::new();
    while let ControlFlow::Continue((batch, rest)) = first(bytes)? {
        all.push(batch);
        bytes = rest;
    }
    Ok(all)
}

fn first(bytes: &[u8]) -> Result<ControlFlow<(), (Batch<'_>, &[u8])>, Damage> {
    // The oldest form is shorter than this head, but not than what stands before the magic byte and one more.
    let Some(magic) = bytes.get(16) else { return Ok(ControlFlow::Break(())) };
    if *magic != 2 {
        return Err(format!(
            "its record batch has format {magic}, from before Kafka 0.11; set kafka.reader = \"librdkafka\", which reads it"
        ));
    }
    let field = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_be_bytes);
    let wide = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_be_bytes);
    let length = usize::try_from(field(8)).map_err(|_| "its record batch has a negative length".to_string())?;
    let size = length.saturating_add(COUNTED);
    if size < HEAD {
        return Err(format!("its record batch has {size} bytes, fewer than its head"));
    }
    let Some((batch, rest)) = bytes.split_at_checked(size) else { return Ok(ControlFlow::Break(())) };
    let (base, last) = (wide(0), field(23));
    if base < 0 || last < 0 {
        return Err(format!("its record batch begins at offset {base} and goes on for {last}"));
    }
    let batch = Batch {
        base,
        end: base.saturating_add(i64::from(last) + 1),
        attributes: (field(19) & 0xffff) as i16,
        base_timestamp: wide(27),
        largest_timestamp: wide(35),
        producer: wide(43),
        count: field(57),
        crc: field(17) as u32,
        checked: batch.get(21..).unwrap_or_default(),
        records: batch.get(HEAD..).unwrap_or_default(),
    };
    Ok(ControlFlow::Continue((batch, rest)))
}

impl Batch<'_> {
    /// Bytes of its records, packed.
    pub(super) fn packed(&self) -> usize {
        self.records.len()
    }

    fn codec(&self) -> u8 {
        (self.attributes & 7) as u8
    }

    fn is_appended(&self) -> bool {
        self.attributes & 8 != 0
    }

    fn is_transactional(&self) -> bool {
        self.attributes & 16 != 0
    }

    fn is_control(&self) -> bool {
        self.attributes & 32 != 0
    }

    /// Appends its records from offset `from` on.
    ///
    /// # Errors
    /// What is wrong with it; then the block has what it had.
    fn unpack(&self, from: i64, check: bool, into: &mut Block) -> Result<(), Damage> {
        if check && crc32c::crc32c(self.checked) != self.crc {
            return Err("its record batch does not have its checksum".into());
        }
        let (bytes, places) = (into.buffer.len(), into.places.len());
        let read =
            codec::unpack(self.codec(), self.records, &mut into.buffer).and_then(|()| self.place(bytes, from, into));
        if read.is_err() {
            into.buffer.truncate(bytes);
            into.places.truncate(places);
        }
        read
    }

    /// Notes where the records stand that were unpacked behind `start`.
    fn place(&self, start: usize, from: i64, into: &mut Block) -> Result<(), Damage> {
        let Block { buffer, places, .. } = into;
        let mut rest = Varints { bytes: buffer.filled(), at: start };
        places.reserve(usize::try_from(self.count).unwrap_or(0).min(buffer.len() - start));
        for i in 0..self.count {
            let place = rest.record(self).ok_or_else(|| format!("record {i} of its batch has no end"))?;
            if place.offset >= from {
                places.push(place);
            }
        }
        if rest.at != buffer.len() { Err("its record batch has more than its records".into()) } else { Ok(()) }
    }
}

/// The transactions that were aborted among the batches of an answer.
#[derive(Debug)]
pub(super) struct Aborted {
    /// (producer, first offset), those to come, ascending by offset.
    later: VecDeque<(i64, i64)>,
    /// Producers whose transaction is one of them, at the batch that was looked at last.
    open: Vec<i64>,
}

impl Aborted {
    /// (producer, first offset), ascending by offset.
    pub(super) fn new(all: Vec<(i64, i64)>) -> Self {
        Self { later: all.into(), open: Vec::new() }
    }

    /// Whether a reader of committed records sees this batch, which follows the one asked about before.
    fn hides(&mut self, batch: &Batch<'_>) -> bool {
        while let Some((producer, _)) = self.later.pop_front_if(|(_, first)| *first < batch.end) {
            self.open.push(producer);
        }
        if batch.is_control() {
            // Whatever the marker says, that transaction of the producer has ended.
            self.open.retain(|producer| *producer != batch.producer);
        }
        batch.is_control() || (batch.is_transactional() && self.open.contains(&batch.producer))
    }
}

/// Appends the records from offset `from` on that a reader of committed ones is to see.
///
/// # Errors
/// What is wrong with the batch that begins at the offset returned.
pub(super) fn committed(
    batches: &[Batch<'_>],
    aborted: &mut Aborted,
    from: i64,
    check: bool,
    into: &mut Block,
) -> Result<(), (i64, Damage)> {
    for batch in batches {
        if !aborted.hides(batch) && batch.end > from {
            batch.unpack(from, check, into).map_err(|damage| (batch.base, damage))?;
        }
    }
    Ok(())
}

struct Varints<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Varints<'a> {
    #[inline(always)]
    fn next(&mut self) -> Option<i64> {
        let (mut value, mut shift) = (0u64, 0);
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return None;
            }
        }
    }

    /// The span of something with its length before it: where it begins, and its length or [`NULL`].
    #[inline(always)]
    fn span(&mut self) -> Option<(u32, u32)> {
        let length = self.next()?;
        let start = self.at;
        if length < 0 {
            return (length == -1).then_some((start as u32, NULL));
        }
        self.at = start.checked_add(usize::try_from(length).ok()?).filter(|end| *end <= self.bytes.len())?;
        Some((start as u32, length as u32))
    }

    #[inline(always)]
    fn record(&mut self, batch: &Batch<'_>) -> Option<Place> {
        let length = usize::try_from(self.next()?).ok()?;
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len())?;
        self.at += 1;
        let timestamp = batch.base_timestamp.wrapping_add(self.next()?);
        let offset = batch.base.checked_add(self.next()?)?;
        let (key, key_length) = self.span()?;
        let (value, value_length) = self.span()?;
        let headers = self.at as u32;
        if self.at >= end || !(batch.base..batch.end).contains(&offset) {
            return None;
        }
        self.at = end;
        let timestamp = if batch.is_appended() { batch.largest_timestamp } else { timestamp };
        Some(Place { offset, timestamp, key, key_length, value, value_length, headers })
    }

    fn text(&self, (start, length): (u32, u32)) -> Option<&'a [u8]> {
        if length == NULL { None } else { self.bytes.get(start as usize..start as usize + length as usize) }
    }
}

/// The headers that begin with their count at the first of these bytes, as far as they can be read.
pub(super) fn read_headers<'a>(bytes: &'a [u8], headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) {
    let mut rest = Varints { bytes, at: 0 };
    for _ in 0..rest.next().unwrap_or(0) {
        let (Some(name), Some(value)) = (rest.span(), rest.span()) else { return };
        // A name that is not UTF-8 can't be asked for in a mapping.
        if let Some(Ok(name)) = rest.text(name).map(std::str::from_utf8) {
            headers.push((name, rest.text(value)));
        }
    }
}

#[cfg(test)]
mod tests;
