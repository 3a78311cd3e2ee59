//! Readings on their way out: decoded, but their circumstances not looked up yet.
//!
//! Several are staged before the first is resolved, so that the memory of their vehicles, which is asked for when they are
//! staged, has come by then. The readings of an expanded record also wait here until its last element is known to be good.

use super::meta::MetaCache;
use crate::reading::{Accept, Head, Interned, NULL};

/// So many are staged before they go on: enough to hide the waits, few enough for the nearest cache.
pub(crate) const AHEAD: usize = 32;

/// One staged reading; its key, values and unusable signals end where it says.
#[derive(Clone, Copy, Debug)]
struct Entry {
    head: Head,
    /// Of its vehicle.
    hash: u64,
    key: u32,
    invalid: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Staging {
    metas: MetaCache,
    entries: Vec<Entry>,
    /// Of each entry, where its vehicle is known to stand.
    places: Vec<Option<u32>>,
    values: Vec<i64>,
    keys: Keys,
    invalid: Vec<u16>,
}

/// The keys of staged readings, one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// What is behind `used` does not count.
    bytes: Vec<u8>,
    used: usize,
}

/// Bytes that are copied at once.
const STEP: usize = 32;

impl Keys {
    /// Appends the bytes of a record from `start` to `end`, which it has. Most are few: then what stands behind them is copied,
    /// too, and does not count.
    #[inline(always)]
    pub(crate) fn put(&mut self, record: &[u8], start: usize, end: usize) {
        let from = record.get(start..).and_then(|from| from.first_chunk::<STEP>());
        let to = self.bytes.get_mut(self.used..).and_then(|to| to.first_chunk_mut::<STEP>());
        match (from, to) {
            (Some(from), Some(to)) if end - start <= STEP => *to = *from,
            _ => return self.put_slowly(&record[start..end]),
        }
        self.used += end - start;
    }

    #[inline(never)]
    fn put_slowly(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        if self.used == self.bytes.len() {
            self.make_room(1);
        }
        self.bytes[self.used] = byte;
        self.used += 1;
    }

    /// Room for so many bytes.
    #[cold]
    fn make_room(&mut self, bytes: usize) {
        let needed = self.used + bytes;
        if needed > self.bytes.len() {
            self.bytes.resize((2 * needed).max(64 * AHEAD), 0);
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        self.used = self.used.min(len);
    }

    #[inline]
    pub(crate) fn range(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[from..to]
    }
}

impl Staging {
    /// Where the next reading's key is to be written.
    #[inline]
    pub(crate) fn keys(&mut self) -> &mut Keys {
        &mut self.keys
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The values of the next reading, all null.
    #[inline]
    pub(crate) fn room(&mut self, width: usize) -> &mut [i64] {
        let from = self.entries.len() * width;
        self.values.truncate(from);
        self.values.resize(from + width, NULL);
        &mut self.values[from..]
    }

    /// Stages the reading whose values and key ([`super::meta::write_key`]) were written last.
    #[inline(always)]
    pub(crate) fn push(&mut self, head: Head, vehicle: &[u8], invalid: &[u16]) {
        let hash = self.metas.stage(vehicle);
        self.invalid.extend_from_slice(invalid);
        let (key, invalid) = (self.keys.len() as u32, self.invalid.len() as u32);
        self.entries.push(Entry { head, hash, key, invalid });
    }

    /// Takes back all but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        let (key, invalid) = self.entries.last().map_or((0, 0), |e| (e.key as usize, e.invalid as usize));
        self.keys.truncate(key);
        self.invalid.truncate(invalid);
    }

    /// Lets all go on, in their order.
    #[inline]
    pub(crate) fn flush(&mut self, width: usize, out: &mut impl Accept) {
        let Staging { metas, entries, places, values, keys, invalid } = self;
        places.clear();
        places.extend(entries.iter().map(|entry| metas.place(entry.hash)));
        places.iter().for_each(|place| metas.ask(*place));
        let (mut key, mut unusable) = (0, 0);
        for (i, (entry, place)) in entries.iter().zip(places.iter()).enumerate() {
            let held = metas.resolve(entry.hash, *place, keys.range(key, entry.key as usize));
            let interned = Interned { meta: &held.meta, hash: entry.hash, noted: &held.noted };
            let signals = &invalid[unusable..entry.invalid as usize];
            out.reading(entry.head, interned, &values[i * width..(i + 1) * width], signals);
            (key, unusable) = (entry.key as usize, entry.invalid as usize);
        }
        entries.clear();
        keys.truncate(0);
        invalid.clear();
        metas.make_room();
    }
}
