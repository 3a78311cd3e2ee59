//! Trips with their scores, and drivers with theirs, as two keyed timely operators: [`crate::score::trips`] by vehicle,
//! [`crate::score::drivers`] by driver. Each runs an epoch when all of it has come.
//!
//! Both keep their state themselves, packed, and a restart begins with it as it is: nothing is computed again but what
//! goes on to the fleets.

use crate::facts::TripFact;
use crate::flow::keep::{Handing, Keep, Restored, is_flagged};
use crate::flow::sequence::{Mark, owner};
use crate::flow::{Rows, Time};
use crate::score::drivers::{self, Drivers};
use crate::score::trips::{self, Changes, Page, Timeline, Trips};
use crate::score::{Counted, DriverRow, DriverTrip, Scored, Standing};
use differential_dataflow::AsCollection;
use drivetrain_schemas::key;
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Capability, InputCapability};

/// The operators' names, also of their parts of a checkpoint.
pub const TRIPS: &str = "trips";
pub const DRIVERS: &str = "drivers";

/// What trips are scored by.
pub(super) struct Documents<'scope> {
    pub(super) timelines: Rows<'scope, (Arc<str>, Timeline)>,
    pub(super) pages: Rows<'scope, (Option<Arc<str>>, Page)>,
}

/// Rows of `trips`, and what goes on to the drivers. `retention`: as of [`Trips::new`].
pub(super) fn trips<'scope>(
    facts: Rows<'scope, TripFact>,
    documents: Documents<'scope>,
    epochs: StreamVec<'scope, Time, Mark>,
    retention: Option<i64>,
    restored: &mut Restored,
    keep: Option<Keep>,
) -> (Rows<'scope, Scored>, Rows<'scope, DriverTrip>) {
    let mut kernel = Trips::new(keep.is_some(), retention);
    let restoring = restored.restore(TRIPS, |blocks| kernel.restore(blocks));
    let mut builder = OperatorBuilder::new(TRIPS.to_string(), facts.inner.scope());
    let by_vehicle = Exchange::new(|((vehicle, _), ..): &((Arc<str>, Timeline), Time, isize)| key::hash(vehicle));
    let mut facts =
        builder.new_input(facts.inner, Exchange::new(|(fact, ..): &(TripFact, Time, isize)| key::hash(&fact.vehicle)));
    let mut timelines = builder.new_input(documents.timelines.inner, by_vehicle);
    let mut pages = builder.new_input(documents.pages.inner.broadcast(), Pipeline);
    let mut epochs = builder.new_input(epochs, Pipeline);
    let (rows, rows_stream) = builder.new_output::<Vec<(Scored, Time, isize)>>();
    let (completed, completed_stream) = builder.new_output::<Vec<(DriverTrip, Time, isize)>>();
    let (mut rows, mut completed) = (OutputBuilder::from(rows), OutputBuilder::from(completed));
    builder.build(move |_capabilities| {
        let mut waiting: BTreeMap<Time, Epoch<2, Changes>> = BTreeMap::new();
        move |frontiers| {
            facts.for_each(|capability, data| {
                for (fact, time, diff) in data.drain(..) {
                    at(&mut waiting, time, &capability).changes.facts.push((fact, diff));
                }
            });
            timelines.for_each(|capability, data| {
                for (timeline, time, diff) in data.drain(..) {
                    at(&mut waiting, time, &capability).changes.timelines.push((timeline, diff));
                }
            });
            pages.for_each(|capability, data| {
                for (page, time, diff) in data.drain(..) {
                    at(&mut waiting, time, &capability).changes.pages.push((page, diff));
                }
            });
            epochs.for_each(|capability, marks| {
                if is_flagged(marks) {
                    let time = *capability.time();
                    at(&mut waiting, time, &capability).flagged = true;
                }
            });
            let (mut rows, mut completed) = (rows.activate(), completed.activate());
            while let Some(entry) = waiting.first_entry()
                && !frontiers.iter().any(|f| f.less_equal(entry.key()))
            {
                let (time, Epoch { capabilities: [for_rows, for_completed], changes, flagged }) = entry.remove_entry();
                if restoring && time == 0 {
                    // The documents under which all that is restored has been said.
                    kernel.restore_documents(changes);
                    continue;
                }
                let (mut rows, mut completed) = (rows.session(&for_rows), completed.session(&for_completed));
                let sealed = kernel.step(changes, &mut |scored, diff| {
                    if let Some(trip) = scored.driver_trip() {
                        completed.give((trip, time, diff));
                    }
                    if scored.is_row() {
                        rows.give((scored, time, diff));
                    }
                });
                for trip in sealed {
                    completed.give((DriverTrip { sealed: true, ..trip.clone() }, time, 1));
                    completed.give((trip, time, -1));
                }
                if let (Some(keep), true) = (&keep, flagged) {
                    keep(time, TRIPS, Handing::Part(kernel.keep()));
                }
            }
        }
    });
    (rows_stream.as_collection(), completed_stream.as_collection())
}

/// What is said of drivers.
pub(super) struct Said<'scope> {
    pub(super) rows: Rows<'scope, DriverRow>,
    pub(super) counted: Rows<'scope, Counted>,
    pub(super) standings: Rows<'scope, Standing>,
}

/// Rows of `driver_scores`, and what goes on to the fleets.
pub(super) fn drivers<'scope>(
    trips: Rows<'scope, DriverTrip>,
    epochs: StreamVec<'scope, Time, Mark>,
    restored: &mut Restored,
    keep: Option<Keep>,
) -> Said<'scope> {
    let mut kernel = Drivers::new(keep.is_some());
    let restoring = restored.restore(DRIVERS, |blocks| kernel.restore(blocks));
    let mut builder = OperatorBuilder::new(DRIVERS.to_string(), trips.inner.scope());
    let by_driver = Exchange::new(|(trip, ..): &(DriverTrip, Time, isize)| key::hash(&trip.driver));
    let mut trips = builder.new_input(trips.inner, by_driver);
    let mut epochs = builder.new_input(epochs, Pipeline);
    let (rows, rows_stream) = builder.new_output::<Vec<(DriverRow, Time, isize)>>();
    let (counted, counted_stream) = builder.new_output::<Vec<(Counted, Time, isize)>>();
    let (standings, standings_stream) = builder.new_output::<Vec<(Standing, Time, isize)>>();
    let mut rows = OutputBuilder::from(rows);
    let (mut counted, mut standings) = (OutputBuilder::from(counted), OutputBuilder::from(standings));
    builder.build(move |capabilities| {
        // What holds since before the restart stands at epoch 0, which is before all others.
        let mut recalling = restoring.then_some(capabilities);
        let mut waiting: BTreeMap<Time, Epoch<3, Vec<(DriverTrip, isize)>>> = BTreeMap::new();
        move |frontiers| {
            trips.for_each(|capability, data| {
                for (trip, time, diff) in data.drain(..) {
                    at(&mut waiting, time, &capability).changes.push((trip, diff));
                }
            });
            epochs.for_each(|capability, marks| {
                if is_flagged(marks) {
                    let time = *capability.time();
                    at(&mut waiting, time, &capability).flagged = true;
                }
            });
            let (mut rows, mut counted, mut standings) = (rows.activate(), counted.activate(), standings.activate());
            if let Some([_, for_counted, for_standings]) = recalling.take().as_deref() {
                let mut counted = counted.session(for_counted);
                let mut standings = standings.session(for_standings);
                kernel.recall(&mut |fact, standing| {
                    fact.into_iter().for_each(|fact| counted.give((fact, 0, 1)));
                    standing.into_iter().for_each(|standing| standings.give((standing, 0, 1)));
                });
            }
            while let Some(entry) = waiting.first_entry()
                && !frontiers.iter().any(|f| f.less_equal(entry.key()))
            {
                let (time, Epoch { capabilities: [for_rows, for_counted, for_standings], changes, flagged }) =
                    entry.remove_entry();
                let said = kernel.step(changes);
                rows.session(&for_rows).give_iterator(said.rows.into_iter().map(|(row, diff)| (row, time, diff)));
                let facts = said.counted.into_iter().map(|(fact, diff)| (fact, time, diff));
                counted.session(&for_counted).give_iterator(facts);
                let facts = said.standings.into_iter().map(|(fact, diff)| (fact, time, diff));
                standings.session(&for_standings).give_iterator(facts);
                if let (Some(keep), true) = (&keep, flagged) {
                    keep(time, DRIVERS, Handing::Part(kernel.keep()));
                }
            }
        }
    });
    Said {
        rows: rows_stream.as_collection(),
        counted: counted_stream.as_collection(),
        standings: standings_stream.as_collection(),
    }
}

/// The worker that a row of a checkpoint belongs to.
///
/// # Errors
/// When the row is none.
pub fn owner_of_trip(row: &[u8], workers: u64) -> Result<u64, String> {
    Ok(owner(trips::vehicle_of(row)?, workers))
}

/// As [`owner_of_trip`]; None: all.
///
/// # Errors
/// When the row is none.
pub fn owner_of_driver(row: &[u8], workers: u64) -> Result<Option<u64>, String> {
    Ok(drivers::driver_of(row)?.map(|driver| key::hash(driver) % workers))
}

/// An epoch that is not complete yet.
struct Epoch<const N: usize, C> {
    capabilities: [Capability<Time>; N],
    changes: C,
    flagged: bool,
}

/// The epoch that holds what has come for a time.
fn at<'a, const N: usize, C: Default>(
    waiting: &'a mut BTreeMap<Time, Epoch<N, C>>,
    time: Time,
    capability: &InputCapability<Time>,
) -> &'a mut Epoch<N, C> {
    waiting.entry(time).or_insert_with(|| Epoch {
        capabilities: std::array::from_fn(|port| capability.delayed(&time, port)),
        changes: C::default(),
        flagged: false,
    })
}
