//! The circumstances of readings, interned: consecutive readings of a vehicle share one [`Meta`].

use crate::reading::{Interned, Meta};
use hashbrown::HashTable;
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
struct Held {
    hash: u64,
    meta: Arc<Meta>,
    /// [`write_key`] of them: what is compared with the next reading lies in one place, not in a string each, and mostly
    /// right here. Tables of vehicles are larger than caches: each place is a wait.
    key: SmallVec<[u8; 64]>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct MetaCache {
    table: HashTable<Held>,
    key: Vec<u8>,
}

impl MetaCache {
    /// The shared form of `c`: the vehicle's last one when nothing has changed, else a new one that shares its parts.
    #[inline]
    pub(crate) fn intern(&mut self, c: &Candidate<'_>) -> Interned<'_> {
        let hash = crate::key::hash(&c.vehicle);
        if self.table.len() >= MAX_VEHICLES {
            self.table.clear();
        }
        let key = &mut self.key;
        let vehicle = write_key(c, key);
        let of_vehicle = |held: &Held| held.hash == hash && held.key.get(..vehicle) == Some(&key[..vehicle]);
        match self.table.entry(hash, of_vehicle, |held| held.hash) {
            hashbrown::hash_table::Entry::Occupied(found) => {
                let held = found.into_mut();
                if *held.key != **key {
                    held.meta = Arc::new(renewed(&held.meta, c));
                    held.key = SmallVec::from_slice(key);
                }
                Interned { meta: &held.meta, hash }
            }
            hashbrown::hash_table::Entry::Vacant(empty) => {
                let held = Held { hash, meta: Arc::new(fresh(c)), key: SmallVec::from_slice(key) };
                Interned { meta: &empty.insert(held).into_mut().meta, hash }
            }
        }
    }
}

/// Ends a text, and stands for none: neither is in UTF-8.
const END: u8 = 0xff;
const NONE: u8 = 0xfe;

/// Equal for equal circumstances, and for no others. Returns how many bytes tell the vehicle.
#[inline]
fn write_key(c: &Candidate<'_>, key: &mut Vec<u8>) -> usize {
    key.clear();
    key.extend_from_slice(c.vehicle.as_bytes());
    key.push(END);
    let vehicle = key.len();
    for text in [c.driver.as_deref(), c.trip.as_deref(), c.fleet.as_deref(), c.quality.as_deref(), c.tags] {
        match text {
            Some(text) => key.extend_from_slice(text.as_bytes()),
            None => key.push(NONE),
        }
        key.push(END);
    }
    for (signal, text) in &c.texts {
        key.extend_from_slice(&signal.to_le_bytes());
        key.extend_from_slice(text.as_bytes());
        key.push(END);
    }
    vehicle
}

fn fresh(c: &Candidate<'_>) -> Meta {
    let owned = |v: &Option<Cow<'_, str>>| v.as_deref().map(Arc::from);
    Meta {
        vehicle: Arc::from(&*c.vehicle),
        texts: texts(&c.texts),
        driver: owned(&c.driver),
        trip: owned(&c.trip),
        fleet: owned(&c.fleet),
        quality: owned(&c.quality),
        tags: c.tags.map(Arc::from),
    }
}

fn renewed(m: &Meta, c: &Candidate<'_>) -> Meta {
    let keep = |old: &Option<Arc<str>>, new: Option<&str>| match (old, new) {
        (Some(old), Some(new)) if **old == *new => Some(old.clone()),
        (_, new) => new.map(Arc::from),
    };
    Meta {
        vehicle: m.vehicle.clone(),
        texts: texts(&c.texts),
        driver: keep(&m.driver, c.driver.as_deref()),
        trip: keep(&m.trip, c.trip.as_deref()),
        fleet: keep(&m.fleet, c.fleet.as_deref()),
        quality: keep(&m.quality, c.quality.as_deref()),
        tags: keep(&m.tags, c.tags),
    }
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

    proptest! {
        /// What comes out is what went in, and it is the vehicle's last one whenever nothing has changed.
        #[test]
        fn circumstances_are_shared_and_never_mixed(all in prop::collection::vec(plain(), 1..40)) {
            let mut cache = MetaCache::default();
            let mut last = std::collections::BTreeMap::<String, (Plain, Arc<Meta>)>::new();
            for p in all {
                let meta = cache.intern(&candidate(&p)).meta.clone();
                prop_assert_eq!(&*meta, &fresh(&candidate(&p)));
                if let Some((before, held)) = last.get(&p.0) {
                    prop_assert_eq!(*before == p, Arc::ptr_eq(held, &meta));
                }
                last.insert(p.0.clone(), (p, meta));
            }
        }
    }
}
