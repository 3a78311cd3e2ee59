//! What the end-to-end tests share: the binary, scratch directories, the recordings, a real Kafka.
//!
//! Each test runs the program as a user does: `drivetrain replay …`, then `drivetrain sql …`.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod job;
pub mod kafka;
pub mod mount;
pub mod peers;
pub mod s3;
pub mod steps;
pub mod topics;
pub mod world;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
pub fn drivetrain() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drivetrain"));
    command.env("RUST_BACKTRACE", "0");
    command.envs(VARIABLES.with_borrow(Clone::clone));
    command
}

thread_local! {
    /// What each program that this test starts has in its environment.
    static VARIABLES: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
}

/// From now on each program that this test starts has these in its environment.
pub fn set_variables(variables: Vec<(String, String)>) {
    VARIABLES.replace(variables);
}

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A recording under `../shared/data`. A test that needs one fails without it.
pub fn recording(path: &str) -> PathBuf {
    let root = std::env::var_os("DRIVETRAIN_TEST_DATA").map_or_else(|| repository("../shared/data"), PathBuf::from);
    let file = root.join(path);
    assert!(file.exists(), "{} is missing: this test needs the recordings (DRIVETRAIN_TEST_DATA)", file.display());
    file
}

/// The days of the bus recording, in order.
pub fn bus_days() -> Vec<PathBuf> {
    let entries =
        fs::read_dir(recording("capmetrics")).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut days: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "gz")).collect();
    days.sort();
    assert_eq!(days.len(), 20);
    days
}

/// The text of a `.gz` file.
pub fn unzipped(path: &Path) -> String {
    let output = run(Command::new("gzip").arg("-dc").arg(path), 0);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs to the end; panics with everything it said unless it exits with `code`.
#[track_caller]
pub fn run(command: &mut Command, code: i32) -> Output {
    let output = command.output().expect("the program starts");
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}\nstdout:\n{}\nstderr:\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Sends a signal, such as `-TERM`, to a process that is there.
#[track_caller]
pub fn signal(process: u32, signal: &str) {
    run(Command::new("kill").args([signal, &process.to_string()]), 0);
}

/// `drivetrain replay --config CONFIG --data DATA EXTRA… INPUTS…`, which must succeed.
#[track_caller]
pub fn replay(config: &Path, data: &Path, extra: &[&str], inputs: &[&Path]) -> Output {
    let mut command = drivetrain();
    command.arg("replay").arg("--config").arg(config).arg("--data").arg(data).args(extra).args(inputs);
    run(&mut command, 0)
}

/// How many commits the local progress log of a job has.
pub fn committed(data: &Path) -> usize {
    fs::read_to_string(data.join("progress/log.jsonl")).map_or(0, |log| log.matches("\"commit\":{").count())
}

/// The answer of `drivetrain sql --format csv`, without its header.
#[track_caller]
pub fn sql(data: &Path, query: &str) -> Vec<String> {
    let output = run(drivetrain().args(["sql", "--format", "csv", "--data"]).arg(data).arg(query), 0);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().skip(1).map(str::to_string).collect()
}

/// The only line of an answer.
#[track_caller]
pub fn one(data: &Path, query: &str) -> String {
    let lines = sql(data, query);
    assert_eq!(lines.len(), 1, "{query}: {lines:?}");
    lines[0].clone()
}

/// Every table of the history (`tests/views.rs` holds it against the program's own list).
pub const TABLES: [&str; 12] = [
    "readings",
    "windows",
    "events",
    "trips",
    "driver_scores",
    "fleet_aggregates",
    "anomalies",
    "quality",
    "reference_problems",
    "intake",
    "late",
    "rejects",
];

/// Every live topic (held likewise).
pub const TOPICS: [&str; 5] = ["driver_scores", "trip_scores", "fleet_aggregates", "vehicle_state", "anomalies_active"];

/// The live values of every topic, as [`live`] gives them.
#[track_caller]
pub fn live_state(data: &Path) -> Vec<(String, Vec<String>)> {
    TOPICS.iter().map(|topic| (format!("live {topic}"), live(data, topic))).collect()
}

/// The sorted rows of a query of each table, which is named after it.
#[track_caller]
pub fn rows_of(data: &Path, query: impl Fn(&str) -> String) -> Vec<(String, Vec<String>)> {
    let rows = |table: &&str| {
        let mut rows = sql(data, &query(table));
        rows.sort();
        (table.to_string(), rows)
    };
    TABLES.iter().map(rows).collect()
}

/// The state of every table (sorted rows) and the newest live value of each key, without `epoch` and `updated_at`:
/// what promise 1 (a) says is equal. `rejects` by payload and reason.
#[track_caller]
pub fn final_state(data: &Path) -> Vec<(String, Vec<String>)> {
    let mut state = table_state(data);
    state.extend(live_state(data));
    state
}

/// The part of [`final_state`] that is in the history.
#[track_caller]
pub fn table_state(data: &Path) -> Vec<(String, Vec<String>)> {
    rows_of(data, |table| match table {
        "rejects" => "select reason, encode(payload, 'hex') from rejects".into(),
        _ => format!("select * from {table}"),
    })
}

/// The live values of a topic as `key<TAB>document`, without `epoch` and `updated_at`, by key.
pub fn live(data: &Path, topic: &str) -> Vec<String> {
    let output = run(drivetrain().args(["live", "--data"]).arg(data).arg(topic), 0);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let strip = |line: &str| {
        let (key, document) = line.split_once('\t').expect("key<TAB>document");
        let mut document: serde_json::Value = serde_json::from_str(document).expect("JSON");
        let fields = document.as_object_mut().expect("an object");
        fields.remove("epoch");
        fields.remove("updated_at");
        format!("{key}\t{document}")
    };
    text.lines().map(strip).collect()
}

/// Fails with the first difference of two states, table by table.
#[track_caller]
pub fn assert_same(what: &str, left: &[(String, Vec<String>)], right: &[(String, Vec<String>)]) {
    for ((name, a), (_, b)) in left.iter().zip(right) {
        let first = a.iter().zip(b).find(|(x, y)| x != y);
        assert!(a == b, "{what}: `{name}` differs: {} rows and {} rows; first difference: {first:?}", a.len(), b.len());
    }
}

/// Every row of every log, with its epoch, and the live values.
#[track_caller]
pub fn every_step(data: &Path) -> Vec<(String, Vec<String>)> {
    let mut logs = every_row(data);
    logs.extend(live_state(data));
    logs
}

/// Every row of every log, with its epoch.
#[track_caller]
pub fn every_row(data: &Path) -> Vec<(String, Vec<String>)> {
    rows_of(data, |table| {
        let columns = match table {
            "rejects" | "late" => "epoch, diff, origin, partition, position, reason, encode(payload, 'hex')",
            _ => "*",
        };
        format!("select {columns} from {table}_log")
    })
}
