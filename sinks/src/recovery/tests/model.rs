//! A small job in the place of the dataflow: what it says at an epoch depends on the epoch's number and on its state, so
//! that it comes out right only when the state was loaded and every epoch passed once.

use crate::checkpoint::{CheckpointEntry, Part, Value, load};
use crate::message::{Binding, Message, Output, Ticket};
use crate::store::Storage;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::control::{ControlChange, ControlKind, Document, Fleet};
use drivetrain_schemas::reading::{Head, IntakeCounts, Meta, NULL, Origin, ReadingBatch, Reject};
use drivetrain_schemas::records::Records;
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::{Table, TableId, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const WALL: i64 = 1_780_000_000_000_000;
const DAY: i64 = 86_400_000_000;
const KEYS: u64 = 7;

pub(super) fn catalogue() -> Arc<Catalogue> {
    Arc::new(Catalogue::new(&[("speed".to_string(), SignalConfig::default())].into()).unwrap())
}

pub(super) fn origin(partition: i32) -> Arc<Origin> {
    Arc::new(Origin { source: "s".into(), name: "t".into(), partition })
}

/// How the job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Stop,
    End,
}

/// The ticket of an epoch; `until` is the last one.
pub(super) fn ticket(epoch: i64, until: i64, ending: Ending) -> Ticket {
    let (partition, last) = ((epoch % 2) as i32, epoch == until);
    let binding =
        Binding { origin: origin(partition), topic_id: None, start: None, end: epoch * 10, clock: Some(epoch) };
    let fleet = |id: i64| -> Arc<str> { format!("f{id}").into() };
    let control = if epoch % 3 == 0 {
        let document = Document::Fleet(Fleet { fleet_id: fleet(epoch % 2), parent_id: None, name: None });
        let gone = (epoch % 6 == 0).then(|| (fleet(1), None));
        let changes = [(fleet(epoch % 2), Some(document))].into_iter().chain(gone);
        changes.map(|(key, document)| ControlChange { kind: ControlKind::Fleets, key, document }).collect()
    } else {
        vec![]
    };
    Ticket {
        epoch,
        wall: WALL + epoch * 4_000_000,
        bindings: vec![binding],
        control,
        rejects: Vec::new(),
        idle: if epoch % 4 == 0 { vec![origin(0)] } else { vec![] },
        end: last && ending == Ending::End,
        checkpoint: epoch % 3 == 2 || (last && ending == Ending::Stop),
        stop: last && ending == Ending::Stop,
    }
}

/// The state: how often each key has come.
#[derive(Debug, Default)]
pub(super) struct Model {
    counts: BTreeMap<u64, i64>,
    changed: BTreeSet<u64>,
    /// Says something else in this epoch, as a changed program would.
    pub(super) bug: Option<i64>,
}

impl Model {
    pub(super) fn load(data: &Storage, entry: &CheckpointEntry) -> Self {
        let mut model = Self::default();
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().parse::<i64>().unwrap();
        load(data, entry, "model", &mut |key, value| {
            let Value::Bytes(count) = value else { panic!("{value:?}") };
            model.counts.insert(number(key) as u64, number(count));
        })
        .unwrap();
        model
    }

    /// All messages of an epoch from `workers` workers, the ticket among them.
    pub(super) fn step(&mut self, ticket: &Ticket, workers: usize) -> Vec<Message> {
        let epoch = ticket.epoch;
        let mut messages = vec![Message::Ticket(ticket.clone())];
        let mut outputs: Vec<Vec<Output>> = (0..workers).map(|_| Vec::new()).collect();
        for i in 0..3u64 {
            let key = (epoch as u64 * 5 + i * i) % KEYS;
            let count = self.counts.entry(key).or_default();
            let before = *count;
            *count += if self.bug == Some(epoch) { 2 } else { 1 };
            self.changed.insert(key);
            outputs[key as usize % workers].extend(said(epoch, key, before, *count));
        }
        outputs[epoch as usize % workers].extend(others(epoch));
        for (worker, outputs) in outputs.into_iter().enumerate() {
            messages.extend(outputs.into_iter().map(|output| Message::Output { epoch, output }));
            if ticket.checkpoint {
                let mut records = Records::keyed();
                for key in self.changed.iter().filter(|k| **k as usize % workers == worker) {
                    records
                        .put(key.to_string().as_bytes(), |out| out.extend(self.counts[key].to_string().into_bytes()));
                }
                messages.push(Message::Part { epoch, part: Part { operator: "model".into(), worker, records }.into() });
            }
            messages.push(Message::Frontier { worker, epoch: epoch + 1 });
        }
        if ticket.checkpoint {
            self.changed.clear();
        }
        messages
    }
}

/// What a key's change says: rows of a day of its own, and a live value that ends now and then.
fn said(epoch: i64, key: u64, before: i64, now: i64) -> Vec<Output> {
    let row = |count: i64| -> Row {
        let table = Table::new(TableId::Quality, &Catalogue::default());
        let mut row = vec![Cell::Null; table.columns.len()];
        for name in ["received", "invalid", "duplicates", "late"] {
            row[table.column(name).unwrap()] = Cell::Int(count);
        }
        let vehicle = format!("v{key}");
        row[..3].copy_from_slice(&[
            Cell::from(vehicle.as_str()),
            Cell::from("speed"),
            Cell::Time(WALL + (key as i64 % 3) * DAY),
        ]);
        Row::new(&row)
    };
    let document = |count: i64| format!("{{\"n\":{count}}}");
    let (mut rows, mut changes) = (vec![(row(now), 1)], Vec::new());
    let live_key: Arc<str> = format!("k{key}").into();
    if before > 0 {
        rows.push((row(before), -1));
        changes.push((live_key.clone(), document(before), -1));
    }
    if (epoch + now) % 5 != 0 {
        changes.push((live_key, document(now), 1));
    }
    vec![Output::Rows { table: TableId::Quality, rows }, Output::Upserts { topic: Topic::DriverScores, changes }]
}

/// What an epoch says beside: readings over midnight, a rejected record, counts.
fn others(epoch: i64) -> Vec<Output> {
    let vehicle = format!("v{}", epoch % 4).into();
    let meta =
        Arc::new(Meta { vehicle, texts: vec![], driver: None, trip: None, fleet: None, quality: None, tags: None });
    let mut batch = ReadingBatch::new(origin((epoch % 2) as i32), 1);
    for i in 0..4 {
        let at = WALL + epoch * 1000 + i * DAY / 2;
        batch.push(Head { at, position: epoch, record_time: NULL, meta: 0, element: 0 }, &meta, &[epoch * 1_000_000]);
    }
    let reject = Reject {
        origin: origin(0),
        position: epoch,
        record_time: WALL,
        reason: "not_json".into(),
        detail: String::new(),
        payload: Some(vec![epoch as u8]),
    };
    let counts = IntakeCounts { records: 5, decoded: 4, rejected: 1, readings: 4, used: 4, ..Default::default() };
    vec![
        Output::Readings { batch, diff: 1 },
        Output::Rejects { rejects: vec![reject.clone()] },
        Output::Late { late: vec![reject] },
        Output::Intake { counts: vec![(origin((epoch % 2) as i32), counts)] },
    ]
}
