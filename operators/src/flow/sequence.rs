//! The sequence operator: the per-vehicle kernels as one keyed timely operator.
//!
//! ```text
//!  Routed batches (exchanged by vehicle) ──┐                     ┌─► results   (windows, events, readings, counts, …)
//!                                          ├─► stash by epoch ───┼─► trips     (facts, to the relations)
//!  Mark: clocks (broadcast), epoch (local) ┘   run when complete └─► anomalies (facts, to the relations)
//! ```
//!
//! An epoch runs when both inputs have passed it, once, vehicle by vehicle; so its results are a function of its
//! readings as a set, of the epochs before it and of its marks, and of nothing else. What a checkpoint takes is handed
//! over bit by bit behind its epoch ([`handover`]).

mod aliases;
mod handover;
mod slot;
mod turns;
mod vehicles;

use super::keep::{Handing, Keep, Restored};
use super::{Rows, Time};
use crate::config::KernelConfig;
use crate::facts::{AnomalyFact, Change, EventFact, QualityFact, TripFact, VehicleFact, WindowFact};
use crate::sequence::split_key;
use differential_dataflow::AsCollection;
use drivetrain_schemas::key;
use drivetrain_schemas::reading::{IntakeCounts, Origin, ReadingBatch, Reject};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};
use vehicles::Vehicles;

/// A batch and the worker that owns its vehicles ([`owner`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Routed {
    pub worker: u64,
    pub batch: ReadingBatch,
}

/// The worker that owns a vehicle.
#[inline]
pub fn owner(vehicle: &str, workers: u64) -> u64 {
    owner_of(key::hash(vehicle), workers)
}

/// The same, of the vehicle's hash.
#[inline]
pub fn owner_of(hash: u64, workers: u64) -> u64 {
    hash % workers
}

/// What a worker must know of an epoch beside its readings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Mark {
    /// A partition's largest event time so far, µs. Comes to every worker.
    Clock { partition: Arc<Origin>, clock: i64 },
    /// The epoch is closed. Made by each worker for itself.
    Epoch { wall: i64, idle: Vec<Arc<Origin>>, flush: bool, end: bool, checkpoint: bool },
}

/// Results of an epoch that go straight to the sinks.
#[derive(Clone, Debug, Default)]
pub struct Results {
    pub windows: Vec<Change<WindowFact>>,
    pub events: Vec<Change<EventFact>>,
    pub anomalies: Vec<Change<AnomalyFact>>,
    pub quality: Vec<Change<QualityFact>>,
    pub readings: Vec<(ReadingBatch, i64)>,
    pub late: Vec<Reject>,
    pub counts: Vec<(Arc<Origin>, IntakeCounts)>,
    pub states: Vec<VehicleFact>,
    /// State of a checkpoint that cannot be read: the job must not go on.
    pub problem: Option<String>,
}

impl Results {
    fn is_empty(&self) -> bool {
        self.windows.is_empty()
            && self.events.is_empty()
            && self.anomalies.is_empty()
            && self.quality.is_empty()
            && self.readings.is_empty()
            && self.late.is_empty()
            && self.counts.is_empty()
            && self.states.is_empty()
            && self.problem.is_none()
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

/// The operator's name, also of its part of a checkpoint.
pub const NAME: &str = "sequence";

/// The vehicle that a record of a checkpoint belongs to; None for what is common to all.
pub fn vehicle_of(key: &[u8]) -> Option<&str> {
    split_key(key).map(|(vehicle, _)| vehicle).filter(|vehicle| !vehicle.is_empty())
}

/// Between two steps of handing over, when nothing else happens: whoever else wants the core is to have it, too.
const REST: Duration = Duration::from_millis(10);

/// Builds the operator. It begins with its part of `restored` and hands its changes to `keep`.
pub fn sequence<'scope>(
    scope: Scope<'scope, Time>,
    batches: StreamVec<'scope, Time, Routed>,
    marks: StreamVec<'scope, Time, Mark>,
    config: Arc<KernelConfig>,
    options: StateOptions,
    restored: &mut Restored,
    keep: Option<Keep>,
) -> Sequenced<'scope> {
    let restored = restored.take(NAME);
    let mut builder = OperatorBuilder::new(NAME.to_string(), scope);
    let mut batches = builder.new_input(batches, Exchange::new(|routed: &Routed| routed.worker));
    let mut marks = builder.new_input(marks, Pipeline);
    let (results, results_stream) = builder.new_output::<Vec<Results>>();
    let (trips, trips_stream) = builder.new_output::<Vec<(TripFact, Time, isize)>>();
    let (anomalies, anomalies_stream) = builder.new_output::<Vec<(AnomalyFact, Time, isize)>>();
    let mut results = OutputBuilder::from(results);
    let mut trips = OutputBuilder::from(trips);
    let mut anomalies = OutputBuilder::from(anomalies);
    let activator = scope.activator_for(builder.operator_info().address);
    builder.build(move |_capabilities| {
        let mut vehicles = Vehicles::new(config, options, keep.is_some());
        vehicles.restore(restored.unwrap_or_default());
        let mut waiting: BTreeMap<Time, Waiting> = BTreeMap::new();
        // An epoch of which more is to be said, before any other.
        let mut unfinished: Option<(Time, [Capability<Time>; 3])> = None;
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
            let mut hand = |time, handing: Handing| {
                if let Some(keep) = &keep {
                    keep(time, NAME, handing);
                }
            };
            loop {
                let (time, capabilities, input) = match (unfinished.take(), waiting.first_entry()) {
                    (Some((time, capabilities)), _) => (time, capabilities, None),
                    (None, Some(entry)) if !frontiers.iter().any(|f| f.less_equal(entry.key())) => {
                        let (time, Waiting { capabilities, batches, marks }) = entry.remove_entry();
                        (time, capabilities, Some((batches, marks)))
                    }
                    _ => break,
                };
                let said = match input {
                    Some((batches, marks)) => vehicles.run(time, batches, marks, &mut hand),
                    None => vehicles.go_on(&mut hand),
                };
                let [for_results, for_trips, for_anomalies] = &capabilities;
                let open = said.results.anomalies.iter().map(|(fact, diff)| (fact.clone(), time, *diff));
                anomalies.session(for_anomalies).give_iterator(open);
                trips.session(for_trips).give_iterator(said.trips.into_iter().map(|(fact, diff)| (fact, time, diff)));
                if !said.results.is_empty() {
                    results.session(for_results).give(said.results);
                }
                if said.more {
                    // What was said goes on its way first.
                    unfinished = Some((time, capabilities));
                    activator.activate();
                    return;
                }
            }
            // Nothing else is to be done now, or ever.
            if frontiers.iter().all(|f| f.is_empty()) {
                vehicles.hand_over_all(&mut hand);
            } else if vehicles.hand_over(&mut hand) {
                activator.activate_after(REST);
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
