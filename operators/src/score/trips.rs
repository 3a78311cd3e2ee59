//! Trips with their fleets and scores: facts × vehicles' documents × policies.
//!
//! ```text
//!  facts (+1, -1) ─────┐                                      ┌ open:  as it is (it changes with each harsh sample)
//!  timelines (+1, -1) ─┼─► step ─┬─► scored trips (+1, -1)     └ ended: bytes, until something asks for it
//!  pages (+1, -1) ─────┘    │    └─► sealed trips
//!                           └── keeps the facts, by vehicle, until they are sealed ([`sealing`])
//! ```
//!
//! A vehicle's *timeline* says since when it belongs to which fleet; a fleet's *page* has the policies that may govern
//! its trips. Both change seldom, and then only the trips concerned are read again.
//!
//! Contract: what was said up to an epoch adds up to the scores of all facts that hold, under the timelines and pages
//! that hold (for a sealed fact: that held when it was sealed); whatever the order and the batches in which they came
//! (`tests`: against computing all anew). Millions of trips are in memory for months, and hardly one of them is ever looked
//! at again: 150 bytes each.

mod sealing;

pub(crate) use sealing::line;

use super::rows::{DriverTrip, Scored};
use super::{ResolvedPolicy, score};
use crate::facts::TripFact;
use crate::pack::{add_up, pack, sums, unpack, unpack_front};
use drivetrain_schemas::policy::Status;
use drivetrain_schemas::records::{Change, Records};
use drivetrain_schemas::varint;
use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Since when (µs) a vehicle belongs to which fleet, ascending; None: to that of the record.
pub type Timeline = Vec<(i64, Option<Arc<str>>)>;

/// A policy as seen from a fleet: how far up its scope is ([`EVERYBODY`] without a scope).
pub type Candidate = (u32, Arc<ResolvedPolicy>);

pub const EVERYBODY: u32 = u32::MAX;

/// The policies that may govern the trips of a fleet.
pub type Page = Vec<Candidate>;

/// Pages by fleet. A fleet without a page of its own has that of `None`, which holds for trips without a fleet, too.
#[derive(Clone, Debug, Default)]
struct Book(BTreeMap<Option<Arc<str>>, Page>);

impl Book {
    fn page(&self, fleet: &Option<Arc<str>>) -> &[Candidate] {
        self.0.get(fleet).or_else(|| self.0.get(&None)).map_or(&[], Vec::as_slice)
    }
}

/// The timeline of a vehicle becomes or ceases to be this.
pub type TimelineChange = ((Arc<str>, Timeline), isize);

/// The page of a fleet becomes or ceases to be this.
pub type PageChange = ((Option<Arc<str>>, Page), isize);

/// What happens in an epoch, each with its difference.
#[derive(Debug, Default)]
pub struct Changes {
    pub facts: Vec<(TripFact, isize)>,
    pub timelines: Vec<TimelineChange>,
    pub pages: Vec<PageChange>,
}

/// The trips of a vehicle.
#[derive(Default)]
struct Held {
    open: Vec<Arc<TripFact>>,
    /// Each as varint of its length and its bytes.
    ended: Vec<u8>,
    /// The fleets that the records named, each once.
    stated: SmallVec<[Option<Arc<str>>; 1]>,
    /// A line before which its trips have been sealed, and its whole ones, so that there is nothing to seal up to there;
    /// None: not known.
    sealed: [Option<i64>; 2],
}

/// See the module.
#[derive(Default)]
pub struct Trips {
    vehicles: HashMap<Arc<str>, Held, FixedState>,
    timelines: HashMap<Arc<str>, Timeline, FixedState>,
    book: Book,
    /// The fleets' names, so that vehicles share them.
    fleets: HashSet<Arc<str>, FixedState>,
    /// Changes of facts since the last checkpoint; None: nobody asks.
    changed: Option<Vec<(Arc<TripFact>, isize)>>,
    /// How many those were when they were last added up.
    settled: usize,
    /// How long facts are kept, µs; None: for ever.
    retention: Option<i64>,
}

impl Trips {
    /// `keeps`: checkpoints are taken. `retention`: how long facts are kept, µs, not less than `time.hot_horizon`; None: for
    /// ever.
    pub fn new(keeps: bool, retention: Option<i64>) -> Self {
        Self { changed: keeps.then(Vec::new), retention, ..Self::default() }
    }

    /// Begins with the facts that a checkpoint holds, in blocks. Nothing is said of them: it has been said.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn restore(&mut self, kept: Vec<Records>) -> Result<(), String> {
        self.make_room(&kept)?;
        for record in kept.iter().flat_map(Records::iter) {
            let Change::Add(count) = record.change else { continue };
            let ((_, vehicle, _, fleet, open), _) = unpack_front::<Front<'_>>(record.key)?;
            let fleet = fleet.map(|fleet| self.fleet(fleet));
            let held = held(&mut self.vehicles, vehicle);
            state(held, &fleet);
            for _ in 0..count {
                match open {
                    true => held.open.push(Arc::new(unpack(record.key)?)),
                    false => append(&mut held.ended, record.key),
                }
            }
        }
        Ok(())
    }

    /// As much as the ended trips of each vehicle need: they come in the order of their ids, so that those of all vehicles
    /// would grow side by side, each from one place to a larger one, trip by trip.
    fn make_room(&mut self, kept: &[Records]) -> Result<(), String> {
        let mut bytes: HashMap<&str, usize, FixedState> = HashMap::default();
        for record in kept.iter().flat_map(Records::iter) {
            let ((_, vehicle, _, _, open), _) = unpack_front::<Front<'_>>(record.key)?;
            if let (Change::Add(count @ 1..), false) = (record.change, open) {
                *bytes.entry(vehicle).or_default() += (record.key.len() + LENGTH) * count as usize;
            }
        }
        self.vehicles.reserve(bytes.len());
        for (vehicle, bytes) in bytes {
            held(&mut self.vehicles, vehicle).ended.reserve_exact(bytes);
        }
        Ok(())
    }

    /// The timelines and pages as of the checkpoint. Nothing is said: it has been said.
    pub fn restore_documents(&mut self, changes: Changes) {
        self.take_documents(changes.timelines, changes.pages);
    }

    /// Runs one epoch. Returns what drivers have of the trips that it seals: said before, and never again.
    #[must_use]
    pub fn step(&mut self, changes: Changes, say: &mut dyn FnMut(Scored, isize)) -> Vec<DriverTrip> {
        if !changes.timelines.is_empty() || !changes.pages.is_empty() {
            self.judge_anew(changes.timelines, changes.pages, say);
        }
        // What becomes and ceases to be in one epoch must be there to cease.
        let (new, old): (Vec<_>, Vec<_>) = changes.facts.into_iter().partition(|(_, diff)| *diff > 0);
        let mut completed = Vec::new();
        for (fact, diff) in new.into_iter().chain(old) {
            let fact = Arc::new(fact);
            let timeline = self.timelines.get(&fact.vehicle);
            judge(&fact, timeline, &self.book, &mut |scored| say(scored, diff));
            self.hold(&fact, diff);
            if self.retention.is_some() && diff > 0 && !fact.open {
                completed.push(fact.clone());
            }
            self.change(fact, diff);
        }
        let mut sealed = Vec::new();
        completed.iter().for_each(|fact| self.seal(fact, &mut sealed));
        sealed
    }

    /// Notes a change for the next checkpoint.
    fn change(&mut self, fact: Arc<TripFact>, diff: isize) {
        let Some(changed) = &mut self.changed else { return };
        changed.push((fact, diff));
        // Facts of open trips come and go.
        if changed.len() > 2 * self.settled + 4096 {
            add_up(changed);
            self.settled = changed.len();
        }
    }

    /// Seals what the vehicle of a completed trip has before its line.
    fn seal(&mut self, completed: &TripFact, sealed: &mut Vec<DriverTrip>) {
        let (Some(retention), Some(held)) = (self.retention, self.vehicles.get_mut(&completed.vehicle)) else { return };
        let line = sealing::line(completed.ended_at, retention);
        let sealed_to = &mut held.sealed[usize::from(completed.whole)];
        if sealed_to.is_some_and(|before| line <= before) {
            return;
        }
        *sealed_to = Some(line);
        for fact in sealing::take(&mut held.ended, completed.whole, line) {
            let fact = Arc::new(fact);
            let timeline = self.timelines.get(&fact.vehicle);
            judge(&fact, timeline, &self.book, &mut |scored| sealed.extend(scored.driver_trip()));
            self.change(fact, -1);
        }
    }

    /// Hands over what has changed since the last checkpoint, as sums of [`TripFact`]s.
    pub fn keep(&mut self) -> Records {
        self.settled = 0;
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        sums(changed, |fact, out| pack(&**fact, out))
    }

    fn hold(&mut self, fact: &Arc<TripFact>, diff: isize) {
        let fleet = fact.fleet.as_deref().map(|fleet| self.fleet(fleet));
        let held = held(&mut self.vehicles, &fact.vehicle);
        state(held, &fleet);
        if fact.open {
            (0..diff).for_each(|_| held.open.push(fact.clone()));
            for _ in diff..0 {
                if let Some(i) = held.open.iter().rposition(|other| other == fact) {
                    held.open.swap_remove(i);
                }
            }
            return;
        }
        // Seldom: what was sent whole can come to stand before the line.
        let sealed = &mut held.sealed[usize::from(fact.whole)];
        if diff > 0 && sealed.is_some_and(|line| fact.ended_at < line) {
            *sealed = None;
        }
        let mut bytes = Vec::new();
        pack(&**fact, &mut bytes);
        (0..diff).for_each(|_| append(&mut held.ended, &bytes));
        (diff..0).for_each(|_| remove(&mut held.ended, &bytes));
    }

    fn fleet(&mut self, name: &str) -> Arc<str> {
        self.fleets.get_or_insert_with(name, |name| name.into()).clone()
    }

    /// Takes over documents, and says what that changes of the facts that are there.
    fn judge_anew(
        &mut self,
        timelines: Vec<TimelineChange>,
        pages: Vec<PageChange>,
        say: &mut dyn FnMut(Scored, isize),
    ) {
        let named: BTreeSet<Arc<str>> = timelines.iter().map(|((vehicle, _), _)| vehicle.clone()).collect();
        let before: Vec<(Arc<str>, Option<Timeline>)> =
            named.into_iter().map(|v| (v.clone(), self.timelines.get(&v).cloned())).collect();
        let book = self.book.clone();
        let all = !pages.is_empty();
        self.take_documents(timelines, pages);
        let mut anew = |vehicle: &Arc<str>, held: &Held, then: Option<&Timeline>| {
            let now = self.timelines.get(vehicle);
            each(held, &mut |fact| {
                let (mut said, mut says) = (SmallVec::<[Scored; 2]>::new(), SmallVec::<[Scored; 2]>::new());
                judge(fact, then, &book, &mut |scored| said.push(scored));
                judge(fact, now, &self.book, &mut |scored| says.push(scored));
                if said != says {
                    said.into_iter().for_each(|scored| say(scored, -1));
                    says.into_iter().for_each(|scored| say(scored, 1));
                }
            });
        };
        for (vehicle, then) in &before {
            if let Some(held) = self.vehicles.get(vehicle) {
                anew(vehicle, held, then.as_ref());
            }
        }
        if !all {
            return;
        }
        let mut differs = BTreeMap::new();
        let mut concerns = |fleet: &Option<Arc<str>>| {
            *differs.entry(fleet.clone()).or_insert_with(|| book.page(fleet) != self.book.page(fleet))
        };
        for (vehicle, held) in &self.vehicles {
            let timeline = self.timelines.get(vehicle);
            let done = before.binary_search_by(|(v, _)| v.cmp(vehicle)).is_ok();
            let mut possible = held.stated.iter().chain(timeline.into_iter().flatten().map(|(_, fleet)| fleet));
            if !done && possible.any(&mut concerns) {
                anew(vehicle, held, timeline);
            }
        }
    }

    fn take_documents(&mut self, timelines: Vec<TimelineChange>, pages: Vec<PageChange>) {
        // What ceases goes first, and only if it is what stands there.
        let (new, old): (Vec<_>, Vec<_>) = timelines.into_iter().partition(|(_, diff)| *diff > 0);
        for ((vehicle, timeline), _) in old {
            if self.timelines.get(&vehicle) == Some(&timeline) {
                self.timelines.remove(&vehicle);
            }
        }
        self.timelines.extend(new.into_iter().map(|(timeline, _)| timeline));
        let (new, old): (Vec<_>, Vec<_>) = pages.into_iter().partition(|(_, diff)| *diff > 0);
        for ((fleet, page), _) in old {
            if self.book.0.get(&fleet) == Some(&page) {
                self.book.0.remove(&fleet);
            }
        }
        self.book.0.extend(new.into_iter().map(|(page, _)| page));
    }
}

/// The vehicle of a fact as a checkpoint holds it.
///
/// # Errors
/// When it is none.
pub fn vehicle_of(row: &[u8]) -> Result<&str, String> {
    unpack_front::<Front<'_>>(row).map(|((_, vehicle, ..), _)| vehicle)
}

/// The first fields of a [`TripFact`], in their order: id, vehicle, driver, fleet, open.
type Front<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, bool);

fn held<'a>(vehicles: &'a mut HashMap<Arc<str>, Held, FixedState>, vehicle: &str) -> &'a mut Held {
    vehicles.entry_ref(vehicle).or_default()
}

fn state(held: &mut Held, fleet: &Option<Arc<str>>) {
    if !held.stated.contains(fleet) {
        held.stated.push(fleet.clone());
    }
}

/// Bytes of a fact's length at most: below 16 KB.
const LENGTH: usize = 2;

fn append(ended: &mut Vec<u8>, fact: &[u8]) {
    // Doubling would leave half of it unused for good.
    if ended.capacity() < ended.len() + fact.len() + LENGTH {
        ended.reserve_exact(fact.len() + LENGTH + ended.len() / 8);
    }
    varint::put(ended, fact.len() as u64);
    ended.extend_from_slice(fact);
}

fn remove(ended: &mut Vec<u8>, fact: &[u8]) {
    let found = packed(ended).find(|(_, bytes)| *bytes == fact);
    if let Some((place, _)) = found {
        ended.drain(place);
    }
}

/// The ended facts of a vehicle as they are packed, each with the place that it takes with its length.
fn packed(ended: &[u8]) -> impl Iterator<Item = (Range<usize>, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let mut rest = ended.get(start..).filter(|rest| !rest.is_empty())?;
        let length = varint::take(&mut rest) as usize;
        let fact = rest.get(..length)?;
        let place = start..ended.len() - rest.len() + length;
        start = place.end;
        Some((place, fact))
    })
}

/// Every fact of a vehicle.
fn each(held: &Held, f: &mut dyn FnMut(&Arc<TripFact>)) {
    held.open.iter().for_each(&mut *f);
    // They were packed here, or read when they were restored.
    packed(&held.ended).filter_map(|(_, bytes)| unpack(bytes).ok()).for_each(|fact| f(&Arc::new(fact)));
}

/// The fleet of the last entry at or before the start; without one, or where it names none, the record's.
pub fn resolve(timeline: &[(i64, Option<Arc<str>>)], started_at: i64, stated: &Option<Arc<str>>) -> Option<Arc<str>> {
    let entry = timeline.iter().rev().find(|(from, _)| *from <= started_at);
    entry.and_then(|(_, fleet)| fleet.clone()).or_else(|| stated.clone())
}

/// The score under the nearest active policy that is valid at the trip's start (ties: the latest valid_from, the highest
/// version, the smallest id), and under each shadow policy's nearest version likewise.
fn judge(fact: &Arc<TripFact>, timeline: Option<&Timeline>, book: &Book, say: &mut dyn FnMut(Scored)) {
    let fleet = resolve(timeline.map_or(&[], Vec::as_slice), fact.started_at, &fact.fleet);
    let page = book.page(&fleet);
    let rank = |c: &&Candidate| (c.0, Reverse(c.1.valid_from), Reverse(c.1.version), c.1.policy_id.clone());
    let valid = |c: &&Candidate| c.1.valid_from <= fact.started_at && fact.started_at < c.1.valid_to;
    let scored = |policy: &Arc<ResolvedPolicy>| Scored {
        fact: fact.clone(),
        fleet: fleet.clone(),
        score: Some((policy.clone(), score(policy, fact))),
    };
    let active = page.iter().filter(|c| c.1.status == Status::Active).filter(valid).min_by_key(rank);
    match active {
        Some((_, policy)) => say(scored(policy)),
        None => say(Scored { fact: fact.clone(), fleet: fleet.clone(), score: None }),
    }
    let mut shadows: Vec<_> = page.iter().filter(|c| c.1.status == Status::Shadow).filter(valid).collect();
    shadows.sort_by_key(|c| (c.1.policy_id.clone(), rank(c)));
    shadows.dedup_by_key(|c| c.1.policy_id.clone());
    shadows.into_iter().for_each(|(_, policy)| say(scored(policy)));
}

#[cfg(test)]
mod tests;
