//! From the dataflow's edge to the committer: each stream becomes outputs of its epoch.
//!
//! An output is sent before the operator lets go of its epoch, so that when the probe behind it has passed an epoch
//! the committer's channel holds all of it.

use crate::edge;
use crate::runtime::source_operator::Intake;
use differential_dataflow::VecCollection;
use drivetrain_operators::config::KernelConfig;
use drivetrain_operators::flow::relations::{DriverRow, FleetRow, Problem, TripRow};
use drivetrain_operators::flow::sequence::Results;
use drivetrain_operators::flow::{Rows, Time};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::{TableId, Topic};
use drivetrain_sinks::message::{Message, Output};
use foldhash::fast::FixedState;
use hashbrown::HashSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Capability, Probe, probe};

/// Sends outputs to the committer.
#[derive(Clone)]
pub struct Emit {
    pub sender: crossbeam_channel::Sender<Message>,
    pub catalogue: Arc<Catalogue>,
    pub kernels: Arc<KernelConfig>,
    /// Epochs up to this one were dealt with before a restart: what stands there is state that was fed in again, and goes
    /// nowhere. -1 without a restart.
    pub after: i64,
}

/// A sink says nothing downstream; its output only bears the frontier.
type Nothing = CapacityContainerBuilder<Vec<()>>;

/// Changes of epochs that are not complete yet.
type Waiting<D> = BTreeMap<Time, (Capability<Time>, Vec<(D, isize)>)>;

/// A change of a live document.
type Change = (Arc<str>, String, i64);

impl Emit {
    /// Windows, events, anomalies, readings, late ones, counts and vehicle states.
    pub fn results(&self, stream: StreamVec<'_, Time, Results>, finished: &probe::Handle<Time>) {
        let this = self.clone();
        self.sink(stream, "results", finished, move |_, results, send| {
            results.into_iter().for_each(|results| this.send_results(results, send));
        });
    }

    fn send_results(&self, results: Results, send: &mut dyn FnMut(Output)) {
        let catalogue = &self.catalogue;
        if let Some(problem) = results.problem {
            drop(self.sender.send(Message::Failed(problem)));
        }
        for (batch, diff) in results.readings {
            send(Output::Readings { batch, diff });
        }
        let rows = |rows: Vec<(Row, i64)>, table, send: &mut dyn FnMut(Output)| {
            if !rows.is_empty() {
                send(Output::Rows { table, rows });
            }
        };
        let windows = results.windows.iter().map(|(w, diff)| (edge::window_row(catalogue, w), *diff as i64)).collect();
        rows(windows, TableId::Windows, send);
        let positions = self.kernels.position_decimals();
        let events = results.events.iter().map(|(e, diff)| (edge::event_row(catalogue, positions, e), *diff as i64));
        rows(events.collect(), TableId::Events, send);
        let anomalies = results.anomalies.iter().map(|(a, diff)| (edge::anomaly_row(catalogue, a), *diff as i64));
        rows(anomalies.collect(), TableId::Anomalies, send);
        let quality = results.quality.iter().map(|(q, diff)| (edge::quality_row(catalogue, q), *diff as i64)).collect();
        rows(quality, TableId::Quality, send);
        let open = results.anomalies.iter().filter(|(a, _)| a.ended_at.is_none());
        let open = open.map(|(a, diff)| with(edge::anomaly_document(catalogue, a), *diff)).collect();
        upserts(open, Topic::AnomaliesActive, send);
        let states = edge::vehicle_documents(catalogue, &results.states).map(|document| with(document, 1)).collect();
        upserts(states, Topic::VehicleState, send);
        if !results.late.is_empty() {
            send(Output::Late { late: results.late });
        }
        if !results.counts.is_empty() {
            send(Output::Intake { counts: results.counts });
        }
    }

    /// Rows of `trips` and documents of `trip_scores`.
    pub fn trips(&self, trips: Rows<'_, TripRow>, finished: &probe::Handle<Time>) {
        self.collection(trips, "trips", finished, move |changes, send| {
            let rows: Vec<_> = changes.iter().map(|(trip, diff)| (edge::trip_row(trip), *diff as i64)).collect();
            let live = documents(changes, &rows, |trip| Some(&trip.fact.trip_id), edge::trip_document);
            send(Output::Rows { table: TableId::Trips, rows });
            upserts(live, Topic::TripScores, send);
        });
    }

    /// Rows of `driver_scores`, and the live document of each driver.
    pub fn drivers(&self, drivers: Rows<'_, DriverRow>, finished: &probe::Handle<Time>) {
        self.collection(drivers, "drivers", finished, move |changes, send| {
            let rows: Vec<_> = changes.iter().map(|(driver, diff)| (edge::driver_row(driver), *diff as i64)).collect();
            let live = documents(changes, &rows, |d| d.newest.then_some(&d.driver), edge::driver_document);
            send(Output::Rows { table: TableId::DriverScores, rows });
            upserts(live, Topic::DriverScores, send);
        });
    }

    /// Rows and documents of `fleet_aggregates`.
    pub fn fleets(&self, fleets: Rows<'_, FleetRow>, finished: &probe::Handle<Time>) {
        self.collection(fleets, "fleets", finished, move |changes, send| {
            let rows: Vec<_> = changes.iter().map(|(fleet, diff)| (edge::fleet_row(fleet), *diff as i64)).collect();
            let live = documents(changes, &rows, |fleet| Some(&fleet.fleet), edge::fleet_document);
            send(Output::Rows { table: TableId::FleetAggregates, rows });
            upserts(live, Topic::FleetAggregates, send);
        });
    }

    /// Rows of `reference_problems`.
    pub fn problems(&self, problems: Rows<'_, Problem>, finished: &probe::Handle<Time>) {
        self.collection(problems, "reference problems", finished, |changes, send| {
            let rows = changes.iter().map(|(problem, diff)| (edge::problem_row(problem), *diff as i64)).collect();
            send(Output::Rows { table: TableId::ReferenceProblems, rows });
        });
    }

    /// Rejected records, and the counts of what was read.
    pub fn intake(&self, intake: StreamVec<'_, Time, Intake>, finished: &probe::Handle<Time>) {
        self.sink(intake, "intake", finished, |_, intake, send| {
            for item in intake {
                if !item.rejects.is_empty() {
                    send(Output::Rejects { rejects: item.rejects });
                }
                if !item.counts.is_empty() {
                    send(Output::Intake { counts: item.counts });
                }
            }
        });
    }

    /// A collection, consolidated epoch by epoch as far as this worker sees it (the committer sees the rest).
    fn collection<D: differential_dataflow::ExchangeData>(
        &self,
        collection: VecCollection<'_, Time, D, isize>,
        name: &str,
        finished: &probe::Handle<Time>,
        logic: impl Fn(&[(D, isize)], &mut dyn FnMut(Output)) + 'static,
    ) {
        let mut waiting: Waiting<D> = BTreeMap::new();
        let (sender, after) = (self.sender.clone(), self.after);
        let name = format!("to {name}");
        let done = collection.inner.unary_frontier::<Nothing, _, _, _>(Pipeline, &name, move |_, _| {
            move |(input, frontier), _output| {
                input.for_each(|capability, data| {
                    for (row, time, diff) in data.drain(..) {
                        let entry = waiting.entry(time).or_insert_with(|| (capability.delayed(&time, 0), Vec::new()));
                        entry.1.push((row, diff));
                    }
                });
                while let Some(entry) = waiting.first_entry() {
                    if frontier.less_equal(entry.key()) {
                        break;
                    }
                    let (time, (_capability, mut changes)) = entry.remove_entry();
                    differential_dataflow::consolidation::consolidate(&mut changes);
                    if !changes.is_empty() && time as i64 > after {
                        logic(&changes, &mut |output| {
                            drop(sender.send(Message::Output { epoch: time as i64, output }));
                        });
                    }
                }
            }
        });
        done.probe_with(finished);
    }

    /// Hands each container of a stream to `logic`, with a way to send outputs of its epoch.
    fn sink<D: Clone + 'static>(
        &self,
        stream: StreamVec<'_, Time, D>,
        name: &str,
        finished: &probe::Handle<Time>,
        mut logic: impl FnMut(Time, Vec<D>, &mut dyn FnMut(Output)) + 'static,
    ) {
        let sender = self.sender.clone();
        let done = stream.unary::<Nothing, _, _, _>(Pipeline, &format!("to {name}"), move |_, _| {
            move |input, _output| {
                input.for_each(|capability, data| {
                    let time = *capability.time();
                    // The committer is gone only when it has failed; its error is reported by whoever joins it.
                    let mut send = |output| drop(sender.send(Message::Output { epoch: time as i64, output }));
                    logic(time, std::mem::take(data), &mut send);
                });
            }
        });
        done.probe_with(finished);
    }
}

/// The live documents of an epoch's consolidated changes, whose rows these are; those without a key have none. Where a key
/// gets a new document the one before is not made: the committer asks only what is there in the end, and a row that would
/// cancel the one before comes, being equal, from the same worker, so that it is cancelled already.
fn documents<D>(
    changes: &[(D, isize)],
    rows: &[(Row, i64)],
    key: impl Fn(&D) -> Option<&Arc<str>>,
    document: impl Fn(&D, &Row) -> (Arc<str>, String),
) -> Vec<Change> {
    let new: HashSet<&str, FixedState> =
        changes.iter().filter(|(_, diff)| *diff > 0).filter_map(|(d, _)| Some(&**key(d)?)).collect();
    let is_made = |d: &D, diff: isize| key(d).is_some_and(|key| diff > 0 || !new.contains(&**key));
    let made = changes.iter().zip(rows).filter(|((d, diff), _)| is_made(d, *diff));
    made.map(|((d, diff), (row, _))| with(document(d, row), *diff)).collect()
}

fn with((key, document): (Arc<str>, String), diff: isize) -> Change {
    (key, document, diff as i64)
}

fn upserts(changes: Vec<Change>, topic: Topic, send: &mut dyn FnMut(Output)) {
    if !changes.is_empty() {
        send(Output::Upserts { topic, changes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key (empty: it has no document), a value and a difference.
    fn made(changes: &[(&str, &str, isize)]) -> Vec<(String, i64)> {
        let changes: Vec<((Arc<str>, &str), isize)> = changes.iter().map(|(k, v, d)| (((*k).into(), *v), *d)).collect();
        let rows = vec![(Row::new(&[]), 1); changes.len()];
        let document = |fact: &(Arc<str>, &str), _: &Row| (fact.0.clone(), fact.1.to_string());
        let all = documents(&changes, &rows, |fact| (!fact.0.is_empty()).then_some(&fact.0), document);
        all.into_iter().map(|(key, document, diff)| (format!("{key} {document}"), diff)).collect()
    }

    #[test]
    fn the_document_before_is_made_only_where_there_is_no_new_one() {
        let changes = [("a", "old", -1), ("a", "new", 1), ("b", "gone", -1), ("", "no document", 1), ("c", "first", 1)];
        let expected = [("a new", 1), ("b gone", -1), ("c first", 1)].map(|(text, diff)| (text.to_string(), diff));
        assert_eq!(made(&changes), expected);
    }
}
