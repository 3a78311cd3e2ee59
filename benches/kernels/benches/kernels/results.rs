//! What becomes of results: columns and Parquet, live documents, a commit without Kafka. Files go to the system's
//! temporary directory, and what is synced is measured with it.

use crate::{SECONDS, VEHICLES, of_readings};
use criterion::{BatchSize, Criterion, Throughput};
use drivetrain_kernels::batches::epochs;
use drivetrain_kernels::{SECOND, START, Setup, readings};
use drivetrain_schemas::arrow::{self, ReadingPart};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::document::document;
use drivetrain_schemas::reading::ReadingBatch;
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::{Table, TableId, Topic};
use drivetrain_sinks::commit::{Committer, CommitterConfig, CommitterHandle};
use drivetrain_sinks::history::{EpochRows, HistoryConfig, HistoryWriter, Published};
use drivetrain_sinks::live::LocalOutlet;
use drivetrain_sinks::message::{Message, Output, Ticket};
use drivetrain_sinks::outlet::{LiveChange, LiveOutput, Outlet, complete};
use drivetrain_sinks::progress::data::{DataDir, Held};
use drivetrain_sinks::recovery::{self, Identity, Start};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tempfile::{TempDir, tempdir};

/// Epochs of a commit, and rows and documents of each.
const EPOCHS: i64 = 8;
const ROWS: usize = if cfg!(debug_assertions) { 50 } else { 2_000 };

/// A row of `windows`.
fn window(i: usize) -> Row {
    let vehicle = format!("veh-{:06}", i % VEHICLES);
    let start = START + (i / VEHICLES) as i64 * 60 * SECOND;
    let number = |n: usize| Cell::fixed((i * 7919 + n) as i128 % 400_000_000, 6);
    Row::new(&[
        Cell::from(vehicle.as_str()),
        Cell::from("speed_kmh"),
        Cell::from("1m"),
        Cell::Time(start),
        Cell::Time(start + 60 * SECOND),
        Cell::Int(60),
        number(0),
        number(1),
        number(2),
        number(3),
        number(4),
        number(5),
        number(6),
        Cell::Null,
        Cell::Null,
        Cell::Null,
    ])
}

/// A key and its row of `driver_scores`.
fn driver(i: usize) -> (Arc<str>, Row) {
    let id = format!("drv-{i:06}");
    let row = Row::new(&[
        Cell::from(id.as_str()),
        Cell::from("fleetflow"),
        Cell::fixed((i as i128 * 31) % 100_000_000, 6),
        Cell::from("good"),
        Cell::Int(i as i64 % 50),
        Cell::fixed(i as i128 * 1_234_567, 6),
        Cell::fixed(i as i128 * 7_654_321, 6),
        Cell::Int(3),
        Cell::Int(1),
        Cell::Int(0),
        Cell::Null,
        Cell::from("depot-3"),
        Cell::from("active"),
    ]);
    (id.into(), row)
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let setup = Setup::new();
    parquet(criterion, &setup);
    upsert(criterion);
    commit(criterion);
}

fn history(dir: &Path, catalogue: &Arc<Catalogue>) -> HistoryWriter {
    HistoryWriter::start(dir, 1, catalogue.clone(), HistoryConfig::default(), Published::default()).unwrap()
}

/// One epoch into closed files.
fn encode(dir: &TempDir, setup: &Setup, rows: EpochRows) -> u64 {
    let mut writer = history(dir.path(), &setup.catalogue);
    writer.add(rows).unwrap();
    let closed = writer.drain().unwrap();
    assert!(!closed.files.is_empty());
    closed.files.iter().map(|file| file.bytes).sum()
}

fn parquet(criterion: &mut Criterion, setup: &Setup) {
    let epoch = epochs(&readings(VEHICLES, SECONDS), usize::MAX).swap_remove(0);
    let batches: Vec<Arc<ReadingBatch>> = epoch.batches.into_iter().map(Arc::new).collect();
    let mut group = criterion.benchmark_group("parquet");
    group.throughput(of_readings(VEHICLES * SECONDS));
    let table = Table::new(TableId::Readings, &setup.catalogue);
    let parts: Vec<ReadingPart> =
        batches.iter().map(|batch| ReadingPart { epoch: 0, diff: 1, batch: batch.clone() }).collect();
    group.bench_function("readings_to_columns", |b| {
        b.iter(|| arrow::readings(&setup.catalogue, &table, &parts).unwrap());
    });
    let readings = batches.iter().map(|batch| (batch.clone(), 1)).collect::<Vec<_>>();
    let fresh = || (tempdir().unwrap(), EpochRows { epoch: 0, rows: Vec::new(), readings: readings.clone() });
    group.bench_function("readings", |b| {
        b.iter_batched(fresh, |(dir, rows)| (encode(&dir, setup, rows), dir), BatchSize::PerIteration);
    });
    let windows: Vec<(Row, i64)> = (0..ROWS * 10).map(|i| (window(i), 1)).collect();
    let bytes = windows.iter().map(|(row, _)| row.bytes().len() as u64).sum();
    group.throughput(Throughput::ElementsAndBytes { elements: windows.len() as u64, bytes });
    let fresh = || {
        let rows = vec![(TableId::Windows, windows.clone())];
        (tempdir().unwrap(), EpochRows { epoch: 0, rows, readings: Vec::new() })
    };
    group.bench_function("windows", |b| {
        b.iter_batched(fresh, |(dir, rows)| (encode(&dir, setup, rows), dir), BatchSize::PerIteration);
    });
    group.finish();
}

fn upsert(criterion: &mut Criterion) {
    let table = Table::new(TableId::DriverScores, &Catalogue::default());
    let rows: Vec<(Arc<str>, Row)> = (0..ROWS).map(driver).collect();
    let documents: Vec<String> = rows.iter().map(|(_, row)| document(&table, row)).collect();
    let mut group = criterion.benchmark_group("upsert");
    group.throughput(crate::of_records(&documents));
    group.bench_function("document", |b| {
        b.iter(|| rows.iter().map(|(_, row)| document(&table, row).len()).sum::<usize>());
    });
    group.bench_function("complete", |b| {
        b.iter(|| documents.iter().map(|text| complete(text, 7, START).len()).sum::<usize>());
    });
    let change = |((key, _), text): (&(Arc<str>, Row), &String)| LiveChange {
        topic: Topic::DriverScores,
        key: key.clone(),
        value: Some(complete(text, 7, START)),
        epoch: 7,
    };
    let output = LiveOutput { changes: rows.iter().zip(&documents).map(change).collect(), dead_letters: Vec::new() };
    let dir = tempdir().unwrap();
    let data = DataDir::lock(dir.path(), "bench", START, Held::Refuse).unwrap();
    let mut outlet = LocalOutlet::open(&data).unwrap();
    group.bench_function("local_topic", |b| {
        b.iter(|| {
            outlet.begin().unwrap();
            outlet.produce(&output).unwrap();
            // Else the log of the topic grows by a copy each time.
            outlet.settle().unwrap();
        });
    });
    group.finish();
}

/// A job that has never run.
fn committer(dir: &Path) -> CommitterHandle {
    let identity =
        Identity { job: "bench".into(), config_hash: "c".into(), version: "v".into(), sections: BTreeMap::new() };
    let data = DataDir::lock(dir, "bench", START, Held::Refuse).unwrap();
    let mut outlet = LocalOutlet::open(&data).unwrap();
    let Start::New { generation } = recovery::start(&data, &mut outlet, &identity).unwrap() else {
        panic!("the directory is new");
    };
    let (catalogue, history) = (Arc::new(Catalogue::default()), HistoryConfig::default());
    let config = CommitterConfig { data, generation, identity, workers: 1, catalogue, history, resume: None };
    Committer::start(config, Box::new(outlet)).unwrap()
}

/// All that one worker and the source say in [`EPOCHS`] epochs.
fn messages(rows: &[(Arc<str>, Row)], documents: &[String]) -> Vec<Message> {
    let mut out = Vec::new();
    for epoch in 0..EPOCHS {
        let output = |output| Message::Output { epoch, output };
        let end = epoch == EPOCHS - 1;
        out.push(Message::Ticket(Ticket { epoch, wall: START + epoch, end, ..Ticket::default() }));
        let table = rows.iter().map(|(_, row)| (row.clone(), 1)).collect();
        out.push(output(Output::Rows { table: TableId::DriverScores, rows: table }));
        // The one before ceases to be true.
        let one = |((key, _), text): (&(Arc<str>, Row), &String), epoch: i64, diff| {
            (key.clone(), text.replacen('{', &format!("{{\"n\":{epoch},"), 1), diff)
        };
        let new = rows.iter().zip(documents).map(|row| one(row, epoch, 1));
        let old = rows.iter().zip(documents).filter(|_| epoch > 0).map(|row| one(row, epoch - 1, -1));
        out.push(output(Output::Upserts { topic: Topic::DriverScores, changes: new.chain(old).collect() }));
        out.push(Message::Frontier { worker: 0, epoch: if end { i64::MAX } else { epoch + 1 } });
    }
    out
}

fn commit(criterion: &mut Criterion) {
    let table = Table::new(TableId::DriverScores, &Catalogue::default());
    let rows: Vec<(Arc<str>, Row)> = (0..ROWS).map(driver).collect();
    let documents: Vec<String> = rows.iter().map(|(_, row)| document(&table, row)).collect();
    let mut group = criterion.benchmark_group("commit");
    let bytes: usize = rows.iter().zip(&documents).map(|((_, row), text)| row.bytes().len() + text.len()).sum();
    let elements = EPOCHS as u64 * 2 * ROWS as u64;
    group.throughput(Throughput::ElementsAndBytes { elements, bytes: EPOCHS as u64 * bytes as u64 });
    let fresh = || {
        let dir = tempdir().unwrap();
        (committer(dir.path()), dir, messages(&rows, &documents))
    };
    let run = |(committer, dir, messages): (CommitterHandle, TempDir, Vec<Message>)| {
        let sender = committer.sender();
        messages.into_iter().for_each(|message| sender.send(message).unwrap());
        drop(sender);
        let summary = committer.join().unwrap();
        assert_eq!((summary.committed_epoch, summary.epochs), (EPOCHS - 1, EPOCHS as u64));
        dir
    };
    group.bench_function("local_files", |b| b.iter_batched(fresh, run, BatchSize::PerIteration));
    group.finish();
}
