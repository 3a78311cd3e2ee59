//! The bytes of a checkpoint file. No input or output here: bytes to meaning and back.
//!
//! All numbers are little-endian.
//!
//! ```text
//!  preamble  40 B   magic 8 | format u32 | size of the header u32 | code version 20, padded with 0 | crc32 of these
//!  header           kind u8 | generation u64 | first epoch i64 | last epoch i64 | operator UTF-8 | crc32 of these
//!  block            stored bytes u32 (> 0) | plain bytes u32 | crc32 of the stored | crc32 of these three | stored
//!  …                stored = zstd(records)
//!  trailer   20 B   0 u32 | records u64 | XXH3-64 of everything before this field u64
//!
//!  record           0 | key bytes u32 | value bytes u32 | key | value      the key has this value now
//!                   1 | key bytes u32 | key                                the key is gone
//!                   2 | row bytes u32 | difference i64 | row               the row's count has changed by this
//! ```
//!
//! Records stand in ascending order of their keys (byte order), each key once. Records of kind 0 and 1 are in files of
//! [`RecordKind::Keyed`], those of kind 2 in files of [`RecordKind::Sum`].
//!
//! The preamble is the same in every format, so that any version can say of any file which version wrote it. Every
//! byte is covered by a crc32 that is checked before the byte is believed: a length is never trusted before.

use drivetrain_schemas::records::{Change, Record, RecordKind};

/// The format that is written, and the only one that is understood.
pub const FORMAT: u32 = 4;

/// The version of the code, for whoever finds a file that he does not understand.
pub(super) const CODE: &str = env!("CARGO_PKG_VERSION");

const MAGIC: [u8; 8] = *b"dt-ckpt\n";
const VERSION: usize = 20;

pub(super) const PREAMBLE: usize = 40;
pub(super) const BLOCK_HEAD: usize = 16;
pub(super) const TRAILER: usize = 20;

const PUT: u8 = 0;
const GONE: u8 = 1;
const ADD: u8 = 2;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    pub(super) operator: String,
    pub(super) generation: u64,
    pub(super) first_epoch: i64,
    pub(super) last_epoch: i64,
}

/// Why bytes are not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Damaged(String),
    /// Whole, but of another format; the version of the code that wrote it.
    Format {
        found: u32,
        version: String,
    },
}

impl From<&str> for Fault {
    fn from(problem: &str) -> Self {
        Fault::Damaged(problem.to_string())
    }
}

/// Reads numbers off the front of bytes.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[b]: [u8; 1]| b)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

/// Takes off the crc32 at the end of bytes; `None` when it is wrong.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    (u32::from_le_bytes(*crc) == crc32fast::hash(body)).then_some(body)
}

fn seal(bytes: &mut Vec<u8>, from: usize) {
    let crc = crc32fast::hash(&bytes[from..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// Preamble and header.
pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut body = vec![match header.kind {
        RecordKind::Keyed => 0,
        RecordKind::Sum => 1,
    }];
    body.extend_from_slice(&header.generation.to_le_bytes());
    body.extend_from_slice(&header.first_epoch.to_le_bytes());
    body.extend_from_slice(&header.last_epoch.to_le_bytes());
    body.extend_from_slice(header.operator.as_bytes());
    seal(&mut body, 0);

    let mut out = Vec::with_capacity(PREAMBLE + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let mut version = [0; VERSION];
    version.iter_mut().zip(CODE.bytes()).for_each(|(to, from)| *to = from);
    out.extend_from_slice(&version);
    seal(&mut out, 0);
    out.extend_from_slice(&body);
    out
}

/// Checks a preamble; returns the bytes of the header that follows.
pub(super) fn decode_preamble(bytes: &[u8; PREAMBLE]) -> Result<usize, Fault> {
    if !bytes.starts_with(&MAGIC) {
        return Err(Fault::from("it does not begin as a checkpoint file"));
    }
    let mut cursor = Cursor(checked(bytes).ok_or("the preamble's checksum is wrong")?);
    let _magic = cursor.take(MAGIC.len());
    let (Some(found), Some(size)) = (cursor.u32(), cursor.u32()) else {
        return Err(Fault::from("the preamble is too short"));
    };
    if found != FORMAT {
        let version = cursor.0.split(|b| *b == 0).next().unwrap_or_default();
        return Err(Fault::Format { found, version: String::from_utf8_lossy(version).into_owned() });
    }
    Ok(size as usize)
}

pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, Fault> {
    let mut cursor = Cursor(checked(bytes).ok_or("the header's checksum is wrong")?);
    let kind = match cursor.u8() {
        Some(0) => RecordKind::Keyed,
        Some(1) => RecordKind::Sum,
        _ => return Err(Fault::from("the header names an unknown kind of records")),
    };
    let (generation, first, last) = (cursor.u64(), cursor.i64(), cursor.i64());
    let operator = std::str::from_utf8(cursor.0);
    match (generation, first, last, operator) {
        (Some(generation), Some(first_epoch), Some(last_epoch), Ok(operator)) => {
            Ok(Header { kind, operator: operator.to_string(), generation, first_epoch, last_epoch })
        }
        _ => Err(Fault::from("the header cannot be understood")),
    }
}

/// What stands before a block's stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHead {
    pub(super) stored: u32,
    pub(super) plain: u32,
    pub(super) crc: u32,
}

pub(super) fn encode_block_head(head: BlockHead) -> [u8; BLOCK_HEAD] {
    let mut out = [0; BLOCK_HEAD];
    out[..4].copy_from_slice(&head.stored.to_le_bytes());
    out[4..8].copy_from_slice(&head.plain.to_le_bytes());
    out[8..12].copy_from_slice(&head.crc.to_le_bytes());
    let crc = crc32fast::hash(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(super) fn decode_block_head(bytes: &[u8; BLOCK_HEAD]) -> Result<BlockHead, Fault> {
    let mut cursor = Cursor(checked(bytes).ok_or("the checksum of a block's head is wrong")?);
    match (cursor.u32(), cursor.u32(), cursor.u32()) {
        (Some(stored @ 1..), Some(plain @ 1..), Some(crc)) => Ok(BlockHead { stored, plain, crc }),
        _ => Err(Fault::from("a block is empty")),
    }
}

/// The trailer up to the hash, which covers these bytes too.
pub(super) fn encode_trailer(records: u64) -> [u8; TRAILER - 8] {
    let mut out = [0; TRAILER - 8];
    out[4..].copy_from_slice(&records.to_le_bytes());
    out
}

/// Records and hash of a trailer.
pub(super) fn decode_trailer(bytes: &[u8; TRAILER]) -> Result<(u64, u64), Fault> {
    let mut cursor = Cursor(bytes);
    match (cursor.u32(), cursor.u64(), cursor.u64()) {
        (Some(0), Some(records), Some(hash)) => Ok((records, hash)),
        _ => Err(Fault::from("it does not end with a trailer")),
    }
}

/// A hash as the checkpoint's entry has it: 16 hex digits.
pub(super) fn hash_text(hash: u64) -> String {
    format!("{hash:016x}")
}

/// Bytes of a record in a block. More than a block can hold is for the writer to refuse.
pub(super) fn framed(record: &Record<'_>) -> u64 {
    let key = record.key.len() as u64;
    match record.change {
        Change::Put(value) => 9 + key + value.len() as u64,
        Change::Gone => 5 + key,
        Change::Add(_) => 13 + key,
    }
}

pub(super) fn encode_record(record: &Record<'_>, out: &mut Vec<u8>) {
    let key = (record.key.len() as u32).to_le_bytes();
    match record.change {
        Change::Put(value) => {
            out.push(PUT);
            out.extend_from_slice(&key);
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(record.key);
            out.extend_from_slice(value);
        }
        Change::Gone => {
            out.push(GONE);
            out.extend_from_slice(&key);
            out.extend_from_slice(record.key);
        }
        Change::Add(diff) => {
            out.push(ADD);
            out.extend_from_slice(&key);
            out.extend_from_slice(&diff.to_le_bytes());
            out.extend_from_slice(record.key);
        }
    }
}

/// The record at the front of a block's rest, and the bytes that it takes. `None` when it cannot be one of this kind.
pub(super) fn decode_record(kind: RecordKind, rest: &[u8]) -> Option<(Record<'_>, usize)> {
    let mut cursor = Cursor(rest);
    let tag = cursor.u8()?;
    let key = cursor.u32()? as usize;
    let record = match (kind, tag) {
        (RecordKind::Keyed, PUT) => {
            let value = cursor.u32()? as usize;
            Record { key: cursor.take(key)?, change: Change::Put(cursor.take(value)?) }
        }
        (RecordKind::Keyed, GONE) => Record { key: cursor.take(key)?, change: Change::Gone },
        (RecordKind::Sum, ADD) => {
            let change = Change::Add(cursor.i64()?);
            Record { key: cursor.take(key)?, change }
        }
        _ => return None,
    };
    Some((record, rest.len() - cursor.0.len()))
}
