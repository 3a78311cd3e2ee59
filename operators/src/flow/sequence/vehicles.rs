//! All vehicles of a worker: who is due, whose turn it is, and what a checkpoint holds of them.

use super::handover::{Hand, Keeping};
use super::slot::{Header, Held, Slot};
use super::turns::{NONE, Turns};
use super::{Mark, Results, StateOptions};
use crate::config::KernelConfig;
use crate::facts::{Change, TripFact, VehicleFact};
use crate::flow::Time;
use crate::pack::{pack, unpack, unpack_front};
use crate::sequence::{Outcome, Packed, VehicleState, split_key};
use drivetrain_schemas::key::{self, spread};
use drivetrain_schemas::prefetch::prefetch;
use drivetrain_schemas::reading::{Meta, Origin, ReadingBatch};
use drivetrain_schemas::records::{self, Records};
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

/// Facts from which on the rest of the vehicles wait, at the end of the input.
const SLICE: usize = 1 << 13;

/// What an epoch came to.
pub(super) struct Said {
    pub(super) results: Results,
    pub(super) trips: Vec<Change<TripFact>>,
    /// More is to be said of this epoch: [`Vehicles::go_on`].
    pub(super) more: bool,
}

/// The end of the input, as far as it has come.
struct Ending {
    epoch: Time,
    /// The vehicles before this one have said everything.
    place: usize,
    wall: i64,
    flagged: bool,
}

/// What is known beside the vehicles, the same on every worker; its key is empty.
#[derive(Serialize, Deserialize)]
struct Common {
    clocks: BTreeMap<Arc<Origin>, i64>,
    last_flush: i64,
}

/// See the module.
pub(super) struct Vehicles {
    config: Arc<KernelConfig>,
    options: StateOptions,
    /// Hash of each vehicle and its place in `slots`.
    index: HashTable<(u64, u32)>,
    slots: Vec<Slot>,
    clocks: BTreeMap<Arc<Origin>, i64>,
    idle: BTreeSet<Arc<Origin>>,
    /// (deadline in event time, vehicle): who might have something to close by silence.
    deadlines: BinaryHeap<Reverse<(i64, u32)>>,
    /// (wall time, vehicle): past its deadline, but heard of too recently.
    unquiet: BinaryHeap<Reverse<(i64, u32)>>,
    dirty: Vec<u32>,
    keeping: Keeping,
    last_flush: i64,
    turns: Turns,
    ending: Option<Ending>,
}

impl Vehicles {
    /// `keeps`: checkpoints are taken.
    pub(super) fn new(config: Arc<KernelConfig>, options: StateOptions, keeps: bool) -> Self {
        Self {
            config,
            options,
            index: HashTable::new(),
            slots: Vec::new(),
            clocks: BTreeMap::new(),
            idle: BTreeSet::new(),
            deadlines: BinaryHeap::new(),
            unquiet: BinaryHeap::new(),
            dirty: Vec::new(),
            keeping: Keeping::new(keeps),
            last_flush: i64::MIN,
            turns: Turns::default(),
            ending: None,
        }
    }

    /// Begins with what a checkpoint holds of this worker's vehicles, and of what is common.
    /// A vehicle's records stay where they are until it is heard of, and a block until that is so of all in it.
    pub(super) fn restore(&mut self, kept: Vec<Records>) {
        for block in kept {
            let block = Arc::new(block);
            for (place, record) in block.iter().enumerate() {
                let records::Change::Put(value) = record.change else { continue };
                let restored = if record.key.is_empty() {
                    self.restore_common(value)
                } else {
                    self.restore_vehicle(record.key, value, (&block, place as u32))
                };
                if let Err(problem) = restored {
                    let vehicle = String::from_utf8_lossy(record.key);
                    self.keeping.problem =
                        Some(format!("the checkpoint's state of vehicle {vehicle:?} cannot be read: {problem}"));
                }
            }
        }
    }

    fn restore_common(&mut self, value: &[u8]) -> Result<(), String> {
        let Common { clocks, last_flush } = unpack(value)?;
        (self.clocks, self.last_flush) = (clocks, last_flush);
        Ok(())
    }

    /// `at`: the record's block, and its place in it.
    fn restore_vehicle(&mut self, record: &[u8], value: &[u8], at: (&Arc<Records>, u32)) -> Result<(), String> {
        let (vehicle, suffix) = split_key(record).ok_or("its key is not UTF-8")?;
        let hash = key::hash(vehicle);
        if !suffix.is_empty() {
            // The vehicle's own key came before, most often just before.
            let place = match self.slots.last() {
                Some(slot) if *slot.vehicle == *vehicle => Some(self.slots.len() as u32 - 1),
                _ => self.find(hash, |slot| *slot.vehicle == *vehicle),
            };
            let slot = place.and_then(|place| self.slots.get_mut(place as usize));
            let Some(Slot { held: Held::Packed(packed), .. }) = slot else { return Err("it has no head".into()) };
            packed.push(at);
            return Ok(());
        }
        let (header, state) = unpack_front::<Header>(value)?;
        let packed = Packed::new(at, value.len() - state.len());
        let mut slot = Slot::new(vehicle.into(), Held::Packed(packed));
        (slot.heard, slot.deadline, slot.dirty) = (header.heard, header.deadline, header.dirty);
        slot.scheduled = header.deadline.unwrap_or(slot.scheduled);
        let place = self.add(hash, slot);
        if header.dirty {
            self.dirty.push(place);
        }
        self.deadlines.extend(header.deadline.map(|deadline| Reverse((deadline, place))));
        Ok(())
    }

    /// Begins to hand over what has changed since the last checkpoint.
    fn begin_handover(&mut self, epoch: Time, hand: Hand<'_>) {
        let common = Common { clocks: self.clocks.clone(), last_flush: self.last_flush };
        self.keeping.begin(epoch, &mut self.slots, |out| pack(&common, out), hand);
    }

    /// Hands over some more; true: there is more.
    pub(super) fn hand_over(&mut self, hand: Hand<'_>) -> bool {
        self.keeping.hand_over(&mut self.slots, hand)
    }

    pub(super) fn hand_over_all(&mut self, hand: Hand<'_>) {
        self.keeping.hand_over_all(&mut self.slots, hand);
    }

    /// Runs one complete epoch; when it is a checkpoint, `hand` begins to get what has changed.
    pub(super) fn run(&mut self, epoch: Time, batches: Vec<ReadingBatch>, marks: Vec<Mark>, hand: Hand<'_>) -> Said {
        let (mut wall, mut flush, mut end, mut flagged) = (0, false, false, false);
        for mark in marks {
            match mark {
                Mark::Clock { partition, clock } => {
                    let held = self.clocks.entry(partition).or_insert(clock);
                    *held = (*held).max(clock);
                }
                Mark::Epoch { wall: w, idle, flush: f, end: e, checkpoint } => {
                    (wall, flush, end, flagged) = (w, f, e, checkpoint);
                    self.idle = idle.into_iter().collect();
                }
            }
        }
        let mut outcome = Outcome::default();
        let mut batches = batches;
        self.readings(&mut batches, wall, &mut outcome);
        if end {
            self.ending = Some(Ending { epoch, place: 0, wall, flagged });
            return self.finish(batches, outcome, hand);
        }
        if let Some(watermark) = self.watermark() {
            self.silence(watermark, wall, &mut outcome);
        }
        let states = self.states(wall, flush);
        if flagged {
            self.begin_handover(epoch, hand);
        }
        self.said(batches, outcome, states)
    }

    /// Says more of the epoch that was not done.
    pub(super) fn go_on(&mut self, hand: Hand<'_>) -> Said {
        self.finish(Vec::new(), Outcome::default(), hand)
    }

    /// Closes what is open of some more vehicles: all at once would be more facts than there are at any other time.
    fn finish(&mut self, batches: Vec<ReadingBatch>, mut outcome: Outcome, hand: Hand<'_>) -> Said {
        let Some(Ending { epoch, mut place, wall, flagged }) = self.ending.take() else {
            return self.said(batches, outcome, Vec::new());
        };
        while let Some(slot) = self.slots.get_mut(place)
            && outcome.facts.windows.len() + outcome.quality.len() < SLICE
        {
            if let Some(state) = self.keeping.change(slot, place as u32) {
                state.finish(&self.config, &mut outcome);
                slot.deadline = None;
            }
            place += 1;
        }
        if place < self.slots.len() {
            self.ending = Some(Ending { epoch, place, wall, flagged });
            return Said { more: true, ..self.said(batches, outcome, Vec::new()) };
        }
        let states = self.states(wall, true);
        if flagged {
            self.begin_handover(epoch, hand);
        }
        self.said(batches, outcome, states)
    }

    /// The global watermark: the minimum over the partitions that are not idle, the maximum when all are.
    fn watermark(&self) -> Option<i64> {
        let busy = self.clocks.iter().filter(|(partition, _)| !self.idle.contains(*partition)).map(|(_, clock)| *clock);
        let clock = busy.min().or_else(|| self.clocks.values().copied().max())?;
        Some(clock.saturating_sub(self.config.time.out_of_orderness))
    }

    fn readings(&mut self, batches: &mut [ReadingBatch], wall: i64, outcome: &mut Outcome) {
        let mut turns = std::mem::take(&mut self.turns);
        for (b, batch) in batches.iter_mut().enumerate() {
            self.turns_of(batch, &mut turns);
            for (row, head) in batch.heads.iter().enumerate() {
                turns.add(turns.of[head.meta as usize], (head.at, b as u32, row as u32));
            }
        }
        turns.sort();
        let mut incoming = Vec::new();
        for turn in 0..turns.vehicles.len() {
            let vehicle = turns.vehicles[turn];
            self.ask(&turns, turn);
            turns.ask(turn + 1, batches);
            turns.take(turn, &mut incoming);
            let slot = &mut self.slots[vehicle as usize];
            slot.turn = NONE;
            let Some(state) = self.keeping.change(slot, vehicle) else { continue };
            state.apply(&self.config, batches, &mut incoming, outcome);
            slot.deadline = state.deadline();
            slot.heard = wall;
            if !std::mem::replace(&mut slot.dirty, true) {
                self.dirty.push(vehicle);
            }
            slot.schedule(vehicle, &mut self.deadlines);
        }
        turns.clear();
        self.turns = turns;
    }

    /// Asks for the states of the vehicles whose turns come next, of each for what is behind what was asked for before.
    #[inline]
    fn ask(&self, turns: &Turns, turn: usize) {
        for step in 0..VehicleState::ASKS {
            if let Some(vehicle) = turns.vehicles.get(turn + VehicleState::ASKS - step)
                && let Held::Live(state) = &self.slots[*vehicle as usize].held
            {
                state.ask(step);
            }
        }
    }

    /// The turn of each of a batch's circumstances. All vehicles are looked for before the first is looked at: by then its
    /// memory has come.
    fn turns_of(&mut self, batch: &mut ReadingBatch, turns: &mut Turns) {
        let mut places = std::mem::take(&mut turns.of);
        places.clear();
        places.extend(batch.hashes.iter().map(|hash| self.find(*hash, |_| true).unwrap_or(u32::MAX)));
        for (i, (meta, hash)) in batch.metas.iter_mut().zip(&batch.hashes).enumerate() {
            if let Some(ahead) = places.get(i + 8).and_then(|place| self.slots.get(*place as usize)) {
                prefetch(ahead);
            }
            let mut place = places[i];
            let is_it = |slot: &Slot| slot.aliases.have(meta) || slot.vehicle == meta.vehicle;
            if !self.slots.get(place as usize).is_some_and(is_it) {
                place = self.slot(*hash, meta);
            }
            let slot = &mut self.slots[place as usize];
            slot.aliases.unify(meta);
            places[i] = turns.turn(&mut slot.turn, place);
        }
        turns.of = places;
    }

    /// The place of the vehicle with these circumstances. The name is compared only where the pointer is not known.
    #[inline]
    fn slot(&mut self, hash: u64, meta: &Arc<Meta>) -> u32 {
        if let Some(place) = self.find(hash, |slot| slot.aliases.have(meta) || slot.vehicle == meta.vehicle) {
            return place;
        }
        let vehicle = meta.vehicle.clone();
        let state = VehicleState::new(&self.config, vehicle.clone());
        self.add(hash, Slot::new(vehicle, Held::Live(Box::new(state))))
    }

    #[inline]
    fn find(&self, hash: u64, is_it: impl Fn(&Slot) -> bool) -> Option<u32> {
        let found = |(h, place): &(u64, u32)| *h == hash && self.slots.get(*place as usize).is_some_and(&is_it);
        self.index.find(spread(hash), found).map(|(_, place)| *place)
    }

    fn add(&mut self, hash: u64, slot: Slot) -> u32 {
        let place = self.slots.len() as u32;
        self.slots.push(slot);
        self.index.insert_unique(spread(hash), (hash, place), |(hash, _)| spread(*hash));
        place
    }

    /// Closes, for the outside, what has been open for too long of vehicles that say nothing.
    fn silence(&mut self, watermark: i64, wall: i64, outcome: &mut Outcome) {
        let mut due = Vec::new();
        while let Some(Reverse((deadline, vehicle))) = self.deadlines.peek().copied() {
            if deadline > watermark {
                break;
            }
            self.deadlines.pop();
            let slot = &mut self.slots[vehicle as usize];
            if slot.scheduled == deadline {
                slot.scheduled = i64::MAX;
                due.push(vehicle);
            }
        }
        while let Some(Reverse((when, vehicle))) = self.unquiet.peek().copied() {
            if when > wall {
                break;
            }
            self.unquiet.pop();
            due.push(vehicle);
        }
        due.sort_unstable();
        due.dedup();
        for vehicle in due {
            let slot = &mut self.slots[vehicle as usize];
            let quiet_from = slot.heard.saturating_add(self.config.time.quiet);
            if slot.deadline.is_some_and(|deadline| deadline <= watermark) {
                if quiet_from > wall {
                    self.unquiet.push(Reverse((quiet_from, vehicle)));
                    continue;
                }
                let Some(state) = self.keeping.change(slot, vehicle) else { continue };
                state.silence(&self.config, watermark, outcome);
                slot.deadline = state.deadline();
            }
            slot.schedule(vehicle, &mut self.deadlines);
        }
    }

    /// The states of the vehicles heard of since the last time, when it is time again: in the first epoch of each `every`
    /// of recorded time, whichever vehicles this worker has.
    fn states(&mut self, wall: i64, flush: bool) -> Vec<VehicleFact> {
        let Some(every) = self.options.every else {
            return Vec::new();
        };
        let bucket = wall.div_euclid(every.max(1));
        if !flush && bucket <= self.last_flush {
            return Vec::new();
        }
        self.last_flush = bucket;
        let mut said = Vec::with_capacity(self.dirty.len());
        for vehicle in self.dirty.drain(..) {
            let slot = &mut self.slots[vehicle as usize];
            said.extend(self.keeping.change(slot, vehicle).map(|state| state.fact()));
            slot.dirty = false;
        }
        said
    }

    fn said(&mut self, batches: Vec<ReadingBatch>, outcome: Outcome, states: Vec<VehicleFact>) -> Said {
        let readings = if self.options.readings { outcome.readings(batches) } else { Vec::new() };
        let facts = outcome.facts;
        Said {
            results: Results {
                windows: facts.windows,
                events: facts.events,
                anomalies: facts.anomalies,
                quality: outcome.quality,
                readings,
                late: outcome.late,
                counts: outcome.counts,
                states,
                problem: self.keeping.problem.take(),
            },
            trips: facts.trips,
            more: false,
        }
    }
}
