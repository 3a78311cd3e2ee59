//! Whole trips sent as one record: of the payloads of a trip id the newest counts (DESIGN §5).
//!
//! A payload bypasses the vehicle's sequence and is never late. Sent again it is a duplicate when identical (the earlier
//! record time stays); else the one with the later record time, then the larger content, replaces the other, which then
//! counts as the duplicate. So which one counts does not depend on arrival.

use super::sequence::{Results, owner};
use super::{Rows, Time};
use crate::config::KernelConfig;
use crate::facts::{Change, TripFact};
use crate::vehicle::trip_payload_facts;
use differential_dataflow::AsCollection;
use drivetrain_schemas::reading::{Head, IntakeCounts, Meta, ReadingBatch, TripPayload, TripSample};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// The operator's outputs.
pub struct Payloads<'scope> {
    pub results: StreamVec<'scope, Time, Results>,
    pub trips: Rows<'scope, TripFact>,
}

/// Builds the operator. `width`: signals in the catalogue.
pub fn payloads<'scope>(
    payloads: StreamVec<'scope, Time, TripPayload>,
    config: Arc<KernelConfig>,
    width: usize,
) -> Payloads<'scope> {
    let scope = payloads.scope();
    let mut builder = OperatorBuilder::new("payloads".to_string(), scope);
    let exchange = Exchange::new(|payload: &TripPayload| owner(&payload.vehicle, u64::MAX));
    let mut input = builder.new_input(payloads, exchange);
    let (results, results_stream) = builder.new_output::<Vec<Results>>();
    let (trips, trips_stream) = builder.new_output::<Vec<(TripFact, Time, isize)>>();
    let (mut results, mut trips) = (OutputBuilder::from(results), OutputBuilder::from(trips));
    builder.build(move |_capabilities| {
        let mut held = Held { config, width, newest: HashMap::default() };
        let mut waiting: BTreeMap<Time, ([Capability<Time>; 2], Vec<TripPayload>)> = BTreeMap::new();
        move |frontiers| {
            input.for_each(|capability, data| {
                let entry = waiting.entry(*capability.time());
                let entry = entry.or_insert_with(|| ([capability.retain(0), capability.retain(1)], Vec::new()));
                entry.1.append(data);
            });
            let (mut results, mut trips) = (results.activate(), trips.activate());
            while let Some(entry) = waiting.first_entry() {
                if frontiers[0].less_equal(entry.key()) {
                    break;
                }
                let (time, ([for_results, for_trips], payloads)) = entry.remove_entry();
                let (said, facts) = held.run(payloads);
                trips.session(&for_trips).give_iterator(facts.into_iter().map(|(fact, diff)| (fact, time, diff)));
                results.session(&for_results).give(said);
            }
        }
    });
    Payloads { results: results_stream, trips: trips_stream.as_collection() }
}

/// The newest payload of each (vehicle, trip id).
struct Held {
    config: Arc<KernelConfig>,
    width: usize,
    newest: HashMap<(Arc<str>, Arc<str>), TripPayload, FixedState>,
}

/// What a trip says: the one who wins against what is held.
enum Verdict {
    First,
    Replaces,
    Duplicate,
}

impl Held {
    /// One epoch's payloads; their net effect does not depend on their order.
    fn run(&mut self, payloads: Vec<TripPayload>) -> (Results, Vec<Change<TripFact>>) {
        let mut results = Results::default();
        let mut trips = Vec::new();
        for payload in payloads {
            let key = (payload.vehicle.clone(), payload.trip_id.clone());
            let counts = |used, duplicates| IntakeCounts { used, duplicates, ..IntakeCounts::default() };
            match self.newest.get(&key).map_or(Verdict::First, |held| judge(held, &payload)) {
                Verdict::Duplicate => results.counts.push((payload.origin.clone(), counts(0, 1))),
                verdict => {
                    results.counts.push((payload.origin.clone(), counts(1, 0)));
                    self.say(&payload, 1, &mut results, &mut trips);
                    let old = self.newest.insert(key, payload);
                    if let (Verdict::Replaces, Some(old)) = (verdict, old) {
                        results.counts.push((old.origin.clone(), counts(-1, 1)));
                        self.say(&old, -1, &mut results, &mut trips);
                    }
                }
            }
        }
        (results, trips)
    }

    fn say(&self, payload: &TripPayload, diff: isize, results: &mut Results, trips: &mut Vec<Change<TripFact>>) {
        let (trip, events) = trip_payload_facts(&self.config, payload);
        trips.push((trip, diff));
        results.events.extend(events.into_iter().map(|event| (event, diff)));
        results.readings.push((self.samples(payload), diff as i64));
    }

    /// The samples as readings, for the table `readings`.
    fn samples(&self, payload: &TripPayload) -> ReadingBatch {
        let mut batch = ReadingBatch::new(payload.origin.clone(), self.width);
        for (i, sample) in payload.samples.iter().enumerate() {
            let head = Head {
                at: sample.at,
                position: payload.position,
                record_time: payload.record_time,
                meta: 0,
                element: i as u32,
            };
            batch.push(head, &Arc::new(meta(payload, sample)), &sample.values);
        }
        batch
    }
}

fn meta(payload: &TripPayload, sample: &TripSample) -> Meta {
    Meta {
        vehicle: payload.vehicle.clone(),
        texts: sample.texts.clone(),
        driver: payload.driver.clone(),
        trip: Some(payload.trip_id.clone()),
        fleet: payload.fleet.clone(),
        quality: payload.quality.clone(),
        tags: payload.tags.clone(),
    }
}

/// Whether `new` counts beside `held`, of the same trip. Samples stand relative to the record time where they have no
/// time of their own, so that payloads are compared by what was sent: their values and the distances of their times.
fn judge(held: &TripPayload, new: &TripPayload) -> Verdict {
    let replaces = match content(held).cmp(&content(new)) {
        // Identical: the earlier record time stays, then the lower position.
        Ordering::Equal => {
            let order = |p: &TripPayload| (p.record_time, p.origin.clone(), p.position);
            order(new) < order(held)
        }
        difference => (new.record_time, difference.reverse()) > (held.record_time, Ordering::Equal),
    };
    if replaces { Verdict::Replaces } else { Verdict::Duplicate }
}

type Content<'a> = ([Option<&'a Arc<str>>; 4], Vec<(i64, &'a Vec<i64>, &'a Vec<(u16, Arc<str>)>)>);

fn content(payload: &TripPayload) -> Content<'_> {
    let first = payload.samples.first().map_or(0, |s| s.at);
    let who = [&payload.driver, &payload.fleet, &payload.quality, &payload.tags].map(Option::as_ref);
    (who, payload.samples.iter().map(|s| (s.at.saturating_sub(first), &s.values, &s.texts)).collect())
}
