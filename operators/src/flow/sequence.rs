//! The sequence operator: the per-vehicle kernels as one keyed timely operator.
//!
//! ```text
//!  Routed batches (exchanged by vehicle) ──┐                     ┌─► results   (windows, events, readings, counts, …)
//!                                          ├─► stash by epoch ───┼─► trips     (facts, to the relations)
//!  Mark: clocks (broadcast), epoch (local) ┘   run when complete └─► anomalies (facts, to the relations)
//! ```
//!
//! An epoch runs when both inputs have passed it, once, vehicle by vehicle; so its results are a function of its
//! readings as a set, of the epochs before it and of its marks, and of nothing else.

use super::{Rows, Time};
use crate::config::KernelConfig;
use crate::facts::{AnomalyFact, Change, EventFact, TripFact, VehicleFact, WindowFact};
use crate::sequence::{Incoming, Outcome, VehicleState};
use differential_dataflow::AsCollection;
use drivetrain_schemas::key;
use drivetrain_schemas::reading::{IntakeCounts, Meta, Origin, ReadingBatch, Reject};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};

/// A batch and the worker that owns its vehicles ([`owner`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Routed {
    pub worker: u64,
    pub batch: ReadingBatch,
}

/// The worker that owns a vehicle.
#[inline]
pub fn owner(vehicle: &str, workers: u64) -> u64 {
    key::hash(vehicle) % workers
}

/// What a worker must know of an epoch beside its readings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Mark {
    /// A partition's largest event time so far, µs. Comes to every worker.
    Clock { partition: Arc<Origin>, clock: i64 },
    /// The epoch is closed. Made by each worker for itself.
    Epoch { wall: i64, idle: Vec<Arc<Origin>>, flush: bool, end: bool },
}

/// Results of an epoch that go straight to the sinks.
#[derive(Clone, Debug, Default)]
pub struct Results {
    pub windows: Vec<Change<WindowFact>>,
    pub events: Vec<Change<EventFact>>,
    pub anomalies: Vec<Change<AnomalyFact>>,
    pub readings: Vec<(ReadingBatch, i64)>,
    pub late: Vec<Reject>,
    pub counts: Vec<(Arc<Origin>, IntakeCounts)>,
    pub states: Vec<VehicleFact>,
}

impl Results {
    fn is_empty(&self) -> bool {
        self.windows.is_empty()
            && self.events.is_empty()
            && self.anomalies.is_empty()
            && self.readings.is_empty()
            && self.late.is_empty()
            && self.counts.is_empty()
            && self.states.is_empty()
    }
}

/// The operator's outputs.
pub struct Sequenced<'scope> {
    pub results: StreamVec<'scope, Time, Results>,
    pub trips: Rows<'scope, TripFact>,
    pub anomalies: Rows<'scope, AnomalyFact>,
}

/// How often vehicle states are said.
#[derive(Clone, Copy, Debug)]
pub struct StateOptions {
    /// At most once in this time of the epochs' wall clock, µs; None: never.
    pub every: Option<i64>,
    /// Hand accepted readings on.
    pub readings: bool,
}

/// Builds the operator.
pub fn sequence<'scope>(
    scope: Scope<'scope, Time>,
    batches: StreamVec<'scope, Time, Routed>,
    marks: StreamVec<'scope, Time, Mark>,
    config: Arc<KernelConfig>,
    options: StateOptions,
) -> Sequenced<'scope> {
    let mut builder = OperatorBuilder::new("sequence".to_string(), scope);
    let mut batches = builder.new_input(batches, Exchange::new(|routed: &Routed| routed.worker));
    let mut marks = builder.new_input(marks, Pipeline);
    let (results, results_stream) = builder.new_output::<Vec<Results>>();
    let (trips, trips_stream) = builder.new_output::<Vec<(TripFact, Time, isize)>>();
    let (anomalies, anomalies_stream) = builder.new_output::<Vec<(AnomalyFact, Time, isize)>>();
    let mut results = OutputBuilder::from(results);
    let mut trips = OutputBuilder::from(trips);
    let mut anomalies = OutputBuilder::from(anomalies);
    builder.build(move |_capabilities| {
        let mut vehicles = Vehicles::new(config, options);
        let mut waiting: BTreeMap<Time, Waiting> = BTreeMap::new();
        move |frontiers| {
            batches.for_each(|capability, data| {
                let entry = waiting.entry(*capability.time());
                let entry = entry.or_insert_with(|| Waiting::new([0, 1, 2].map(|port| capability.retain(port))));
                entry.batches.extend(data.drain(..).map(|routed| routed.batch));
            });
            marks.for_each(|capability, data| {
                let entry = waiting.entry(*capability.time());
                let entry = entry.or_insert_with(|| Waiting::new([0, 1, 2].map(|port| capability.retain(port))));
                entry.marks.append(data);
            });
            let (mut results, mut trips, mut anomalies) = (results.activate(), trips.activate(), anomalies.activate());
            while let Some(entry) = waiting.first_entry() {
                if frontiers.iter().any(|f| f.less_equal(entry.key())) {
                    break;
                }
                let (time, epoch) = entry.remove_entry();
                let [for_results, for_trips, for_anomalies] = &epoch.capabilities;
                let said = vehicles.run(epoch.batches, epoch.marks);
                let open = said.results.anomalies.iter().map(|(fact, diff)| (fact.clone(), time, *diff));
                anomalies.session(for_anomalies).give_iterator(open);
                trips.session(for_trips).give_iterator(said.trips.into_iter().map(|(fact, diff)| (fact, time, diff)));
                if !said.results.is_empty() {
                    results.session(for_results).give(said.results);
                }
            }
        }
    });
    Sequenced {
        results: results_stream,
        trips: trips_stream.as_collection(),
        anomalies: anomalies_stream.as_collection(),
    }
}

/// An epoch that is not complete yet.
struct Waiting {
    capabilities: [Capability<Time>; 3],
    batches: Vec<ReadingBatch>,
    marks: Vec<Mark>,
}

impl Waiting {
    fn new(capabilities: [Capability<Time>; 3]) -> Self {
        Self { capabilities, batches: Vec::new(), marks: Vec::new() }
    }
}

struct Said {
    results: Results,
    trips: Vec<Change<TripFact>>,
}

/// A vehicle and when it is to be looked at again.
struct Slot {
    state: VehicleState,
    /// Wall time of the last epoch with a reading of it.
    heard: i64,
    /// The smallest deadline under which it stands in [`Vehicles::deadlines`].
    scheduled: i64,
    dirty: bool,
    aliases: Aliases,
}

/// One pointer for equal circumstances. Each worker's decoders intern for themselves, so that the same circumstances come
/// under as many pointers as there are workers; behind this, the kernels compare pointers and not strings.
#[derive(Default)]
struct Aliases {
    /// The first is the one that stands for all.
    equal: Vec<Arc<Meta>>,
}

/// Pointers remembered of the same circumstances.
const ALIASES: usize = 16;

impl Aliases {
    fn unify(&mut self, meta: &mut Arc<Meta>) {
        let Some(first) = self.equal.first() else {
            self.equal.push(meta.clone());
            return;
        };
        if Arc::ptr_eq(first, meta) {
            return;
        }
        if self.equal.iter().any(|known| Arc::ptr_eq(known, meta)) {
            *meta = first.clone();
        } else if **first == **meta {
            let first = first.clone();
            if self.equal.len() < ALIASES {
                self.equal.push(std::mem::replace(meta, first));
            } else {
                *meta = first;
            }
        } else {
            self.equal.clear();
            self.equal.push(meta.clone());
        }
    }
}

/// All vehicles of this worker.
struct Vehicles {
    config: Arc<KernelConfig>,
    options: StateOptions,
    index: HashMap<Arc<str>, u32, FixedState>,
    slots: Vec<Slot>,
    clocks: BTreeMap<Arc<Origin>, i64>,
    idle: BTreeSet<Arc<Origin>>,
    /// (deadline in event time, vehicle): who might have something to close by silence.
    deadlines: BinaryHeap<Reverse<(i64, u32)>>,
    /// (wall time, vehicle): past its deadline, but heard of too recently.
    unquiet: BinaryHeap<Reverse<(i64, u32)>>,
    dirty: Vec<u32>,
    last_flush: i64,
    order: Vec<(u32, i64, u32, u32)>,
}

impl Vehicles {
    fn new(config: Arc<KernelConfig>, options: StateOptions) -> Self {
        Self {
            config,
            options,
            index: HashMap::default(),
            slots: Vec::new(),
            clocks: BTreeMap::new(),
            idle: BTreeSet::new(),
            deadlines: BinaryHeap::new(),
            unquiet: BinaryHeap::new(),
            dirty: Vec::new(),
            last_flush: i64::MIN,
            order: Vec::new(),
        }
    }

    /// Runs one complete epoch.
    fn run(&mut self, batches: Vec<ReadingBatch>, marks: Vec<Mark>) -> Said {
        let (mut wall, mut flush, mut end) = (0, false, false);
        for mark in marks {
            match mark {
                Mark::Clock { partition, clock } => {
                    let held = self.clocks.entry(partition).or_insert(clock);
                    *held = (*held).max(clock);
                }
                Mark::Epoch { wall: w, idle, flush: f, end: e } => {
                    (wall, flush, end) = (w, f, e);
                    self.idle = idle.into_iter().collect();
                }
            }
        }
        let mut outcome = Outcome::default();
        let mut batches = batches;
        self.readings(&mut batches, wall, &mut outcome);
        if end {
            for slot in &mut self.slots {
                slot.state.finish(&self.config, &mut outcome);
            }
        } else if let Some(watermark) = self.watermark() {
            self.silence(watermark, wall, &mut outcome);
        }
        let states = self.states(wall, flush || end);
        self.said(batches, outcome, states)
    }

    /// The global watermark: the minimum over the partitions that are not idle, the maximum when all are.
    fn watermark(&self) -> Option<i64> {
        let busy = self.clocks.iter().filter(|(partition, _)| !self.idle.contains(*partition)).map(|(_, clock)| *clock);
        let clock = busy.min().or_else(|| self.clocks.values().copied().max())?;
        Some(clock.saturating_sub(self.config.time.out_of_orderness))
    }

    fn readings(&mut self, batches: &mut [ReadingBatch], wall: i64, outcome: &mut Outcome) {
        let mut order = std::mem::take(&mut self.order);
        for (b, batch) in batches.iter_mut().enumerate() {
            let mut last = (u32::MAX, 0);
            for (row, head) in batch.heads.iter().enumerate() {
                if last.0 != head.meta {
                    let meta = &mut batch.metas[head.meta as usize];
                    last = (head.meta, self.slot(&meta.vehicle));
                    self.slots[last.1 as usize].aliases.unify(meta);
                }
                order.push((last.1, head.at, b as u32, row as u32));
            }
        }
        // The kernels order the rest by content: what stands first here does not matter beyond (vehicle, time).
        order.sort_unstable();
        let mut incoming = Vec::new();
        for group in order.chunk_by(|a, b| a.0 == b.0) {
            let vehicle = group[0].0;
            incoming.clear();
            incoming.extend(group.iter().map(|&(_, _, batch, row)| Incoming { batch, row }));
            let slot = &mut self.slots[vehicle as usize];
            slot.state.apply(&self.config, batches, &mut incoming, outcome);
            slot.heard = wall;
            if !std::mem::replace(&mut slot.dirty, true) {
                self.dirty.push(vehicle);
            }
            if let Some(deadline) = slot.state.deadline()
                && deadline < slot.scheduled
            {
                slot.scheduled = deadline;
                self.deadlines.push(Reverse((deadline, vehicle)));
            }
        }
        order.clear();
        self.order = order;
    }

    fn slot(&mut self, vehicle: &Arc<str>) -> u32 {
        if let Some(slot) = self.index.get(vehicle) {
            return *slot;
        }
        let slot = self.slots.len() as u32;
        self.index.insert(vehicle.clone(), slot);
        let state = VehicleState::new(&self.config, vehicle.clone());
        self.slots.push(Slot {
            state,
            heard: i64::MIN,
            scheduled: i64::MAX,
            dirty: false,
            aliases: Aliases::default(),
        });
        slot
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
            if slot.state.deadline().is_some_and(|deadline| deadline <= watermark) {
                if quiet_from > wall {
                    self.unquiet.push(Reverse((quiet_from, vehicle)));
                    continue;
                }
                slot.state.silence(&self.config, watermark, outcome);
            }
            if let Some(deadline) = slot.state.deadline()
                && deadline < slot.scheduled
            {
                slot.scheduled = deadline;
                self.deadlines.push(Reverse((deadline, vehicle)));
            }
        }
    }

    /// The states of the vehicles heard of since the last time, when it is time again.
    fn states(&mut self, wall: i64, flush: bool) -> Vec<VehicleFact> {
        let Some(every) = self.options.every else {
            return Vec::new();
        };
        let bucket = wall.div_euclid(every.max(1));
        if self.dirty.is_empty() || (!flush && bucket <= self.last_flush) {
            return Vec::new();
        }
        self.last_flush = bucket;
        let slots = &mut self.slots;
        let fact = |vehicle: u32| {
            slots[vehicle as usize].dirty = false;
            slots[vehicle as usize].state.fact()
        };
        self.dirty.drain(..).map(fact).collect()
    }

    fn said(&self, batches: Vec<ReadingBatch>, outcome: Outcome, states: Vec<VehicleFact>) -> Said {
        let readings = if self.options.readings { outcome.readings(batches) } else { Vec::new() };
        let facts = outcome.facts;
        Said {
            results: Results {
                windows: facts.windows,
                events: facts.events,
                anomalies: facts.anomalies,
                readings,
                late: outcome.late,
                counts: outcome.counts,
                states,
            },
            trips: facts.trips,
        }
    }
}
