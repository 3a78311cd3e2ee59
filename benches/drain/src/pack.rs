//! A load that is packed before the run: readings as Kafka's record batches (version 2, lz4), so that the run only writes
//! bytes to a socket. A file of units, each of 1,000 readings in the order of time, one batch a partition.
//!
//! The file: partitions (u32); then for each unit the event time of its last reading (24 bytes of text) and for each
//! partition the length of its batch (u32, 0: none) and the batch. Integers are little-endian.

use crate::load::{shorten, vehicle};
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};

/// Readings in a unit.
pub const UNIT: usize = 1_000;
/// Bytes of `2026-05-01T08:00:00.000Z`.
const TIME: usize = 24;
/// Bytes of a batch before its records.
const HEADER: usize = 61;
const LZ4: i16 = 3;

/// What is sent at one instant.
pub struct Unit {
    /// Event time of the last reading.
    pub at: String,
    /// By partition.
    pub batches: Vec<Vec<u8>>,
}

/// Packs the first `records` lines of standard input (a multiple of `UNIT`) and prints `{"records": …, "bytes": …}`, the
/// bytes being those of the file.
pub fn pack(path: &str, partitions: u32, records: usize) -> Result<(), String> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(|e| format!("{path}: {e}"))?);
    out.write_all(&partitions.to_le_bytes()).map_err(|e| e.to_string())?;
    let (mut input, mut line, mut short) = (std::io::stdin().lock(), String::new(), String::new());
    let mut bytes = 4;
    for unit in 0..records / UNIT {
        let mut batches: Vec<Batch> = (0..partitions).map(|_| Batch::default()).collect();
        for _ in 0..UNIT {
            line.clear();
            if input.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
                return Err(format!("the input ended after {unit} units of {UNIT}"));
            }
            shorten(line.trim_end(), &mut short);
            let key = vehicle(&short)?;
            let partition = partition(key.as_bytes(), partitions);
            batches.get_mut(partition).ok_or("no such partition")?.add(key.as_bytes(), short.as_bytes());
        }
        bytes += write_unit(&mut out, time(&short)?, &batches).map_err(|e| e.to_string())?;
    }
    out.flush().map_err(|e| e.to_string())?;
    println!("{{\"records\": {}, \"bytes\": {bytes}}}", records / UNIT * UNIT);
    Ok(())
}

fn write_unit(out: &mut impl Write, at: &str, batches: &[Batch]) -> std::io::Result<usize> {
    out.write_all(at.as_bytes())?;
    let mut bytes = TIME;
    for batch in batches {
        let packed = batch.packed()?;
        out.write_all(&u32::try_from(packed.len()).unwrap_or(0).to_le_bytes())?;
        out.write_all(&packed)?;
        bytes += 4 + packed.len();
    }
    Ok(bytes)
}

/// The text of the reading's field `at`.
fn time(reading: &str) -> Result<&str, String> {
    let text = reading.split("\"at\":\"").nth(1).and_then(|rest| rest.get(..TIME));
    text.ok_or_else(|| format!("not a record of the simulator: {reading}"))
}

/// Reads what `pack` has written.
pub struct Units {
    file: BufReader<File>,
    partitions: u32,
}

impl Units {
    pub fn open(path: &str) -> Result<Self, String> {
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(|e| format!("{path}: {e}"))?);
        let partitions = u32_of(&mut file).map_err(|e| format!("{path}: {e}"))?;
        Ok(Self { file, partitions })
    }

    /// None at the end.
    pub fn next(&mut self) -> std::io::Result<Option<Unit>> {
        let mut at = [0; TIME];
        match self.file.read_exact(&mut at) {
            Err(end) if end.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let mut batches = Vec::with_capacity(self.partitions as usize);
        for _ in 0..self.partitions {
            let mut batch = vec![0; u32_of(&mut self.file)? as usize];
            self.file.read_exact(&mut batch)?;
            batches.push(batch);
        }
        Ok(Some(Unit { at: String::from_utf8_lossy(&at).into_owned(), batches }))
    }
}

fn u32_of(file: &mut impl Read) -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Records of one partition as Kafka lays them out, before compression.
#[derive(Default)]
struct Batch {
    count: i32,
    records: Vec<u8>,
    body: Vec<u8>,
}

impl Batch {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.body.clear();
        // Attributes, and the time after the batch's.
        self.body.extend([0, 0]);
        varint(&mut self.body, i64::from(self.count));
        for part in [key, value] {
            varint(&mut self.body, i64::try_from(part.len()).unwrap_or(0));
            self.body.extend(part);
        }
        // No headers.
        self.body.push(0);
        varint(&mut self.records, i64::try_from(self.body.len()).unwrap_or(0));
        self.records.extend(&self.body);
        self.count += 1;
    }

    /// The batch as it stands in a Produce request; empty when there are no records.
    fn packed(&self) -> std::io::Result<Vec<u8>> {
        if self.count == 0 {
            return Ok(Vec::new());
        }
        // Kafka's Java client reads independent blocks only.
        let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
        let mut encoder = FrameEncoder::with_frame_info(frame, Vec::new());
        encoder.write_all(&self.records)?;
        let records = encoder.finish().map_err(std::io::Error::other)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis());
        let now = i64::try_from(now).unwrap_or(0).to_be_bytes();
        // What the checksum covers: from the attributes on. Then last offset, both times, and a producer without an id.
        let mut checked = Vec::with_capacity(HEADER + records.len());
        checked.extend(LZ4.to_be_bytes());
        checked.extend((self.count - 1).to_be_bytes());
        checked.extend([now, now].concat());
        checked.extend([0xff; 8 + 2 + 4]);
        checked.extend(self.count.to_be_bytes());
        checked.extend(records);
        // Offset, length of what follows, leader's epoch (unknown), version, checksum.
        let mut batch = vec![0; 8];
        batch.extend(i32::try_from(checked.len() + 9).unwrap_or(0).to_be_bytes());
        batch.extend([0xff; 4]);
        batch.push(2);
        batch.extend(crc32c::crc32c(&checked).to_be_bytes());
        batch.extend(checked);
        Ok(batch)
    }
}

/// Zigzag, seven bits a byte.
fn varint(into: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        into.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

/// As Java's producer (and librdkafka's `murmur2`) places a key.
fn partition(key: &[u8], partitions: u32) -> usize {
    ((murmur2(key) & 0x7fff_ffff) % partitions.max(1)) as usize
}

fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).unwrap_or(0);
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (k ^ (k >> 24)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own UtilsTest.
    #[test]
    fn murmur2_is_that_of_java() {
        let cases = [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn varints_are_zigzag() {
        for (value, bytes) in [(0, vec![0]), (-1, vec![1]), (63, vec![126]), (64, vec![0x80, 1]), (300, vec![0xd8, 4])]
        {
            let mut into = Vec::new();
            varint(&mut into, value);
            assert_eq!(into, bytes, "{value}");
        }
    }
}
