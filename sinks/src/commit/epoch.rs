//! What one finished epoch becomes: consolidated rows, and the live values that it changes.

use super::collect::Finished;
use super::intake::Intake;
use crate::digest::{Digester, Digests};
use crate::history::EpochRows;
use crate::message::{Output, Ticket};
use crate::outlet::{DeadLetter, LiveChange, complete};
use drivetrain_schemas::reading::{NULL, Reject};
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::{TableId, Topic};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An epoch ready to be committed.
#[derive(Debug)]
pub(super) struct Consolidated {
    pub(super) ticket: Ticket,
    pub(super) history: EpochRows,
    pub(super) changes: Vec<LiveChange>,
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// Consolidates an epoch. Nothing in the result depends on the order of its outputs.
pub(super) fn consolidate(finished: Finished, intake: &mut Intake) -> Consolidated {
    let Finished { ticket, outputs } = finished;
    let epoch = ticket.epoch;
    let mut tables: BTreeMap<TableId, Vec<(Row, i64)>> = BTreeMap::new();
    let mut upserts: BTreeMap<Topic, Vec<(Arc<str>, String, i64)>> = BTreeMap::new();
    let mut rejects: Vec<Reject> = Vec::new();
    let mut history = EpochRows { epoch, ..EpochRows::default() };
    for output in outputs {
        match output {
            Output::Rows { table, rows } => tables.entry(table).or_default().extend(rows),
            Output::Readings { batch, diff } => history.readings.push((Arc::new(batch), diff)),
            Output::Upserts { topic, changes } => upserts.entry(topic).or_default().extend(changes),
            Output::Rejects { rejects: more } => rejects.extend(more),
            Output::Late { late } => {
                tables.entry(TableId::Late).or_default().extend(late.iter().map(|r| (reject_row(r), 1)));
            }
            Output::Intake { counts } => counts.into_iter().for_each(|(origin, c)| intake.add(origin, &c)),
        }
    }
    tables.entry(TableId::Rejects).or_default().extend(rejects.iter().map(|r| (reject_row(r), 1)));
    tables.entry(TableId::Intake).or_default().extend(intake.changes(ticket.wall, ticket.stop || ticket.end));
    for (table, mut rows) in tables {
        consolidate_rows(&mut rows);
        if !rows.is_empty() {
            history.rows.push((table, rows));
        }
    }
    let wall = ticket.wall;
    let changes = upserts.into_iter().flat_map(|(topic, changes)| newest(topic, changes, epoch, wall)).collect();
    rejects.sort();
    let dead_letters = rejects.into_iter().map(|reject| DeadLetter { epoch, reject }).collect();
    Consolidated { ticket, history, changes, dead_letters }
}

/// Sums the differences of equal items; those that come to nothing disappear. Sorts.
pub(super) fn consolidate_rows<T: Ord>(rows: &mut Vec<(T, i64)>) {
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    rows.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 += later.1;
        }
        same
    });
    rows.retain(|r| r.1 != 0);
}

/// The new value of each key that changed: the document that is there after consolidation (the largest, should there
/// be several), else a tombstone.
fn newest(topic: Topic, changes: Vec<(Arc<str>, String, i64)>, epoch: i64, wall: i64) -> Vec<LiveChange> {
    let mut changes: Vec<((Arc<str>, String), i64)> = changes.into_iter().map(|(k, d, n)| ((k, d), n)).collect();
    consolidate_rows(&mut changes);
    let mut out: Vec<LiveChange> = Vec::new();
    for ((key, document), diff) in changes {
        let value = (diff > 0).then(|| complete(&document, epoch, wall));
        match out.last_mut().filter(|c| c.key == key) {
            Some(change) => change.value = value.or(change.value.take()),
            None => out.push(LiveChange { topic, key, value, epoch }),
        }
    }
    out
}

/// A rejected or late record as a row of `rejects` or `late`.
fn reject_row(r: &Reject) -> Row {
    Row::new(&[
        Cell::from(&r.origin.name),
        Cell::Int(r.origin.partition.into()),
        Cell::Int(r.position),
        if r.record_time == NULL { Cell::Null } else { Cell::Time(r.record_time) },
        Cell::from(&r.reason),
        Cell::from(r.detail.as_str()),
        r.payload.as_deref().map_or(Cell::Null, Cell::Binary),
    ])
}

impl Consolidated {
    /// Adds what the epoch says to the digests. `readings`: the history keeps them.
    pub(super) fn digest(&self, digester: &mut Digester, digests: &mut Digests, readings: bool) {
        let epoch = self.ticket.epoch;
        for (table, rows) in &self.history.rows {
            digester.rows(digests, table.name(), epoch, rows);
        }
        for (batch, diff) in self.history.readings.iter().filter(|_| readings) {
            digester.readings(digests, TableId::Readings.name(), epoch, batch, *diff);
        }
        for change in &self.changes {
            let name = live_digest(change.topic);
            digester.change(digests, name, epoch, &change.key, change.value.as_deref());
        }
    }
}

/// The name of a live topic's digest.
fn live_digest(topic: Topic) -> &'static str {
    match topic {
        Topic::DriverScores => "live/driver_scores",
        Topic::TripScores => "live/trip_scores",
        Topic::FleetAggregates => "live/fleet_aggregates",
        Topic::VehicleState => "live/vehicle_state",
        Topic::AnomaliesActive => "live/anomalies_active",
    }
}

/// Of several epochs' changes, oldest first, the last one of each key, ordered by topic and key.
pub(super) fn last_of_each_key(changes: impl IntoIterator<Item = LiveChange>) -> Vec<LiveChange> {
    let mut last: BTreeMap<(Topic, Arc<str>), LiveChange> = BTreeMap::new();
    for change in changes {
        last.insert((change.topic, change.key.clone()), change);
    }
    last.into_values().collect()
}
