//! The writer of one topic: appends, and compacts when more than half of it is garbage.

use super::head::{Head, head};
use super::{LiveError, segment, segments};
use crate::failpoint;
use crate::files::{At, FileError, create_dir, list, remove_file, sync_dir};
use crate::outlet::quoted;
use hashbrown::HashMap;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Garbage that is not worth a compaction.
pub(super) const SMALL: u64 = 4 << 20;

/// Where a key's newest record stands in the segment.
#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    len: u32,
}

/// One topic's log. Memory: the keys and 16 bytes for each.
#[derive(Debug)]
pub struct TopicLog {
    dir: PathBuf,
    number: u64,
    file: File,
    /// Appended, not yet written.
    pending: String,
    /// Bytes of the segment, `pending` included.
    size: u64,
    places: HashMap<Arc<str>, Place, foldhash::fast::FixedState>,
    live: u64,
    /// Garbage up to this many bytes stays.
    small: u64,
}

impl TopicLog {
    /// Begins a topic in an empty directory.
    pub fn create(dir: &Path) -> Result<Self, FileError> {
        create_dir(dir)?;
        let number = segments(dir)?.last().map_or(1, |n| n + 1);
        let path = segment(dir, number);
        let file = File::create_new(&path).at("cannot create", &path)?;
        sync_dir(dir)?;
        let (pending, places) = (String::new(), HashMap::default());
        Ok(Self { dir: dir.to_path_buf(), number, file, pending, size: 0, places, live: 0, small: SMALL })
    }

    /// Opens a topic as it was when the epochs up to `committed` had been committed; begins it if there is nothing. What
    /// stands behind them, a torn line included, never happened and is cut off, as is what a crash has left of a
    /// compaction. `keyed`: the lines are of keys ([`Self::put`]), not by themselves ([`Self::line`]).
    ///
    /// # Errors
    /// [`LiveError::Damaged`] for a line that is none with committed ones behind it.
    pub fn open(dir: &Path, committed: i64, keyed: bool) -> Result<Self, LiveError> {
        for name in list(dir)?.iter().filter(|n| n.ends_with(".tmp")) {
            remove_file(&dir.join(name))?;
        }
        let mut numbers = segments(dir)?;
        // A segment gets its name when it is whole, so that the newest has all.
        let Some(number) = numbers.pop() else { return Ok(Self::create(dir)?) };
        for older in numbers {
            remove_file(&segment(dir, older))?;
        }
        let path = segment(dir, number);
        let file = OpenOptions::new().append(true).open(&path).at("cannot open", &path)?;
        let (pending, places) = (String::new(), HashMap::default());
        let mut log = Self { dir: dir.to_path_buf(), number, file, pending, size: 0, places, live: 0, small: SMALL };
        log.read(&path, committed, keyed)?;
        failpoint::hit("recovery.cut")?;
        log.file.set_len(log.size).and_then(|()| log.file.sync_all()).at("cannot write", &path)?;
        Ok(log)
    }

    /// Takes in the committed lines.
    fn read(&mut self, path: &Path, committed: i64, keyed: bool) -> Result<(), LiveError> {
        let mut reader = BufReader::with_capacity(1 << 18, File::open(path).at("cannot open", path)?);
        let (mut line, mut number, mut damaged) = (Vec::new(), 0, None);
        loop {
            line.clear();
            let len = reader.read_until(b'\n', &mut line).at("cannot read", path)? as u64;
            number += 1;
            let Some(text) = line.strip_suffix(b"\n") else { return Ok(()) };
            match head(text, keyed) {
                // From the first line of a commit that did not happen on, nothing has happened.
                Some(Head { epoch, .. }) if epoch > committed => return Ok(()),
                // A crash leaves anything behind what was synced, but nothing committed behind that.
                None => _ = damaged.get_or_insert(number),
                Some(head) => match (damaged, head.key) {
                    (Some(line), _) => return Err(LiveError::Damaged { path: path.to_path_buf(), line }),
                    (None, Some(key)) => self.place(&Arc::from(&*key), len as u32, head.ends),
                    (None, None) => self.live += len,
                },
            }
            if damaged.is_none() {
                self.size += len;
            }
        }
    }

    /// Compacts from this many bytes of garbage on (4 MiB by default).
    pub fn with_small(mut self, bytes: u64) -> Self {
        self.small = bytes;
        self
    }

    /// Appends the new value of a key, or its end.
    pub fn put(&mut self, key: &Arc<str>, value: Option<&str>, epoch: i64) {
        let start = self.pending.len();
        let value = value.unwrap_or("null");
        let _ = writeln!(self.pending, "{{\"epoch\":{epoch},\"key\":{},\"value\":{value}}}", quoted(key));
        let len = (self.pending.len() - start) as u32;
        self.place(key, len, value == "null");
        self.size += u64::from(len);
    }

    /// Notes that the newest record of a key has these bytes at the end of the segment.
    fn place(&mut self, key: &Arc<str>, len: u32, ends: bool) {
        let old = if ends {
            self.places.remove(key)
        } else {
            self.live += u64::from(len);
            self.places.insert(key.clone(), Place { offset: self.size, len })
        };
        self.live -= old.map_or(0, |p| u64::from(p.len));
    }

    /// Appends a line that no key replaces.
    pub fn line(&mut self, line: &str) {
        self.pending.push_str(line);
        self.pending.push('\n');
        let len = line.len() as u64 + 1;
        self.size += len;
        self.live += len;
    }

    /// Writes what was appended, durable.
    pub fn flush(&mut self) -> Result<(), FileError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let path = segment(&self.dir, self.number);
        self.file.write_all(self.pending.as_bytes()).and_then(|()| self.file.sync_data()).at("cannot write", &path)?;
        self.pending.clear();
        Ok(())
    }

    /// Rewrites the topic when more than half of it is garbage. Only when everything in it is committed and flushed.
    pub fn compact(&mut self) -> Result<bool, FileError> {
        let garbage = self.size - self.live;
        if garbage <= self.live.max(self.small) || !self.pending.is_empty() {
            return Ok(false);
        }
        let old = segment(&self.dir, self.number);
        let new = segment(&self.dir, self.number + 1);
        let tmp = new.with_extension("tmp");
        let mut order: Vec<(Arc<str>, Place)> = self.places.iter().map(|(k, p)| (k.clone(), *p)).collect();
        order.sort_unstable_by_key(|(_, p)| p.offset);
        let size = copy(&old, &tmp, &mut order)?;
        failpoint::hit("compact.written")?;
        std::fs::rename(&tmp, &new).at("cannot rename to", &new)?;
        sync_dir(&self.dir)?;
        failpoint::hit("compact.renamed")?;
        self.file = OpenOptions::new().append(true).open(&new).at("cannot open", &new)?;
        self.number += 1;
        self.places = order.into_iter().collect();
        (self.size, self.live) = (size, size);
        remove_file(&old)?;
        Ok(true)
    }
}

/// Copies the records at the places, which ascend, and sets their new places. Returns the new size.
fn copy(from: &Path, to: &Path, order: &mut [(Arc<str>, Place)]) -> Result<u64, FileError> {
    let mut input = BufReader::with_capacity(1 << 16, File::open(from).at("cannot open", from)?);
    let mut output = BufWriter::with_capacity(1 << 16, File::create(to).at("cannot create", to)?);
    let (mut position, mut size, mut buffer) = (0u64, 0u64, Vec::new());
    input.seek(SeekFrom::Start(0)).at("cannot read", from)?;
    for (_, place) in order {
        let skip = (place.offset - position) as i64;
        input.seek_relative(skip).at("cannot read", from)?;
        buffer.resize(place.len as usize, 0);
        input.read_exact(&mut buffer).at("cannot read", from)?;
        output.write_all(&buffer).at("cannot write", to)?;
        position = place.offset + u64::from(place.len);
        place.offset = size;
        size += u64::from(place.len);
    }
    output.flush().and_then(|()| output.get_ref().sync_all()).at("cannot write", to)?;
    Ok(size)
}
