//! A file of checked lines: `<crc32 in 8 hex digits> <JSON>\n`, appended only.
//!
//! A crash can tear the last line only, so a last line without its end or with a wrong checksum never happened and is
//! dropped; anything wrong before it is damage.

use crate::failpoint;
use crate::files::{At, FileError, sync_dir};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// One line, checksum and all.
pub fn line(json: &str) -> String {
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

/// Bytes of the line of this JSON.
pub fn bytes(json: &str) -> u64 {
    json.len() as u64 + 10
}

/// The JSON of a line without its end; `None` when the checksum is wrong.
pub fn check(line: &[u8]) -> Option<&str> {
    let (crc, json) = (line.get(..8)?, line.get(9..)?);
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?, 16).ok()?;
    (line.get(8) == Some(&b' ') && crc == crc32fast::hash(json)).then(|| std::str::from_utf8(json).ok()).flatten()
}

/// What reading a file of lines found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bytes up to the end of the last good line.
    pub good: u64,
    /// Number and byte offset of a damaged line that is not the last.
    pub damaged: Option<(u64, u64)>,
}

/// Hands each good line's JSON to `each`, in order; stops at damage. A missing file has no lines.
pub fn scan(path: &Path, mut each: impl FnMut(&str)) -> Result<Scan, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Scan::default()),
        Err(e) => return Err(e).at("cannot open", path),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut scan = Scan::default();
    let (mut number, mut buffer) = (0, Vec::new());
    loop {
        buffer.clear();
        let read = reader.read_until(b'\n', &mut buffer).at("cannot read", path)?;
        if read == 0 {
            return Ok(scan);
        }
        number += 1;
        // Without its end it is the last line: torn by a crash, or being written.
        let Some(line) = buffer.strip_suffix(b"\n") else { return Ok(scan) };
        let Some(json) = check(line) else {
            let rest = reader.fill_buf().at("cannot read", path)?;
            if !rest.is_empty() {
                scan.damaged = Some((number, scan.good));
            }
            return Ok(scan);
        };
        each(json);
        scan.good += read as u64;
    }
}

/// The last good line's JSON, read from the end without reading the file.
pub fn last(path: &Path) -> Result<Option<String>, FileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at("cannot open", path),
    };
    let size = file.seek(SeekFrom::End(0)).at("cannot read", path)?;
    let mut window = 1u64 << 14;
    loop {
        let start = size.saturating_sub(window);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start)).at("cannot read", path)?;
        (&mut file).take(size - start).read_to_end(&mut bytes).at("cannot read", path)?;
        // The first piece of a window may be the end of a longer line, so it counts at the file's start only.
        let mut pieces: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        pieces.pop();
        let whole = if start == 0 { &pieces[..] } else { pieces.get(1..).unwrap_or(&[]) };
        if let Some(json) = whole.iter().rev().find_map(|p| check(p)) {
            return Ok(Some(json.to_string()));
        }
        if start == 0 {
            return Ok(None);
        }
        window *= 8;
    }
}

/// A file of lines opened for appending.
#[derive(Debug)]
pub struct Appender {
    path: PathBuf,
    file: File,
}

impl Appender {
    /// Opens or creates the file and cuts off what stands behind `good` (see [`Scan::good`]).
    pub fn open(path: &Path, good: u64) -> Result<Self, FileError> {
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).write(true).open(path).at("cannot open", path)?;
        file.set_len(good).and_then(|()| file.seek(SeekFrom::End(0))).at("cannot write", path)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Writes the file anew, durable, with these lines: a reader sees the old one or the new one. `step`: the failpoint
    /// between the two.
    pub fn replace(path: &Path, lines: &[u8], step: &'static str) -> Result<Self, FileError> {
        let tmp = path.with_extension("tmp");
        let mut file = File::create(&tmp).at("cannot create", &tmp)?;
        file.write_all(lines).and_then(|()| file.sync_all()).at("cannot write", &tmp)?;
        failpoint::hit(step)?;
        std::fs::rename(&tmp, path).at("cannot rename to", path)?;
        path.parent().map_or(Ok(()), sync_dir)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Writes lines in one go; durable after [`Self::sync`].
    pub fn append(&mut self, lines: &str) -> Result<(), FileError> {
        self.file.write_all(lines.as_bytes()).at("cannot write", &self.path)
    }

    pub fn sync(&mut self) -> Result<(), FileError> {
        self.file.sync_data().at("cannot sync", &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A line that is being written is no damage, however the reader comes upon it.
    #[test]
    fn reading_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        let mut file = File::create(&path).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..2_000 {
                    let line = line(&format!("{{\"n\":{i},\"text\":\"{}\"}}", "x".repeat(i % 700)));
                    line.as_bytes().chunks(97).for_each(|piece| file.write_all(piece).unwrap());
                }
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                let mut count = 0;
                let scan = scan(&path, |_| count += 1).unwrap();
                assert_eq!(scan.damaged, None, "after {count} lines");
            }
        });
        let mut count = 0;
        scan(&path, |_| count += 1).unwrap();
        assert_eq!(count, 2_000);
    }
}
