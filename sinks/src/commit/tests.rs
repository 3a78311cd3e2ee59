//! The committer against a slow reference: whatever the interleaving of messages and the size of commits, the history
//! and the live topics are what summing up all changes by hand gives.

use super::epoch::consolidate_rows;
use super::*;
use crate::live::{LocalOutlet, read_dead_letters, read_latest};
use crate::manifest::{epoch_at, manifest, wall_of};
use crate::message::{Output, Ticket};
use crate::progress::data::Held;
use crate::progress::local;
use crate::progress::{Claim, ProgressEntry, ProgressError, ProgressLog, ProgressRecord};
use crate::recovery::{self, Identity, Start};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use drivetrain_schemas::reading::Reject;
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::Topic;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use std::path::Path;
use std::sync::atomic::Ordering;

const WALL: i64 = 1_780_000_000_000_000;

fn identity() -> Identity {
    Identity { job: "job".into(), config_hash: "c".into(), version: "v".into(), sections: BTreeMap::new() }
}

/// A job that has never run.
fn start_with(dir: &Path, workers: usize, outlet: impl FnOnce(&DataDir) -> Box<dyn Outlet>) -> CommitterHandle {
    let data = DataDir::lock(dir, "job", WALL, Held::Refuse).unwrap();
    let mut outlet = outlet(&data);
    let started = recovery::start(&data, outlet.as_mut(), &identity()).unwrap();
    let Start::New { generation } = started else { panic!("it has run: {started:?}") };
    let (catalogue, history) = (Arc::new(Catalogue::default()), HistoryConfig::default());
    let config = CommitterConfig { data, generation, identity: identity(), workers, catalogue, history, resume: None };
    Committer::start(config, outlet).unwrap()
}

fn start(dir: &Path, workers: usize) -> CommitterHandle {
    start_with(dir, workers, |data| Box::new(LocalOutlet::open(data).unwrap()))
}

fn ticket(epoch: i64, end: bool) -> Message {
    Message::Ticket(Ticket { epoch, wall: WALL + epoch * 4_000_000, end, ..Ticket::default() })
}

fn problem(n: u8) -> Row {
    Row::new(&[Cell::from(format!("document-{n}").as_str()), Cell::from("wrong")])
}

fn rows(epoch: i64, rows: Vec<(Row, i64)>) -> Message {
    Message::Output { epoch, output: Output::Rows { table: TableId::ReferenceProblems, rows } }
}

fn upsert(epoch: i64, key: u8, document: u8, diff: i64) -> Message {
    let change = (Arc::from(format!("k{key}")), format!("{{\"d\":{document}}}"), diff);
    Message::Output { epoch, output: Output::Upserts { topic: Topic::DriverScores, changes: vec![change] } }
}

/// All rows of a table's published history: (first column, epoch) → sum of `diff`, and the number of rows.
fn published(dir: &Path, table: TableId) -> (BTreeMap<(String, i64), i64>, usize) {
    let (mut sums, mut count) = (BTreeMap::new(), 0);
    for file in manifest(dir).unwrap().files.into_iter().filter(|f| f.table == table) {
        let reader = std::fs::File::open(dir.join(&file.path)).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(reader).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let int = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let (first, epoch, diff) = (batch.column(0).as_string::<i32>(), int("epoch"), int("diff"));
            for i in 0..batch.num_rows() {
                *sums.entry((first.value(i).to_string(), epoch.value(i))).or_default() += diff.value(i);
                count += 1;
            }
        }
    }
    (sums, count)
}

/// (first column, epoch) → sum of `diff`.
type Log = BTreeMap<(String, i64), i64>;
/// Key → (document, epoch).
type Live = BTreeMap<String, (u8, i64)>;

/// What a worker has for one epoch: rows (document, diff), and live values (key, document, diff).
type Part = (Vec<(u8, i64)>, Vec<(u8, u8, i64)>);

fn part() -> impl Strategy<Value = Part> {
    let diff = || prop_oneof![Just(1i64), Just(-1)];
    (proptest::collection::vec((0u8..4, diff()), 0..4), proptest::collection::vec((0u8..3, 0u8..3, diff()), 0..4))
}

/// The messages of three senders, merged as `order` says; each sender's own order is kept.
fn merged(epochs: &[(Part, Part)], order: &[u8], stop: bool) -> Vec<Message> {
    let mut senders: [std::collections::VecDeque<Message>; 3] = Default::default();
    let last = epochs.len() as i64 - 1;
    for (e, (a, b)) in epochs.iter().enumerate() {
        let e = e as i64;
        senders[2].push_back(ticket(e, !stop && e == last));
        for (worker, part) in [a, b].into_iter().enumerate() {
            let sender = &mut senders[worker];
            sender.push_back(rows(e, part.0.iter().map(|(n, d)| (problem(*n), *d)).collect()));
            sender.extend(part.1.iter().map(|(key, document, diff)| upsert(e, *key, *document, *diff)));
            sender.push_back(Message::Frontier { worker, epoch: e + 1 });
        }
    }
    if stop {
        senders[2].push_back(Message::Stop);
    }
    let mut out = Vec::new();
    for choice in order.iter().cycle() {
        if senders.iter().all(|s| s.is_empty()) {
            return out;
        }
        let turn = usize::from(*choice) % 3;
        let sender = (turn..turn + 3).map(|i| i % 3).find(|i| !senders[*i].is_empty()).unwrap();
        out.extend(senders[sender].pop_front());
    }
    out
}

/// Sums by hand: the log's rows, and the newest document of each key.
fn reference(epochs: &[(Part, Part)]) -> (Log, Live) {
    let (mut log, mut live) = (BTreeMap::new(), BTreeMap::new());
    for (e, (a, b)) in epochs.iter().enumerate() {
        let mut values: BTreeMap<u8, BTreeMap<u8, i64>> = BTreeMap::new();
        for part in [a, b] {
            for (n, diff) in &part.0 {
                *log.entry((format!("document-{n}"), e as i64)).or_default() += diff;
            }
            for (key, document, diff) in &part.1 {
                *values.entry(*key).or_default().entry(*document).or_default() += diff;
            }
        }
        for (key, documents) in values {
            let newest = documents.iter().rev().find(|(_, diff)| **diff > 0);
            match newest {
                Some((document, _)) => live.insert(format!("k{key}"), (*document, e as i64)),
                None if documents.values().any(|d| *d != 0) => live.remove(&format!("k{key}")),
                None => None,
            };
        }
    }
    log.retain(|_, diff| *diff != 0);
    (log, live)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_gives_the_same(
        epochs in proptest::collection::vec((part(), part()), 1..8),
        order in proptest::collection::vec(0u8..3, 1..40),
        stop in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let handle = start(dir.path(), 2);
        let sender = handle.sender();
        merged(&epochs, &order, stop).into_iter().for_each(|m| sender.send(m).unwrap());
        let summary = handle.join().unwrap();
        let last = epochs.len() as i64 - 1;
        prop_assert_eq!((summary.committed_epoch, summary.epochs), (last, epochs.len() as u64));
        let (log, live) = reference(&epochs);
        let (got, count) = published(dir.path(), TableId::ReferenceProblems);
        prop_assert_eq!(count, log.len(), "consolidated rows only");
        prop_assert_eq!(got, log);
        let values: BTreeMap<String, (u8, i64)> = read_latest(dir.path(), "driver_scores").unwrap().into_iter().map(|(key, json)| {
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            (key, (value["d"].as_u64().unwrap() as u8, value["epoch"].as_i64().unwrap()))
        }).collect();
        prop_assert_eq!(values, live);
        let manifest = manifest(dir.path()).unwrap();
        prop_assert!(manifest.end != stop && manifest.committed_epoch == last && manifest.history_epoch == last);
        prop_assert!(!dir.path().join("staging").exists(), "nothing is left behind");
    }

    #[test]
    fn consolidation_is_a_sum(rows in proptest::collection::vec((0u8..5, -2i64..3), 0..30)) {
        let mut sums = BTreeMap::new();
        rows.iter().for_each(|(k, d)| *sums.entry(*k).or_insert(0i64) += d);
        sums.retain(|_, d| *d != 0);
        let mut got = rows;
        consolidate_rows(&mut got);
        prop_assert_eq!(got, sums.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn the_progress_log_tells_it_all() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), 1);
    let sender = handle.sender();
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    let reject = |position| Reject {
        origin: origin.clone(),
        position,
        record_time: WALL,
        reason: "not_json".into(),
        detail: String::new(),
        payload: Some(vec![255]),
    };
    let counts =
        IntakeCounts { records: 5, decoded: 4, readings: 4, used: 3, late: 1, rejected: 1, ..Default::default() };
    for e in 0..4 {
        sender.send(ticket(e, e == 3)).unwrap();
        let output = Output::Intake { counts: vec![(origin.clone(), counts)] };
        sender.send(Message::Output { epoch: e, output }).unwrap();
        let output = Output::Rejects { rejects: vec![reject(e)] };
        sender.send(Message::Output { epoch: e, output }).unwrap();
        let output = Output::Late { late: vec![reject(100 + e)] };
        sender.send(Message::Output { epoch: e, output }).unwrap();
        sender.send(Message::Frontier { worker: 0, epoch: e + 1 }).unwrap();
    }
    let committed = handle.committed();
    let summary = handle.join().unwrap();
    assert_eq!(committed.load(Ordering::Acquire), 3);
    assert_eq!(summary.intake[&origin].records, 20);
    assert_eq!(summary.topics["dead_letter"], [4]);
    assert_eq!(summary.rows[&TableId::Rejects], 4);
    assert_eq!(summary.rows[&TableId::Late], 4);
    // Epochs are 4 s apart: the sums are logged 12 s after the first and at the end, which is the same epoch.
    assert_eq!(published(dir.path(), TableId::Intake).0, [(("s".to_string(), 3), 1)].into());
    assert_eq!(read_dead_letters(dir.path()).unwrap().len(), 4);

    let entries = local::read_all(dir.path()).unwrap();
    assert!(matches!(&entries[0], ProgressEntry::Claim(Claim { generation: 1, .. })));
    let records: Vec<&ProgressRecord> =
        entries.iter().filter_map(|e| if let ProgressEntry::Commit(r) = e { Some(r) } else { None }).collect();
    let epochs: Vec<i64> = records.iter().flat_map(|r| r.epochs.iter().map(|t| t.epoch)).collect();
    assert_eq!(epochs, [0, 1, 2, 3]);
    let last = records.last().unwrap();
    assert!(last.end && last.history_epoch == 3 && last.topics["dead_letter"] == [4]);
    for file in records.iter().flat_map(|r| &r.published) {
        let bytes = std::fs::read(dir.path().join(&file.path)).unwrap();
        assert_eq!(file.checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)));
    }
    assert_eq!(wall_of(dir.path(), Some(2)).unwrap(), Some(WALL + 8_000_000));
    assert_eq!(epoch_at(dir.path(), WALL + 7_999_999).unwrap(), Some(1));
    assert_eq!(epoch_at(dir.path(), WALL - 1).unwrap(), None);
    let data = DataDir::lock(dir.path(), "job", WALL, Held::Refuse).unwrap();
    let again = recovery::start(&data, &mut LocalOutlet::open(&data).unwrap(), &identity()).unwrap();
    assert!(matches!(again, Start::Finished { committed: 3, .. }), "{again:?}");
}

#[test]
fn a_failure_commits_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), 2);
    let sender = handle.sender();
    sender.send(ticket(0, false)).unwrap();
    sender.send(rows(0, vec![(problem(1), 1)])).unwrap();
    sender.send(Message::Frontier { worker: 0, epoch: 1 }).unwrap();
    sender.send(Message::Failed("worker 1: out of luck".into())).unwrap();
    let error = handle.join().unwrap_err();
    assert!(matches!(error, CommitError::Failed(_)) && !error.is_retryable(), "{error}");
    assert_eq!(error.to_string(), "worker 1: out of luck");
    assert_eq!(local::committed_epoch(dir.path()).unwrap(), None);
    assert!(!dir.path().join("history").exists());
}

#[test]
fn going_away_is_not_ending() {
    let dir = tempfile::tempdir().unwrap();
    let handle = start(dir.path(), 1);
    let sender = handle.sender();
    sender.send(ticket(0, false)).unwrap();
    sender.send(Message::Frontier { worker: 0, epoch: 1 }).unwrap();
    drop(sender);
    assert!(matches!(handle.join(), Err(CommitError::Abandoned(0))));
    assert_eq!(local::committed_epoch(dir.path()).unwrap(), Some(0));
}

#[test]
fn faults_of_the_program_are_found() {
    let after_frontier = vec![ticket(0, false), Message::Frontier { worker: 0, epoch: 9 }, ticket(0, false)];
    let twice = vec![ticket(0, false), ticket(0, false)];
    let nobody = vec![Message::Frontier { worker: 7, epoch: 0 }];
    for messages in [after_frontier, twice, nobody] {
        let dir = tempfile::tempdir().unwrap();
        let handle = start(dir.path(), 1);
        let sender = handle.sender();
        for message in messages {
            let _ = sender.send(message);
        }
        drop(sender);
        let error = handle.join().unwrap_err();
        assert!(matches!(error, CommitError::Protocol { .. }), "{error}");
    }
}

/// An outlet that notes its calls and fails at one of them.
#[derive(Clone, Default)]
struct Noting {
    calls: Arc<std::sync::Mutex<Vec<&'static str>>>,
    fail: Option<&'static str>,
}

impl Noting {
    fn note(&self, call: &'static str) -> Result<(), ProgressError> {
        self.calls.lock().unwrap().push(call);
        let problem = || ProgressError::Corrupt { place: call.into(), problem: "as asked".into() };
        if self.fail == Some(call) { Err(problem()) } else { Ok(()) }
    }
}

impl ProgressLog for Noting {
    fn claim(&mut self, _: &Claim) -> Result<(), ProgressError> {
        self.note("claim")
    }
    fn append(&mut self, _: &ProgressRecord) -> Result<(), ProgressError> {
        self.note("append")
    }
    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError> {
        Ok(Vec::new())
    }
}

impl Outlet for Noting {
    fn resume(&mut self, _: i64) -> Result<(), OutletError> {
        Ok(self.note("resume")?)
    }
    fn begin(&mut self) -> Result<(), OutletError> {
        Ok(self.note("begin")?)
    }
    fn produce(&mut self, _: &crate::outlet::LiveOutput) -> Result<(), OutletError> {
        Ok(self.note("produce")?)
    }
    fn commit(&mut self) -> Result<(), OutletError> {
        Ok(self.note("commit")?)
    }
    fn settle(&mut self) -> Result<(), OutletError> {
        Ok(self.note("settle")?)
    }
}

#[test]
fn steps_come_in_order_and_nothing_is_published_before_the_commit() {
    let order = ["claim", "resume", "begin", "produce", "append", "commit", "settle"];
    for (i, fail) in [None, Some("begin"), Some("produce"), Some("append"), Some("commit")].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let outlet = Noting { fail, ..Noting::default() };
        let handle = start_with(dir.path(), 1, |_| Box::new(outlet.clone()));
        let sender = handle.sender();
        sender.send(rows(0, vec![(problem(1), 1)])).unwrap();
        sender.send(ticket(0, true)).unwrap();
        sender.send(Message::Frontier { worker: 0, epoch: i64::MAX }).unwrap();
        let committed = handle.committed();
        assert_eq!(handle.join().is_ok(), fail.is_none());
        let calls = outlet.calls.lock().unwrap().clone();
        let expected = fail.map_or(order.len(), |f| order.iter().position(|o| *o == f).unwrap() + 1);
        assert_eq!(calls, order[..expected], "case {i}");
        assert_eq!(dir.path().join("history").exists(), fail.is_none());
        assert_eq!(committed.load(Ordering::Acquire), if fail.is_none() { 0 } else { i64::MAX }, "nobody waits");
        assert_eq!(manifest(dir.path()).unwrap().files.len(), usize::from(fail.is_none()));
    }
}
