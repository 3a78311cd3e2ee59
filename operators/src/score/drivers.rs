//! Driver scores over the rolling horizon, and which trips count in them.
//!
//! ```text
//!  completed trips (+1, -1) ─► step ─┬─► rows       of driver_scores
//!                               │    ├─► counted    what counts in fleets, by fleet, vehicle and driver
//!                               │    └─► standings  the live score, in its fleet
//!                               └── keeps the trips of each driver, in their order: bytes, read when one changes
//! ```
//!
//! Contract: what was said up to an epoch adds up to what follows from the trips that hold as a set, whatever the order
//! and the batches in which they came (`tests`: against computing all anew). A trip is forgotten when nothing can depend on
//! it any more: it is sealed, and so is a trip of the driver that is newer by more than the horizon.

use super::rows::{Counted, DriverRow, DriverTrip, Standing, Totals};
use super::{ResolvedPolicy, driver_score};
use crate::pack::{pack, sums, unpack, unpack_front};
use drivetrain_schemas::key::hash128;
use drivetrain_schemas::policy::Status;
use drivetrain_schemas::records::{Change, Records};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

/// What is said of drivers, with differences.
#[derive(Debug, Default)]
pub struct Said {
    pub rows: Vec<(DriverRow, isize)>,
    pub counted: Vec<(Counted, isize)>,
    pub standings: Vec<(Standing, isize)>,
}

/// A completed trip of a driver, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry<'a> {
    ended_at: i64,
    #[serde(borrow)]
    trip_id: &'a str,
    #[serde(borrow)]
    vehicle: &'a str,
    /// Numbers in [`Names`].
    fleet: u32,
    policy: u32,
    totals: Totals,
    /// How many there are that are the same; not 0.
    count: i64,
    /// So many of them are sealed.
    sealed: i64,
}

/// A row of a checkpoint behind its kind.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    #[serde(borrow)]
    driver: &'a str,
    ended_at: i64,
    #[serde(borrow)]
    trip_id: &'a str,
    #[serde(borrow)]
    vehicle: &'a str,
    #[serde(borrow)]
    fleet: Option<&'a str>,
    /// Hash of the packed policy, which is a row of its own.
    policy: u128,
    totals: Totals,
    sealed: bool,
}

/// Kinds of rows of a checkpoint.
const POLICY: u8 = 0;
const TRIP: u8 = 1;

/// Values by number, in the order in which they came.
struct Numbered<T> {
    values: Vec<T>,
    numbers: HashMap<T, u32, FixedState>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { values: Vec::new(), numbers: HashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn number(&mut self, value: &T) -> u32 {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), number);
        number
    }
}

/// What entries name by number.
#[derive(Default)]
struct Names {
    fleets: Numbered<Option<Arc<str>>>,
    policies: Numbered<Arc<ResolvedPolicy>>,
    /// By number: hash of the policy, once a checkpoint knows it.
    hashes: Vec<u128>,
}

impl Names {
    fn fleet(&self, number: u32) -> &Option<Arc<str>> {
        &self.fleets.values[number as usize]
    }

    fn policy(&self, number: u32) -> &Arc<ResolvedPolicy> {
        &self.policies.values[number as usize]
    }

    /// The order of trips: the newest of a driver is the last. By content, never by number.
    fn order(&self, a: &Entry<'_>, b: &Entry<'_>) -> Ordering {
        let first = (a.ended_at, a.trip_id, a.vehicle).cmp(&(b.ended_at, b.trip_id, b.vehicle));
        let fleets = || if a.fleet == b.fleet { Ordering::Equal } else { self.fleet(a.fleet).cmp(self.fleet(b.fleet)) };
        let policies =
            || if a.policy == b.policy { Ordering::Equal } else { self.policy(a.policy).cmp(self.policy(b.policy)) };
        first.then_with(fleets).then_with(policies).then_with(|| a.totals.cmp(&b.totals))
    }
}

/// See the module.
#[derive(Default)]
pub struct Drivers {
    /// Packed entries in their order.
    drivers: HashMap<Arc<str>, Box<[u8]>, FixedState>,
    names: Names,
    /// Packed rows that have changed since the last checkpoint; None: nobody asks.
    changed: Option<Vec<(Vec<u8>, isize)>>,
}

impl Drivers {
    /// `keeps`: checkpoints are taken.
    pub fn new(keeps: bool) -> Self {
        Self { changed: keeps.then(Vec::new), ..Self::default() }
    }

    /// Begins with what a checkpoint holds, in blocks.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn restore(&mut self, kept: Vec<Records>) -> Result<(), String> {
        let mut policies = HashMap::new();
        kept.into_iter().try_for_each(|block| self.restore_block(&block, &mut policies))
    }

    /// `policies`: their numbers by hash, of this block and those before.
    fn restore_block(&mut self, kept: &Records, policies: &mut HashMap<u128, u32>) -> Result<(), String> {
        // In the order of bytes: policies come first, and the trips of a driver together.
        let (mut driver, mut trips) = ("", Vec::new());
        // That of the trip before, which is most often that of this one.
        let mut fleet: Option<(Option<&str>, u32)> = None;
        for record in kept.iter() {
            let Change::Add(count) = record.change else { continue };
            let Some((kind, row)) = record.key.split_first() else { return Err("an empty row".into()) };
            if *kind == POLICY {
                let policy: Arc<ResolvedPolicy> = unpack(row)?;
                policies.insert(hash128(row), self.policy(&policy, Some(hash128(row))));
                continue;
            }
            let kept: Kept<'_> = unpack(row)?;
            let policy = *policies.get(&kept.policy).ok_or("a trip's policy is missing")?;
            let number = match fleet {
                Some((name, number)) if name == kept.fleet => number,
                _ => self.names.fleets.number(&kept.fleet.map(Into::into)),
            };
            fleet = Some((kept.fleet, number));
            if kept.driver != driver {
                self.restore_driver(driver, std::mem::take(&mut trips));
                driver = kept.driver;
            }
            let Kept { ended_at, trip_id, vehicle, totals, sealed, .. } = kept;
            let sealed = if sealed { count } else { 0 };
            trips.push(Entry { ended_at, trip_id, vehicle, fleet: number, policy, totals, count, sealed });
        }
        self.restore_driver(driver, trips);
        Ok(())
    }

    fn restore_driver(&mut self, driver: &str, more: Vec<Entry<'_>>) {
        if more.is_empty() {
            return;
        }
        let before = self.drivers.remove(driver).unwrap_or_default();
        let mut trips = entries(&before);
        trips.extend(more);
        trips.sort_by(|a, b| self.names.order(a, b));
        // Of the same ones some may be sealed, some not.
        trips.dedup_by(|next, first| {
            let same = self.names.order(next, first).is_eq();
            if same {
                first.count += next.count;
                first.sealed += next.sealed;
            }
            same
        });
        self.drivers.insert(driver.into(), packed(&trips));
    }

    /// What has been said and holds, but for rows: for those whose own state is not kept.
    pub fn recall(&self, say: &mut dyn FnMut(Option<Counted>, Option<Standing>)) {
        for (driver, bytes) in &self.drivers {
            let Judged { counted, standing, .. } = judge(&self.names, driver, &entries(bytes));
            counted.into_iter().for_each(|counted| say(Some(counted), None));
            standing.into_iter().for_each(|standing| say(None, Some(standing)));
        }
    }

    /// Runs one epoch.
    pub fn step(&mut self, mut changes: Vec<(DriverTrip, isize)>) -> Said {
        changes.sort_unstable();
        let mut said = Said::default();
        for changes in changes.chunk_by(|a, b| a.0.driver == b.0.driver) {
            let Some((first, _)) = changes.first() else { continue };
            let before = self.drivers.remove(&first.driver).unwrap_or_default();
            let then = entries(&before);
            let mut now = then.clone();
            for (trip, diff) in changes {
                self.apply(&mut now, trip, *diff);
            }
            // Sealing changes nothing of what is said.
            if then.len() != now.len() || then.iter().zip(&now).any(|(a, b)| self.names.order(a, b).is_ne()) {
                let (then, says) = (judge(&self.names, &first.driver, &then), judge(&self.names, &first.driver, &now));
                said.change(then, says);
            }
            self.forget(&first.driver, &mut now);
            if !now.is_empty() {
                let bytes = packed(&now);
                self.drivers.insert(first.driver.clone(), bytes);
            }
        }
        said
    }

    fn apply<'a>(&mut self, entries: &mut Vec<Entry<'a>>, trip: &'a DriverTrip, diff: isize) {
        let policy = self.policy(&trip.policy, None);
        let fleet = self.names.fleets.number(&trip.fleet);
        let entry = Entry {
            ended_at: trip.ended_at,
            trip_id: &trip.trip_id,
            vehicle: &trip.vehicle,
            fleet,
            policy,
            totals: trip.totals.clone(),
            count: diff as i64,
            sealed: if trip.sealed { diff as i64 } else { 0 },
        };
        match entries.binary_search_by(|other| self.names.order(other, &entry)) {
            Ok(i) => {
                entries[i].count += entry.count;
                entries[i].sealed += entry.sealed;
                if entries[i].count == 0 {
                    entries.remove(i);
                }
            }
            Err(i) => entries.insert(i, entry),
        }
        if let Some(changed) = &mut self.changed {
            let hash = self.names.hashes[policy as usize];
            changed.push((row(&kept(trip, hash)), diff));
        }
    }

    /// Forgets the sealed trips that count for nothing any more: a trip that stays for good is newer by more than their
    /// horizon. `trips` in their order.
    fn forget(&mut self, driver: &str, trips: &mut Vec<Entry<'_>>) {
        let (names, changed, hashes) = (&self.names, &mut self.changed, &self.names.hashes);
        let stays = |t: &&Entry<'_>| t.sealed > 0 && names.policy(t.policy).status == Status::Active;
        let Some(newest) = trips.iter().rev().find(stays).map(|t| t.ended_at) else { return };
        trips.retain(|t| {
            let oldest = newest.saturating_sub(names.policy(t.policy).driver.horizon);
            let needed = t.sealed < t.count || t.ended_at > oldest || t.ended_at == newest;
            if let (Some(changed), false) = (changed.as_mut(), needed) {
                let (fleet, policy) = (names.fleet(t.fleet).as_deref(), hashes[t.policy as usize]);
                let Entry { ended_at, trip_id, vehicle, ref totals, .. } = *t;
                let totals = totals.clone();
                let kept = Kept { driver, ended_at, trip_id, vehicle, fleet, policy, totals, sealed: true };
                changed.push((row(&kept), -t.count as isize));
            }
            needed
        });
    }

    /// A policy's number. `hash`: of one that the checkpoint knows; others go into the next one.
    fn policy(&mut self, policy: &Arc<ResolvedPolicy>, hash: Option<u128>) -> u32 {
        let number = self.names.policies.number(policy);
        if self.names.hashes.len() <= number as usize {
            let mut row = vec![POLICY];
            pack(&**policy, &mut row);
            self.names.hashes.push(hash.unwrap_or_else(|| hash128(&row[1..])));
            if let (Some(changed), None) = (&mut self.changed, hash) {
                changed.push((row, 1));
            }
        }
        number
    }

    /// Hands over what has changed since the last checkpoint.
    pub fn keep(&mut self) -> Records {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        sums(changed, |row, out| out.extend_from_slice(row))
    }
}

/// The driver of a row as a checkpoint holds it; None: a row that is common to all.
///
/// # Errors
/// When it is none.
pub fn driver_of(row: &[u8]) -> Result<Option<&str>, String> {
    match row.split_first() {
        Some((&TRIP, row)) => unpack_front::<&str>(row).map(|(driver, _)| Some(driver)),
        Some(_) => Ok(None),
        None => Err("an empty row".into()),
    }
}

fn kept(trip: &DriverTrip, policy: u128) -> Kept<'_> {
    Kept {
        driver: &trip.driver,
        ended_at: trip.ended_at,
        trip_id: &trip.trip_id,
        vehicle: &trip.vehicle,
        fleet: trip.fleet.as_deref(),
        policy,
        totals: trip.totals.clone(),
        sealed: trip.sealed,
    }
}

/// A trip as a row of a checkpoint.
fn row(kept: &Kept<'_>) -> Vec<u8> {
    let mut row = vec![TRIP];
    pack(kept, &mut row);
    row
}

fn packed(entries: &[Entry<'_>]) -> Box<[u8]> {
    let mut bytes = Vec::with_capacity(entries.len() * 128);
    entries.iter().for_each(|entry| pack(entry, &mut bytes));
    bytes.into_boxed_slice()
}

fn entries(mut bytes: &[u8]) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    // They were packed here.
    while let (false, Ok((entry, rest))) = (bytes.is_empty(), unpack_front(bytes)) {
        entries.push(entry);
        bytes = rest;
    }
    entries
}

/// What follows from the trips of a driver.
#[derive(Default)]
struct Judged {
    /// By policy.
    rows: BTreeMap<Arc<str>, DriverRow>,
    counted: Vec<Counted>,
    standing: Option<Standing>,
}

/// `trips` in their order.
fn judge(names: &Names, driver: &Arc<str>, trips: &[Entry<'_>]) -> Judged {
    let is_active = |t: &Entry<'_>| names.policy(t.policy).status == Status::Active;
    let Some(newest) = trips.iter().rev().find(|t| is_active(t)).or(trips.last()) else { return Judged::default() };
    // By policy (whatever its version): the sums, and the newest trip, whose version's rule of the driver holds.
    let mut policies: BTreeMap<&Arc<str>, (Totals, &Entry<'_>)> = BTreeMap::new();
    let mut counted: BTreeMap<(&Arc<str>, &str), Totals> = BTreeMap::new();
    for trip in trips {
        let policy = names.policy(trip.policy);
        if trip.ended_at <= newest.ended_at.saturating_sub(policy.driver.horizon) {
            continue;
        }
        let entry = policies.entry(&policy.policy_id).or_insert_with(|| (Totals::default(), trip));
        entry.0.add(&trip.totals, 1);
        entry.1 = trip;
        if let (true, Some(fleet)) = (is_active(trip), names.fleet(trip.fleet)) {
            counted.entry((fleet, trip.vehicle)).or_default().add(&trip.totals, 1);
        }
    }
    let live = &names.policy(newest.policy).policy_id;
    let rows: BTreeMap<Arc<str>, DriverRow> = policies
        .into_iter()
        .map(|(id, (totals, last))| {
            let policy = names.policy(last.policy);
            let score = driver_score(policy, totals.weighted, totals.exposure);
            let row = DriverRow {
                driver: driver.clone(),
                policy: policy.clone(),
                score,
                band: score.and_then(|s| policy.driver.band(s)),
                totals,
                fleet: names.fleet(newest.fleet).clone(),
                newest: id == live,
            };
            (id.clone(), row)
        })
        .collect();
    let score = rows.get(live).and_then(|row| row.fleet.clone().zip(row.score));
    let standing = score.map(|(fleet, score)| Standing { fleet, score, driver: driver.clone() });
    let counted = counted.into_iter().map(|((fleet, vehicle), totals)| Counted {
        fleet: fleet.clone(),
        vehicle: vehicle.into(),
        driver: driver.clone(),
        totals,
    });
    Judged { counted: counted.collect(), rows, standing }
}

impl Said {
    /// Takes one back and says the other, but for what is in both.
    fn change(&mut self, then: Judged, now: Judged) {
        for (id, row) in &then.rows {
            if now.rows.get(id) != Some(row) {
                self.rows.push((row.clone(), -1));
            }
        }
        for (id, row) in now.rows {
            if then.rows.get(&id) != Some(&row) {
                self.rows.push((row, 1));
            }
        }
        // Both are in the order of their contents.
        let both = |counted: &Counted, others: &[Counted]| others.binary_search(counted).is_ok();
        let gone = then.counted.iter().filter(|counted| !both(counted, &now.counted));
        self.counted.extend(gone.map(|counted| (counted.clone(), -1)));
        let new = now.counted.iter().filter(|counted| !both(counted, &then.counted));
        self.counted.extend(new.map(|counted| (counted.clone(), 1)));
        if then.standing != now.standing {
            self.standings.extend(then.standing.map(|standing| (standing, -1)));
            self.standings.extend(now.standing.map(|standing| (standing, 1)));
        }
    }
}

#[cfg(test)]
mod tests;
