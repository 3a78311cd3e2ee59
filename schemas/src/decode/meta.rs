//! The circumstances of readings, interned: all readings of a vehicle share one [`Meta`] as long as nothing changes.
//!
//! ```text
//!  stage    hash of the vehicle                            (vehicles are more than caches hold: whoever looks at once,
//!  place    …some readings later: where it stands           waits; so each step asks for the memory of the next, and
//!  ask      …where what is known of it is counted           goes on with other readings)
//!  resolve  …later still: compare, share or make anew
//! ```

use super::staging::Keys;
use crate::prefetch::{prefetch, prefetch_count};
use crate::reading::{Meta, Noted};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

/// Vehicles whose last circumstances are kept; beyond, the table starts over.
const MAX_VEHICLES: usize = 1 << 20;

/// Circumstances of one reading, borrowed from its record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate<'a> {
    pub(crate) vehicle: Cow<'a, str>,
    pub(crate) texts: SmallVec<[(u16, Cow<'a, str>); 2]>,
    pub(crate) driver: Option<Cow<'a, str>>,
    pub(crate) trip: Option<Cow<'a, str>>,
    pub(crate) fleet: Option<Cow<'a, str>>,
    pub(crate) quality: Option<Cow<'a, str>>,
    pub(crate) tags: Option<&'a str>,
}

/// A vehicle's last circumstances.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Held {
    pub(crate) meta: Arc<Meta>,
    pub(crate) noted: Noted,
    /// [`write_key`] of them: what is compared with the next reading lies in one place, not in a string each, and mostly
    /// right here.
    key: SmallVec<[u8; 64]>,
}

/// Hash of each vehicle and its place, in a table of which a line can be asked for before it is read.
#[derive(Clone, Debug)]
struct Index {
    /// A power of two of them, at most half in use; those with the same first choice follow each other.
    cells: Vec<(u64, u32)>,
}

/// The place in a cell that is not in use.
const EMPTY: u32 = u32::MAX;

impl Index {
    fn new(vehicles: usize) -> Self {
        Self { cells: vec![(0, EMPTY); (2 * vehicles).next_power_of_two().max(64)] }
    }

    /// The first cell of a hash.
    #[inline]
    fn first(&self, hash: u64) -> usize {
        (crate::key::spread(hash) as usize) & (self.cells.len() - 1)
    }

    #[inline]
    fn ask(&self, hash: u64) {
        if let Some(cell) = self.cells.get(self.first(hash)) {
            prefetch(cell);
        }
    }

    #[inline]
    fn find(&self, hash: u64) -> Option<u32> {
        let mut at = self.first(hash);
        while let Some((known, place)) = self.cells.get(at).filter(|(_, place)| *place != EMPTY) {
            if *known == hash {
                return Some(*place);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
        None
    }

    /// Puts in a hash that is not there. There must be room.
    fn put(&mut self, hash: u64, place: u32) {
        let mut at = self.first(hash);
        while self.cells[at].1 != EMPTY {
            at = (at + 1) & (self.cells.len() - 1);
        }
        self.cells[at] = (hash, place);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct MetaCache {
    index: Index,
    held: Vec<Held>,
}

impl Default for MetaCache {
    fn default() -> Self {
        Self { index: Index::new(0), held: Vec::new() }
    }
}

impl MetaCache {
    /// Forgets all when they have become too many. Not while anything is staged.
    pub(crate) fn make_room(&mut self) {
        if self.held.len() >= MAX_VEHICLES {
            *self = Self::default();
        }
    }

    /// A vehicle's hash; asks for the memory in which its place is to be looked up.
    #[inline]
    pub(crate) fn stage(&self, vehicle: &[u8]) -> u64 {
        let hash = crate::key::hash_of_bytes(vehicle);
        self.index.ask(hash);
        hash
    }

    /// The vehicle's place, if it is known; asks for the memory of what is known of it.
    #[inline]
    pub(crate) fn place(&self, hash: u64) -> Option<u32> {
        let place = self.index.find(hash);
        if let Some(held) = place.and_then(|place| self.held.get(place as usize)) {
            prefetch(held);
        }
        place
    }

    /// Asks for the memory of what is counted when its circumstances are shared.
    #[inline]
    pub(crate) fn ask(&self, place: Option<u32>) {
        if let Some(held) = place.and_then(|place| self.held.get(place as usize)) {
            prefetch_count(&held.meta);
        }
    }

    /// The shared form of the circumstances with this key: the vehicle's last one when nothing has changed, else a new
    /// one that shares its parts. (Of two vehicles with one hash only the last is known.)
    #[inline]
    pub(crate) fn resolve(&mut self, hash: u64, place: Option<u32>, key: &[u8]) -> &Held {
        // It may have come since it was looked for.
        let place = place.or_else(|| self.index.find(hash)).unwrap_or_else(|| self.add(hash, key));
        let held = &mut self.held[place as usize];
        if *held.key != *key {
            held.change(key);
        }
        held
    }

    #[cold]
    fn add(&mut self, hash: u64, key: &[u8]) -> u32 {
        let place = self.held.len() as u32;
        let (meta, noted) = (Arc::new(read_key(key, None)), Noted::default());
        self.held.push(Held { meta, noted, key: SmallVec::from_slice(key) });
        if 2 * self.held.len() > self.index.cells.len() {
            let before = std::mem::replace(&mut self.index, Index::new(2 * self.held.len()));
            let used = before.cells.into_iter().filter(|(_, place)| *place != EMPTY);
            used.for_each(|(hash, place)| self.index.put(hash, place));
        }
        self.index.put(hash, place);
        place
    }
}

impl Held {
    #[cold]
    fn change(&mut self, key: &[u8]) {
        self.meta = Arc::new(read_key(key, Some(&self.meta)));
        self.noted = Noted::default();
        self.key = SmallVec::from_slice(key);
    }
}

/// Ends a text, and stands for none: neither is in UTF-8.
pub(crate) const END: u8 = 0xff;
pub(crate) const NONE: u8 = 0xfe;

/// Appends what is equal for equal circumstances, and for no others: the vehicle, the five texts that may be missing, and those
/// of signals.
#[inline]
pub(crate) fn write_key(c: &Candidate<'_>, key: &mut Keys) {
    key.put(c.vehicle.as_bytes(), 0, c.vehicle.len());
    key.push(END);
    for text in [c.driver.as_deref(), c.trip.as_deref(), c.fleet.as_deref(), c.quality.as_deref(), c.tags] {
        match text {
            Some(text) => key.put(text.as_bytes(), 0, text.len()),
            None => key.push(NONE),
        }
        key.push(END);
    }
    for (signal, text) in &c.texts {
        key.put(&signal.to_le_bytes(), 0, 2);
        key.put(text.as_bytes(), 0, text.len());
        key.push(END);
    }
}

/// The circumstances of which this is the key; what is as it was is shared with those before.
fn read_key(key: &[u8], before: Option<&Meta>) -> Meta {
    let mut rest = key;
    let vehicle = take_text(&mut rest).unwrap_or("");
    let mut next = |before: Option<&Option<Arc<str>>>| {
        let text = take_text(&mut rest)?;
        let same = before.and_then(Option::as_ref).filter(|before| ***before == *text);
        Some(same.cloned().unwrap_or_else(|| text.into()))
    };
    let (driver, trip) = (next(before.map(|m| &m.driver)), next(before.map(|m| &m.trip)));
    let (fleet, quality) = (next(before.map(|m| &m.fleet)), next(before.map(|m| &m.quality)));
    let tags = next(before.map(|m| &m.tags));
    let mut texts = Vec::new();
    while let Some((signal, text)) = rest.split_first_chunk::<2>() {
        rest = text;
        texts.push((u16::from_le_bytes(*signal), take_text(&mut rest).unwrap_or("").into()));
    }
    let same = before.map(|m| &m.vehicle).filter(|before| ***before == *vehicle);
    let vehicle = same.cloned().unwrap_or_else(|| vehicle.into());
    Meta { vehicle, texts, driver, trip, fleet, quality, tags }
}

/// The text up to the next end; None where there is none.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == END).unwrap_or(rest.len());
    let (text, behind) = rest.split_at(end);
    *rest = behind.get(1..).unwrap_or_default();
    if text == [NONE] { None } else { std::str::from_utf8(text).ok() }
}

/// The texts of signals, owned.
pub(crate) fn texts(texts: &[(u16, Cow<'_, str>)]) -> Vec<(u16, Arc<str>)> {
    texts.iter().map(|(i, text)| (*i, Arc::from(&**text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Plain = (String, Vec<(u16, String)>, [Option<String>; 4], Option<String>);

    fn plain() -> impl Strategy<Value = Plain> {
        let text = || prop::sample::select(vec!["", "a", "ab", "b", "\u{ff}", "ä"]).prop_map(str::to_string);
        let some = move || prop::option::of(text());
        let texts = prop::collection::vec((0u16..3, text()), 0..3);
        (text(), texts, [some(), some(), some(), some()], some())
    }

    fn candidate(p: &Plain) -> Candidate<'_> {
        let (vehicle, texts, [driver, trip, fleet, quality], tags) = p;
        let cow = |text: &'_ Option<String>| text.clone().map(Cow::Owned);
        Candidate {
            vehicle: Cow::Borrowed(vehicle),
            texts: texts.iter().map(|(i, text)| (*i, Cow::Borrowed(text.as_str()))).collect(),
            driver: cow(driver),
            trip: cow(trip),
            fleet: cow(fleet),
            quality: cow(quality),
            tags: tags.as_deref(),
        }
    }

    fn meta(p: &Plain) -> Meta {
        let (vehicle, texts, [driver, trip, fleet, quality], tags) = p.clone();
        let shared = |text: Option<String>| text.map(Arc::from);
        let texts = texts.into_iter().map(|(signal, text)| (signal, text.into())).collect();
        let [driver, trip, fleet, quality, tags] = [driver, trip, fleet, quality, tags].map(shared);
        Meta { vehicle: vehicle.into(), texts, driver, trip, fleet, quality, tags }
    }

    proptest! {
        /// What comes out is what went in, and it is the vehicle's last one whenever nothing has changed; however many are
        /// staged before they are resolved.
        #[test]
        fn circumstances_are_shared_and_never_mixed(all in prop::collection::vec(plain(), 1..40), ahead in 1usize..9) {
            let mut cache = MetaCache::default();
            let mut last = std::collections::BTreeMap::<String, (Plain, Arc<Meta>)>::new();
            for some in all.chunks(ahead) {
                let hashes: Vec<u64> = some.iter().map(|p| cache.stage(p.0.as_bytes())).collect();
                let staged: Vec<(u64, Option<u32>)> = hashes.iter().map(|hash| (*hash, cache.place(*hash))).collect();
                for (p, (hash, place)) in some.iter().zip(staged) {
                    let mut key = Keys::default();
                    write_key(&candidate(p), &mut key);
                    let found = cache.resolve(hash, place, key.range(0, key.len())).meta.clone();
                    prop_assert_eq!(&*found, &meta(p));
                    if let Some((before, held)) = last.get(&p.0) {
                        prop_assert_eq!(before == p, Arc::ptr_eq(held, &found));
                    }
                    last.insert(p.0.clone(), (p.clone(), found));
                }
            }
        }

        /// As many as there are, each is found, and no other.
        #[test]
        fn the_index_grows(hashes in prop::collection::btree_set(0u64..1 << 40, 0..400), other in any::<u64>()) {
            let mut cache = MetaCache::default();
            for (place, hash) in hashes.iter().enumerate() {
                prop_assert_eq!(cache.place(*hash), None);
                prop_assert_eq!(cache.add(*hash, &[END]), place as u32);
            }
            for (place, hash) in hashes.iter().enumerate() {
                prop_assert_eq!(cache.place(*hash), Some(place as u32));
            }
            prop_assert_eq!(cache.place(other).is_some(), hashes.contains(&other));
        }

        /// Two vehicles with one hash take each other's place, and keep their own names.
        #[test]
        fn hashes_may_meet(turns in prop::collection::vec(0usize..3, 1..20)) {
            let mut cache = MetaCache::default();
            for turn in turns {
                let vehicle = ["a", "b", "c"][turn].to_string();
                let p: Plain = (vehicle, Vec::new(), [const { None }; 4], None);
                let mut key = Keys::default();
                write_key(&candidate(&p), &mut key);
                let place = cache.place(7);
                prop_assert_eq!(&*cache.resolve(7, place, key.range(0, key.len())).meta, &meta(&p));
            }
        }
    }
}
