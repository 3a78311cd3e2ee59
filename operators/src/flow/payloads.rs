//! Whole trips sent as one record ([`crate::payloads`]), as one keyed timely operator: an epoch runs when its payloads are
//! complete, so that what it says does not depend on their order.

use super::keep::{Handing, Keep, Restored, is_flagged};
use super::sequence::{Mark, Results, owner};
use super::{Rows, Time};
use crate::config::KernelConfig;
use crate::facts::TripFact;
use crate::pack::{pack, unpack};
use crate::payloads::{Place, Said, State, step};
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
                let Said { facts, readings, late, counts, sealed } = step(&config, &mut held.state, epoch.payloads);
                if keep.is_some() {
                    held.touched.extend(sealed);
                }
                trips.session(for_trips).give_iterator(facts.trips.into_iter().map(|(fact, diff)| (fact, time, diff)));
                let problem = held.problem.take();
                let said = Results { events: facts.events, readings, late, counts, problem, ..Results::default() };
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
    touched: BTreeSet<Place>,
    problem: Option<String>,
}

impl Held {
    fn restore(&mut self, kept: &Records) {
        for record in kept.iter() {
            let Change::Put(value) = record.change else { continue };
            let restored = match unpack::<Place>(record.key) {
                Ok((vehicle, None)) => unpack(value).map(|line| self.state.restore_sealed(vehicle, line)),
                Ok((_, Some(_))) => unpack(value).map(|trip| self.state.restore(trip)),
                Err(error) => Err(error),
            };
            if let Err(error) = restored {
                self.problem = Some(format!("the checkpoint's state of a trip payload cannot be read: {error}"));
            }
        }
    }

    fn touch(&mut self, payloads: &[TripPayload]) {
        self.touched.extend(payloads.iter().map(|payload| (payload.vehicle.clone(), Some(payload.trip_id.clone()))));
    }

    /// What has changed since the last checkpoint, by vehicle and trip.
    fn changed(&mut self) -> Records {
        let mut kept = Records::keyed();
        for place in std::mem::take(&mut self.touched) {
            let mut key = Vec::new();
            pack(&place, &mut key);
            let (vehicle, trip_id) = &place;
            match trip_id {
                None => kept.put(&key, |out| pack(&self.state.sealed(vehicle).unwrap_or(i64::MIN), out)),
                Some(trip_id) => match self.state.trip(vehicle, trip_id) {
                    Some(trip) => kept.put(&key, |out| pack(trip, out)),
                    // Sealed, or it came too late.
                    None => kept.remove(&key),
                },
            }
        }
        kept
    }
}

/// Of a part's keys, the worker that owns it: its vehicle's.
pub fn vehicle_of(key: &[u8]) -> Option<Arc<str>> {
    unpack::<Place>(key).ok().map(|(vehicle, _)| vehicle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SECOND, Setup};
    use drivetrain_schemas::reading::Origin;

    fn payload(trip: i64, at: i64) -> TripPayload {
        TripPayload {
            trip_id: trip.to_string().into(),
            record_time: at * SECOND,
            vehicle: format!("v{}", trip % 2).into(),
            driver: None,
            fleet: None,
            quality: None,
            tags: None,
            samples: Vec::new(),
            origin: Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 }),
            position: at,
            sample_interval: SECOND,
        }
    }

    /// Trips that come, are sealed, or come too late.
    #[test]
    fn the_checkpoints_add_up_to_the_state() {
        let config = KernelConfig { facts_retention: Some(100 * SECOND), ..Setup::default().build() };
        let (mut held, mut sum) = (Held::default(), BTreeMap::new());
        for trip in 0..40 {
            let payloads = vec![payload(trip, 10 * trip), payload(trip / 2, 5 * trip)];
            held.touch(&payloads);
            held.touched.extend(step(&config, &mut held.state, payloads).sealed);
            if trip % 3 == 0 || trip == 39 {
                for record in held.changed().iter() {
                    match record.change {
                        Change::Put(value) => drop(sum.insert(record.key.to_vec(), value.to_vec())),
                        _ => drop(sum.remove(record.key)),
                    }
                }
            }
        }
        assert!((12..18).contains(&sum.len()), "{} records: two lines, and trips of 100 s", sum.len());
        let mut records = Records::keyed();
        sum.iter().for_each(|(key, value)| records.put(key, |out| out.extend_from_slice(value)));
        let mut restored = Held::default();
        restored.restore(&records);
        assert_eq!(restored.problem, None);
        assert_eq!(restored.state, held.state);
        assert!(sum.keys().all(|key| vehicle_of(key).is_some()));
    }
}
