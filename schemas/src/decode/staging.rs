//! Readings on their way out: decoded, but their circumstances not looked up yet.
//!
//! Several are staged before the first is resolved, so that the memory of their vehicles, which is asked for when they are
//! staged, has come by then. The readings of an expanded record also wait here until its last element is known to be good.

use super::meta::{Candidate, MetaCache, write_key};
use crate::reading::{Accept, Head, Interned, NULL};

/// So many are staged before they go on: enough to hide the waits, few enough for the nearest cache.
pub(crate) const AHEAD: usize = 32;

/// One staged reading; its key, values and unusable signals end where it says.
#[derive(Clone, Copy, Debug)]
struct Entry {
    head: Head,
    /// Of its vehicle.
    hash: u64,
    place: Option<u32>,
    key: u32,
    invalid: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Staging {
    metas: MetaCache,
    entries: Vec<Entry>,
    values: Vec<i64>,
    keys: Vec<u8>,
    invalid: Vec<u16>,
}

impl Staging {
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

    /// Stages the reading whose values were written last.
    #[inline]
    pub(crate) fn push(&mut self, head: Head, candidate: &Candidate<'_>, invalid: &[u16]) {
        let hash = self.metas.stage(&candidate.vehicle);
        write_key(candidate, &mut self.keys);
        self.invalid.extend_from_slice(invalid);
        let (key, invalid) = (self.keys.len() as u32, self.invalid.len() as u32);
        self.entries.push(Entry { head, hash, place: None, key, invalid });
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
        let Staging { metas, entries, values, keys, invalid } = self;
        entries.iter_mut().for_each(|entry| entry.place = metas.place(entry.hash));
        entries.iter().for_each(|entry| metas.ask(entry.place));
        let (mut key, mut unusable) = (0, 0);
        for (i, entry) in entries.iter().enumerate() {
            let held = metas.resolve(entry.hash, entry.place, &keys[key..entry.key as usize]);
            let interned = Interned { meta: &held.meta, hash: entry.hash, noted: &held.noted };
            let signals = &invalid[unusable..entry.invalid as usize];
            out.reading(entry.head, interned, &values[i * width..(i + 1) * width], signals);
            (key, unusable) = (entry.key as usize, entry.invalid as usize);
        }
        entries.clear();
        keys.clear();
        invalid.clear();
        metas.make_room();
    }
}
