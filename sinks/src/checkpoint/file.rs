//! One checkpoint file while it is written or read, and the steps on the disk.
//!
//! ```text
//! <data>/checkpoints/g<generation>/<name>.ckpt.tmp    being written
//! <data>/checkpoints/g<generation>/<name>.ckpt        whole and synced; durable once the directory is synced too
//! ```
//!
//! With a store a file is durable once it is there under the same path; the data directory has a copy for merging, made
//! anew from the store where it is missing.

use super::format::{self, BLOCK_HEAD, BlockHead, Fault, Header, PREAMBLE, TRAILER};
use super::merge::{Source, TIERS, Tiers};
use super::{CHECKPOINTS, CheckpointError, CheckpointFile};
use crate::failpoint;
use crate::files::{At, FileError, create_dir, list, remove_file, sync_dir};
use crate::progress::data::{generation_of, generation_of_path};
use crate::store::{Remote, Storage, forget};
use drivetrain_schemas::records::Record;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::{Compressor, Decompressor};

/// Plain bytes from which on a block is closed. One larger record makes a larger block.
const BLOCK: usize = 1 << 17;
/// Bytes of the largest record: a block with it is below what u32 holds, compressed or not.
const LARGEST: u64 = 1 << 31;
const LEVEL: i32 = 1;
const SUFFIX: &str = ".ckpt";
const UNFINISHED: &str = ".ckpt.tmp";

/// Where a run's files go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) storage: Storage,
    pub(super) generation: u64,
    /// [`BLOCK`]; smaller in tests.
    pub(super) block: usize,
    pub(super) tiers: Tiers,
}

impl Place {
    pub(super) fn new(storage: impl Into<Storage>, generation: u64) -> Self {
        Self { storage: storage.into(), generation, block: BLOCK, tiers: TIERS }
    }

    fn data(&self) -> &Path {
        self.storage.local()
    }

    /// Makes finished files durable: their names, or with a store themselves.
    pub(super) fn sync<'a>(&self, files: impl Iterator<Item = &'a CheckpointFile>) -> Result<(), FileError> {
        match self.storage.remote() {
            None => sync_dir(&self.data().join(CHECKPOINTS).join(format!("g{}", self.generation))),
            Some(remote) => {
                failpoint::hit("checkpoint.sync")?;
                remote.upload(files.map(|f| (self.data().join(&f.path), f.path.clone())).collect())
            }
        }
    }

    /// Deletes files that nobody needs any more.
    pub(super) fn delete(&self, paths: &[String]) -> Result<(), FileError> {
        match self.storage.remote() {
            None => paths.iter().try_for_each(|path| delete(&self.data().join(path)).map(drop)),
            Some(remote) => {
                paths.iter().for_each(|path| forget(&self.data().join(path)));
                remote.delete(paths.to_vec())
            }
        }
    }
}

// The steps on the disk, one function each.

fn create(path: &Path) -> Result<File, FileError> {
    File::create_new(path).at("cannot create", path)
}

fn write_file(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    failpoint::hit("checkpoint.write")?;
    file.write_all(bytes).at("cannot write", path)
}

fn sync(file: &File, path: &Path) -> Result<(), FileError> {
    failpoint::hit("checkpoint.sync")?;
    file.sync_all().at("cannot sync", path)
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    failpoint::hit("checkpoint.rename")?;
    std::fs::rename(from, to).at("cannot rename to", to)
}

/// Removes a file that may be gone already.
pub(super) fn delete(path: &Path) -> Result<bool, FileError> {
    remove_file(path)
}

/// A file being written. Dropping it leaves the `.tmp` behind, which nobody reads and a sweep deletes.
pub(super) struct FileWriter {
    header: Header,
    /// Below the data directory.
    name: String,
    path: PathBuf,
    tmp: PathBuf,
    file: File,
    block_size: usize,
    block: Vec<u8>,
    /// Head and stored bytes of a block, so that it is one write.
    stored: Vec<u8>,
    compressor: Compressor<'static>,
    hash: Xxh3,
    records: u64,
    bytes: u64,
}

impl FileWriter {
    /// Creates the file, which must not exist.
    pub(super) fn create(place: &Place, header: Header, seq: u64) -> Result<Self, CheckpointError> {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.".contains(c) { c } else { '_' };
        let operator: String = header.operator.chars().map(plain).collect();
        let (first, last) = (header.first_epoch, header.last_epoch);
        let name = format!("{CHECKPOINTS}/g{}/{operator}-{first}-{last}-{seq}{SUFFIX}", header.generation);
        let path = place.data().join(&name);
        let tmp = path.with_extension("ckpt.tmp");
        if let Some(dir) = path.parent() {
            create_dir(dir)?;
        }
        if path.exists() {
            Err(std::io::Error::from(ErrorKind::AlreadyExists)).at("cannot create", &path)?;
        }
        let file = create(&tmp)?;
        let compressor = Compressor::new(LEVEL).at("cannot compress for", &tmp)?;
        let (block, stored, hash) = (Vec::new(), Vec::new(), Xxh3::new());
        let block_size = place.block;
        let mut writer =
            Self { header, name, path, tmp, file, block_size, block, stored, compressor, hash, records: 0, bytes: 0 };
        writer.write(&format::encode_header(&writer.header))?;
        Ok(writer)
    }

    /// Appends a record; its key is greater than the last one's.
    pub(super) fn push(&mut self, record: &Record<'_>) -> Result<(), CheckpointError> {
        let bytes = format::framed(record);
        if bytes > LARGEST {
            return Err(CheckpointError::TooLarge { operator: self.header.operator.clone(), bytes });
        }
        format::encode_record(record, &mut self.block);
        self.records += 1;
        if self.block.len() >= self.block_size { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), CheckpointError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let bound = zstd::zstd_safe::compress_bound(self.block.len());
        self.stored.resize(BLOCK_HEAD + bound, 0);
        let room = &mut self.stored[BLOCK_HEAD..];
        let stored = self.compressor.compress_to_buffer(&self.block, room).at("cannot compress for", &self.tmp)?;
        self.stored.truncate(BLOCK_HEAD + stored);
        let (head, body) = self.stored.split_at_mut(BLOCK_HEAD);
        let crc = crc32fast::hash(body);
        let numbers = BlockHead { stored: stored as u32, plain: self.block.len() as u32, crc };
        head.copy_from_slice(&format::encode_block_head(numbers));
        self.block.clear();
        let stored = std::mem::take(&mut self.stored);
        self.write(&stored)?;
        self.stored = stored;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        write_file(&mut self.file, &self.tmp, bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Ends the file and gives it its name, which is durable after [`Place::sync`].
    pub(super) fn finish(mut self) -> Result<CheckpointFile, CheckpointError> {
        self.close_block()?;
        self.write(&format::encode_trailer(self.records))?;
        let hash = self.hash.digest();
        self.write(&hash.to_le_bytes())?;
        sync(&self.file, &self.tmp)?;
        rename(&self.tmp, &self.path)?;
        Ok(CheckpointFile {
            operator: self.header.operator,
            path: self.name,
            records: self.records,
            bytes: self.bytes,
            checksum: format::hash_text(hash),
            first_epoch: self.header.first_epoch,
            last_epoch: self.header.last_epoch,
        })
    }

    /// Gives up: the unfinished file is deleted if possible.
    pub(super) fn abandon(self) {
        let Self { tmp, file, .. } = self;
        drop(file);
        if let Err(error) = delete(&tmp) {
            tracing::warn!(%error, "an unfinished checkpoint file stays until the next start");
        }
    }
}

/// A file being read, record by record. Memory: one block.
pub(super) struct FileReader {
    path: PathBuf,
    file: File,
    header: Header,
    /// Bytes of the file.
    size: u64,
    /// What the trailer says.
    records: u64,
    hash_at_end: u64,
    /// Bytes read and hashed so far: where the next block begins.
    offset: u64,
    hash: Xxh3,
    decompressor: Decompressor<'static>,
    stored: Vec<u8>,
    block: Vec<u8>,
    /// Where the block begins in the file.
    block_at: u64,
    /// The current record within the block.
    record: std::ops::Range<usize>,
    /// The last key of the block before.
    last_key: Vec<u8>,
    read: u64,
    done: bool,
}

impl FileReader {
    /// Opens a file and stands at its first record. That it is the one which was written is checked at once (size,
    /// header, trailer); its blocks are checked as they are read.
    pub(super) fn open(storage: impl Into<Storage>, entry: &CheckpointFile) -> Result<Self, CheckpointError> {
        let storage = storage.into();
        let path = storage.local().join(&entry.path);
        let mut file = match open(&storage, &entry.path)? {
            Some(file) => file,
            None => return Err(CheckpointError::Missing { path: storage.place(&entry.path) }),
        };
        let size = file.metadata().at("cannot read", &path)?.len();
        let mut hash = Xxh3::new();
        let header = read_header(&mut file, &path, size, &mut hash)?;
        let (records, hash_at_end) = read_trailer(&mut file, &path, size, entry)?;
        let expected = (&entry.operator, entry.first_epoch, entry.last_epoch);
        if (&header.operator, header.first_epoch, header.last_epoch) != expected {
            let Header { operator, first_epoch, last_epoch, .. } = &header;
            let problem = format!("it holds epochs {first_epoch} to {last_epoch} of {operator}, not what was written");
            return Err(CheckpointError::Damaged { path, offset: PREAMBLE as u64, problem });
        }
        let offset = file.stream_position().at("cannot read", &path)?;
        let decompressor = Decompressor::new().at("cannot decompress", &path)?;
        let mut reader = Self {
            path,
            file,
            header,
            size,
            records,
            hash_at_end,
            offset,
            hash,
            decompressor,
            stored: Vec::new(),
            block: Vec::new(),
            block_at: offset,
            record: 0..0,
            last_key: Vec::new(),
            read: 0,
            done: false,
        };
        reader.advance()?;
        Ok(reader)
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    fn damaged(&self, offset: u64, problem: impl Into<String>) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.clone(), offset, problem: problem.into() }
    }

    /// Reads the next block; at the end checks the whole.
    fn next_block(&mut self) -> Result<(), CheckpointError> {
        let at = self.offset;
        let end = self.size - TRAILER as u64;
        if at == end {
            return self.end();
        }
        let room = (end - at).checked_sub(BLOCK_HEAD as u64);
        let room = room.ok_or_else(|| self.damaged(at, "a block is cut off"))?;
        let mut head = [0; BLOCK_HEAD];
        read(&mut self.file, &self.path, at, &mut head)?;
        let numbers = format::decode_block_head(&head).map_err(|f| fault(&self.path, at, f))?;
        if u64::from(numbers.stored) > room {
            return Err(self.damaged(at, "a block reaches beyond the end"));
        }
        self.stored.resize(numbers.stored as usize, 0);
        read(&mut self.file, &self.path, at, &mut self.stored)?;
        if crc32fast::hash(&self.stored) != numbers.crc {
            return Err(self.damaged(at, format!("the checksum of a block of {} bytes is wrong", numbers.stored)));
        }
        self.hash.update(&head);
        self.hash.update(&self.stored);
        self.block.resize(numbers.plain as usize, 0);
        let plain = self.decompressor.decompress_to_buffer(&self.stored, &mut self.block[..]);
        if plain.ok() != Some(numbers.plain as usize) {
            return Err(self.damaged(at, "a block cannot be decompressed"));
        }
        self.block_at = at;
        self.offset = at + BLOCK_HEAD as u64 + u64::from(numbers.stored);
        Ok(())
    }

    fn end(&mut self) -> Result<(), CheckpointError> {
        self.done = true;
        self.hash.update(&format::encode_trailer(self.records));
        if self.hash.digest() != self.hash_at_end {
            return Err(self.damaged(0, "the file's checksum is wrong"));
        }
        if self.read != self.records {
            let problem = format!("it holds {} records where {} were written", self.read, self.records);
            return Err(self.damaged(self.offset, problem));
        }
        Ok(())
    }
}

impl Source for FileReader {
    fn record(&self) -> Option<Record<'_>> {
        if self.done {
            return None;
        }
        let bytes = self.block.get(self.record.clone())?;
        format::decode_record(self.header.kind, bytes).map(|(record, _)| record)
    }

    fn advance(&mut self) -> Result<(), CheckpointError> {
        if self.done {
            return Ok(());
        }
        let (kind, before) = (self.header.kind, self.record.clone());
        let next_block = before.end == self.block.len();
        if next_block {
            if let Some((last, _)) = format::decode_record(kind, &self.block[before.clone()]) {
                self.last_key.clear();
                self.last_key.extend_from_slice(last.key);
            }
            self.next_block()?;
            if self.done {
                return Ok(());
            }
        }
        let start = if next_block { 0 } else { before.end };
        let Some((record, size)) = format::decode_record(kind, &self.block[start..]) else {
            return Err(self.damaged(self.block_at, "a block holds what is no record"));
        };
        let last = if next_block { None } else { format::decode_record(kind, &self.block[before]) };
        let last = last.map_or(&self.last_key[..], |(last, _)| last.key);
        if self.read > 0 && record.key <= last {
            return Err(self.damaged(self.block_at, "the records of a block are out of order"));
        }
        self.record = start..start + size;
        self.read += 1;
        Ok(())
    }
}

fn fault(path: &Path, offset: u64, fault: Fault) -> CheckpointError {
    match fault {
        Fault::Damaged(problem) => CheckpointError::Damaged { path: path.to_path_buf(), offset, problem },
        Fault::Format { found, version } => {
            let (place, writer) = (format!("checkpoint file {}", path.display()), format!("drivetrain {version}"));
            CheckpointError::Format { place, found, writer }
        }
    }
}

/// Opens a file, copied from the store if need be; `None` when there is none.
fn open(storage: &Storage, path: &str) -> Result<Option<File>, FileError> {
    let file = storage.local().join(path);
    let opened = File::open(&file);
    let missing = opened.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let opened = match (missing, storage.remote()) {
        (false, _) => opened,
        (true, Some(remote)) if remote.download(path, &file)? => File::open(&file),
        (true, _) => return Ok(None),
    };
    opened.at("cannot open", &file).map(Some)
}

/// Which version wrote a file that is not of our format; `None` when that cannot be said.
pub(super) fn writer(storage: &Storage, path: &str) -> Option<String> {
    let mut preamble = [0; PREAMBLE];
    open(storage, path).ok()??.read_exact(&mut preamble).ok()?;
    match fault(&storage.place(path), 0, format::decode_preamble(&preamble).err()?) {
        CheckpointError::Format { writer, .. } => Some(writer),
        _ => None,
    }
}

/// Fills the buffer; a file that ends before is damaged at `offset`.
fn read(file: &mut File, path: &Path, offset: u64, buffer: &mut [u8]) -> Result<(), CheckpointError> {
    match file.read_exact(buffer) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(fault(path, offset, Fault::from("the file is cut off"))),
        other => Ok(other.at("cannot read", path)?),
    }
}

fn read_header(file: &mut File, path: &Path, size: u64, hash: &mut Xxh3) -> Result<Header, CheckpointError> {
    let mut preamble = [0; PREAMBLE];
    read(file, path, 0, &mut preamble)?;
    let bytes = format::decode_preamble(&preamble).map_err(|f| fault(path, 0, f))?;
    let at = PREAMBLE as u64;
    if at + bytes as u64 + TRAILER as u64 > size {
        return Err(fault(path, at, Fault::from("the file is cut off")));
    }
    let mut header = vec![0; bytes];
    read(file, path, at, &mut header)?;
    hash.update(&preamble);
    hash.update(&header);
    format::decode_header(&header).map_err(|f| fault(path, at, f))
}

/// Records and hash as the trailer has them. Leaves the file's position where it was.
fn read_trailer(
    file: &mut File,
    path: &Path,
    size: u64,
    entry: &CheckpointFile,
) -> Result<(u64, u64), CheckpointError> {
    if size != entry.bytes {
        let problem = format!("the file has {size} bytes where {} were written", entry.bytes);
        return Err(fault(path, size.min(entry.bytes), Fault::Damaged(problem)));
    }
    let back = file.stream_position().at("cannot read", path)?;
    let at = size - TRAILER as u64;
    let mut trailer = [0; TRAILER];
    file.seek(SeekFrom::Start(at)).at("cannot read", path)?;
    read(file, path, at, &mut trailer)?;
    file.seek(SeekFrom::Start(back)).at("cannot read", path)?;
    let (records, hash) = format::decode_trailer(&trailer).map_err(|f| fault(path, at, f))?;
    if records != entry.records || format::hash_text(hash) != entry.checksum {
        return Err(fault(path, at, Fault::from("the trailer is not the one that was written")));
    }
    Ok((records, hash))
}

/// Deletes our files of generations below one that are not kept, and directories that are empty then. Others' files
/// are left alone. Returns the files, relative to the data directory, in byte order.
pub(super) fn sweep(storage: &Storage, below: u64, keep: &BTreeSet<&str>) -> Result<Vec<String>, FileError> {
    if let Some(remote) = storage.remote() {
        return sweep_objects(remote, below, keep);
    }
    let data = storage.local();
    let mut deleted = Vec::new();
    let root = data.join(CHECKPOINTS);
    let older = |name: &str| generation_of(name).is_some_and(|g| g < below);
    for dir in list(&root)?.into_iter().filter(|n| older(n)) {
        let before = deleted.len();
        for name in list(&root.join(&dir))? {
            let path = format!("{CHECKPOINTS}/{dir}/{name}");
            let ours = name.ends_with(SUFFIX) || name.ends_with(UNFINISHED);
            if ours && !keep.contains(path.as_str()) && delete(&data.join(&path))? {
                deleted.push(path);
            }
        }
        if deleted.len() > before {
            sync_dir(&root.join(&dir))?;
        }
        // Stays when something is in it.
        let _ = std::fs::remove_dir(root.join(&dir));
    }
    deleted.sort();
    Ok(deleted)
}

fn sweep_objects(remote: &Remote, below: u64, keep: &BTreeSet<&str>) -> Result<Vec<String>, FileError> {
    let needless = |path: &String| {
        generation_of_path(path).is_some_and(|g| g < below) && path.ends_with(SUFFIX) && !keep.contains(path.as_str())
    };
    let needless: Vec<String> = remote.list(CHECKPOINTS)?.into_iter().filter(needless).collect();
    remote.delete(needless.clone())?;
    Ok(needless)
}
