//! The circumstances of readings, interned: consecutive readings of a vehicle share one [`Meta`].

use crate::reading::Meta;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::hash::BuildHasher;
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

#[derive(Clone, Debug, Default)]
pub(crate) struct MetaCache {
    table: HashTable<Arc<Meta>>,
    hasher: FixedState,
}

impl MetaCache {
    /// The shared form of `c`: the vehicle's last one when nothing has changed, else a new one that shares its parts.
    #[inline]
    pub(crate) fn intern(&mut self, c: &Candidate<'_>) -> &Arc<Meta> {
        let hasher = &self.hasher;
        let hash = hasher.hash_one(&*c.vehicle);
        if self.table.len() >= MAX_VEHICLES {
            self.table.clear();
        }
        let entry = self.table.entry(hash, |m| *m.vehicle == *c.vehicle, |m| hasher.hash_one(&*m.vehicle));
        match entry {
            hashbrown::hash_table::Entry::Occupied(found) => {
                let last = found.into_mut();
                if !same(last, c) {
                    *last = Arc::new(renewed(last, c));
                }
                last
            }
            hashbrown::hash_table::Entry::Vacant(empty) => empty.insert(Arc::new(fresh(c))).into_mut(),
        }
    }
}

#[inline]
fn same(m: &Meta, c: &Candidate<'_>) -> bool {
    m.driver.as_deref() == c.driver.as_deref()
        && m.trip.as_deref() == c.trip.as_deref()
        && m.fleet.as_deref() == c.fleet.as_deref()
        && m.quality.as_deref() == c.quality.as_deref()
        && m.tags.as_deref() == c.tags
        && m.texts.len() == c.texts.len()
        && m.texts.iter().zip(&c.texts).all(|((i, a), (j, b))| i == j && **a == **b)
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
