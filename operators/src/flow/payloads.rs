//! Whole trips sent as one record ([`crate::payloads`]), as one keyed timely operator: an epoch runs when its payloads are
//! complete, so that what it says does not depend on their order.

use super::keep::{Handing, Keep, Restored, is_flagged};
use super::sequence::{Mark, Results, owner};
use super::{Rows, Time};
use crate::config::KernelConfig;
use crate::facts::TripFact;
use crate::pack::{pack, unpack};
use crate::payloads::{Said, State, step};
use differential_dataflow::AsCollection;
use drivetrain_schemas::reading::TripPayload;
use drivetrain_schemas::records::{Change, Records};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// The operator's outputs.
pub struct Payloads<'scope> {
    pub results: StreamVec<'scope, Time, Results>,
    pub trips: Rows<'scope, TripFact>,
}

/// The operator's name, also of its part of a checkpoint.
pub const NAME: &str = "payloads";

/// Builds the operator. `epochs`: this worker's own marks. It begins with its part of `restored` and hands its changes to
/// `keep`.
pub fn payloads<'scope>(
    payloads: StreamVec<'scope, Time, TripPayload>,
    epochs: StreamVec<'scope, Time, Mark>,
    config: Arc<KernelConfig>,
    restored: &mut Restored,
    keep: Option<Keep>,
) -> Payloads<'scope> {
    let scope = payloads.scope();
    let restored = restored.take(NAME);
    let mut builder = OperatorBuilder::new(NAME.to_string(), scope);
    let exchange = Exchange::new(|payload: &TripPayload| owner(&payload.vehicle, u64::MAX));
    let mut input = builder.new_input(payloads, exchange);
    let mut epochs = builder.new_input(epochs, Pipeline);
    let (results, results_stream) = builder.new_output::<Vec<Results>>();
    let (trips, trips_stream) = builder.new_output::<Vec<(TripFact, Time, isize)>>();
    let (mut results, mut trips) = (OutputBuilder::from(results), OutputBuilder::from(trips));
    builder.build(move |_capabilities| {
        let mut held = Held::default();
        restored.iter().flatten().for_each(|records| held.restore(records));
        let mut waiting: BTreeMap<Time, Waiting> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|capability, data| {
                let entry = waiting.entry(*capability.time());
                let entry = entry.or_insert_with(|| Waiting::new([0, 1].map(|port| capability.retain(port))));
                entry.payloads.append(data);
            });
            epochs.for_each(|capability, marks| {
                let flagged = is_flagged(marks);
                if flagged || held.problem.is_some() {
                    let entry = waiting.entry(*capability.time());
                    let entry = entry.or_insert_with(|| Waiting::new([0, 1].map(|port| capability.retain(port))));
                    entry.flagged |= flagged;
                }
            });
            let (mut results, mut trips) = (results.activate(), trips.activate());
            while let Some(entry) = waiting.first_entry() {
                if frontiers.iter().any(|f| f.less_equal(entry.key())) {
                    break;
                }
                let (time, epoch) = entry.remove_entry();
                let [for_results, for_trips] = &epoch.capabilities;
                if keep.is_some() {
                    held.touch(&epoch.payloads);
                }
                let Said { facts, readings, counts } = step(&config, &mut held.state, epoch.payloads);
                trips.session(for_trips).give_iterator(facts.trips.into_iter().map(|(fact, diff)| (fact, time, diff)));
                let problem = held.problem.take();
                let said = Results { events: facts.events, readings, counts, problem, ..Results::default() };
                results.session(for_results).give(said);
                if let (Some(keep), true) = (&keep, epoch.flagged) {
                    keep(time, NAME, Handing::Part(held.changed()));
                }
            }
        }
    });
    Payloads { results: results_stream, trips: trips_stream.as_collection() }
}

/// An epoch that is not complete yet.
struct Waiting {
    capabilities: [Capability<Time>; 2],
    payloads: Vec<TripPayload>,
    flagged: bool,
}

impl Waiting {
    fn new(capabilities: [Capability<Time>; 2]) -> Self {
        Self { capabilities, payloads: Vec::new(), flagged: false }
    }
}

/// The kernel's state, and what of it the next checkpoint must have.
#[derive(Default)]
struct Held {
    state: State,
    touched: BTreeSet<(Arc<str>, Arc<str>)>,
    problem: Option<String>,
}

impl Held {
    fn restore(&mut self, kept: &Records) {
        for record in kept.iter() {
            let Change::Put(value) = record.change else { continue };
            match unpack(value) {
                Ok(trip) => self.state.restore(trip),
                Err(error) => {
                    self.problem = Some(format!("the checkpoint's state of a trip payload cannot be read: {error}"));
                }
            }
        }
    }

    fn touch(&mut self, payloads: &[TripPayload]) {
        self.touched.extend(payloads.iter().map(|payload| (payload.vehicle.clone(), payload.trip_id.clone())));
    }

    /// What has changed since the last checkpoint, by vehicle and trip.
    fn changed(&mut self) -> Records {
        let mut kept = Records::keyed();
        for (vehicle, trip_id) in std::mem::take(&mut self.touched) {
            if let Some(trip) = self.state.trip(&vehicle, &trip_id) {
                let mut key = Vec::new();
                pack(&(&vehicle, &trip_id), &mut key);
                kept.put(&key, |out| pack(trip, out));
            }
        }
        kept
    }
}

/// Of a part's keys, the worker that owns it: its vehicle's.
pub fn vehicle_of(key: &[u8]) -> Option<Arc<str>> {
    unpack::<(Arc<str>, Arc<str>)>(key).ok().map(|(vehicle, _)| vehicle)
}
