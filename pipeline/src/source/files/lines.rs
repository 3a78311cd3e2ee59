//! Cuts a stream of text into records, in blocks, within bounded memory.
//!
//! ```text
//!  read ─► [ tail of the block before | 256 KiB ] ─► spans of whole records; the rest is the next block's tail
//! ```

use crate::source::chunk::{LineBlock, Span};
use std::io::Read;

const BLOCK: usize = 256 * 1024;

/// Cuts records at line ends. Blank lines are passed over but counted; `\r` before a line end and a byte order mark at
/// the start are dropped; the last line needs no end.
pub(crate) struct Splitter<R> {
    input: R,
    /// Most bytes kept of a record: one more than the limit, so that the decoder sees that it is too large.
    keep: usize,
    /// The delimiter, if quotes may span lines.
    quotes: Option<u8>,
    /// Records up to this line are passed over.
    skip: i64,
    /// The start of a record whose end has not been read.
    tail: Vec<u8>,
    /// Number of the tail's first line.
    line: i64,
    /// The tail is cut already: its record is longer than `keep`.
    cut: bool,
    ended: bool,
}

impl<R: Read> Splitter<R> {
    pub(crate) fn new(input: R, limit: usize, quotes: Option<u8>, skip: i64) -> Self {
        let keep = limit.clamp(1, 1 << 30) + 1;
        Self { input, keep, quotes, skip, tail: Vec::new(), line: 1, cut: false, ended: false }
    }

    /// Number of the line that is read next.
    pub(crate) fn line(&self) -> i64 {
        self.line
    }

    /// The next records; None at the end.
    ///
    /// # Errors
    /// What reading or unpacking says; [`Self::line`] then is the first that did not come whole.
    pub(crate) fn next_block(&mut self) -> std::io::Result<Option<LineBlock>> {
        while !self.ended {
            let mut block = LineBlock { bytes: std::mem::take(&mut self.tail), spans: Vec::new() };
            let start = block.bytes.len();
            block.bytes.resize(start + BLOCK, 0);
            let (read, failed) = read_full(&mut self.input, block.bytes.get_mut(start..).unwrap_or_default());
            block.bytes.truncate(start + read);
            self.ended = read < BLOCK && failed.is_none();
            if self.line == 1 && start == 0 && block.bytes.starts_with(b"\xef\xbb\xbf") {
                block.bytes.drain(..3);
            }
            let whole = !self.cut || self.resume_after_cut(&mut block, start);
            if whole {
                self.split(&mut block);
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if !block.spans.is_empty() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// Drops what follows the kept start of a long record, up to its line end. False when that has not come yet.
    fn resume_after_cut(&mut self, block: &mut LineBlock, kept: usize) -> bool {
        match memchr::memchr(b'\n', block.bytes.get(kept..).unwrap_or_default()) {
            Some(at) => {
                block.bytes.drain(kept..kept + at);
            }
            None => block.bytes.truncate(kept),
        }
        let complete = block.bytes.len() > kept || self.ended;
        if complete {
            self.cut = false;
        } else {
            self.tail = std::mem::take(&mut block.bytes);
        }
        complete
    }

    fn split(&mut self, block: &mut LineBlock) {
        let mut from = 0;
        while from < block.bytes.len() {
            let rest = block.bytes.get(from..).unwrap_or_default();
            let end = match self.find_end(rest) {
                Some(end) => end,
                None if self.ended => rest.len(),
                None => break,
            };
            let record = rest.get(..end).unwrap_or_default();
            let lines = match self.quotes {
                Some(_) => memchr::memchr_iter(b'\n', record).count() as i64,
                None => 0,
            };
            let record = record.strip_suffix(b"\r").unwrap_or(record);
            if self.line > self.skip && !record.trim_ascii().is_empty() {
                let len = record.len().min(self.keep) as u32;
                block.spans.push(Span { start: from as u32, len, line: self.line });
            }
            self.line += 1 + lines;
            from += end + 1;
        }
        let rest = block.bytes.get(from..).unwrap_or_default();
        self.cut = rest.len() >= self.keep;
        self.tail = rest.get(..rest.len().min(self.keep)).unwrap_or_default().to_vec();
    }

    /// Where the record at the start of `rest` ends, if that is known.
    fn find_end(&self, rest: &[u8]) -> Option<usize> {
        let newline = || memchr::memchr(b'\n', rest);
        let Some(delimiter) = self.quotes else { return newline() };
        match quoted_end(rest, delimiter) {
            // An open quote must not swallow the file: beyond the limit, or at its end, the first line stands alone.
            Some(end) if end > self.keep => newline(),
            None if rest.len() >= self.keep || self.ended => newline(),
            end => end,
        }
    }
}

/// The first line end outside quotes. A quote opens only at the start of a column, so that `5" pipe` does no harm.
fn quoted_end(rest: &[u8], delimiter: u8) -> Option<usize> {
    let (mut quoted, mut closed_at) = (false, usize::MAX);
    for i in memchr::memchr2_iter(b'"', b'\n', rest) {
        if rest.get(i) == Some(&b'\n') {
            if !quoted {
                return Some(i);
            }
        } else if quoted {
            (quoted, closed_at) = (false, i);
        } else {
            let before = i.checked_sub(1);
            // Right behind a closing quote it is the second of a doubled one.
            let doubled = before.is_some_and(|b| b == closed_at);
            quoted = doubled || before.is_none_or(|b| rest.get(b) == Some(&delimiter));
        }
    }
    None
}

/// Fills the buffer as far as the input goes: how far, and what stood in the way. Less than all, and nothing in the
/// way, means its end.
fn read_full(input: &mut impl Read, mut buffer: &mut [u8]) -> (usize, Option<std::io::Error>) {
    let mut total = 0;
    while !buffer.is_empty() {
        match input.read(buffer) {
            Ok(0) => break,
            Ok(n) => {
                total += n;
                buffer = buffer.get_mut(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return (total, Some(e)),
        }
    }
    (total, None)
}
