//! The views that `drivetrain schema` prints for other tools give what `drivetrain sql` gives, table by table.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use support::{TABLES, TOPICS, drivetrain, one, peers, replay, repository, run};

/// `configs/fleet.toml` with a horizon that the simulated late ones miss, with short epochs so that rows are replaced,
/// and with documents that contradict each other.
fn config(directory: &Path) -> PathBuf {
    let text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let edits = [
        ("hot_horizon = \"2m\"\n", "hot_horizon = \"30s\"\n"),
        ("max_records = 131072\n", "max_records = 200\n"),
        ("max_skew = \"1m\"\n", "max_skew = \"10s\"\n"),
        ("[reference]\n", "[reference]\nfleets = { files = [\"fleets.jsonl\"] }\n"),
    ];
    let text = edits.iter().fold(text, |text, (old, new)| {
        assert_eq!(text.matches(old).count(), 1, "{old}");
        text.replace(old, new)
    });
    fs::write(directory.join("fleets.jsonl"), r#"{"fleet_id":"orphan","parent_id":"nowhere"}"#).unwrap();
    let path = directory.join("fleet.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn every_view_gives_what_sql_gives() {
    let scratch = tempfile::tempdir().unwrap();
    let (input, data) = (scratch.path().join("readings.jsonl"), scratch.path().join("data"));
    // Over midnight, so that tables by day have two.
    run(
        drivetrain()
            .args(["simulate", "--vehicles", "12", "--for", "20m", "--seed", "11", "--start", "2026-05-01T23:50:00Z"])
            .args(["--broken", "0.005", "--duplicates", "0.01", "--late", "0.05", "--faults", "--out"])
            .arg(&input),
        0,
    );
    replay(&config(scratch.path()), &data, &[], &[&input]);
    // There is something to fold, and something that isn't folded.
    for table in ["windows", "trips", "driver_scores", "fleet_aggregates", "anomalies"] {
        assert_ne!(one(&data, &format!("select count(*) from {table}_log where diff < 0")), "0", "{table}");
    }
    let days = "select count(distinct date) > 1, bool_and(diff = 1) from readings_log";
    assert_eq!(one(&data, days), "true,true");
    let Some(filled) = peers::views_agree(&data) else { return };
    let empty = |table: &&str| !filled.iter().any(|f| f == table);
    assert_eq!(TABLES.iter().copied().find(empty), None, "a view without rows shows nothing");
}

#[test]
fn the_tests_know_every_table_and_topic() {
    let output = run(drivetrain().args(["schema", "--format", "duckdb"]), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let named = text.lines().filter_map(|line| line.strip_prefix("CREATE OR REPLACE VIEW ")?.strip_suffix(" AS"));
    let logs = TABLES.map(|table| format!("{table}_log"));
    let known: BTreeSet<_> = TABLES.into_iter().chain(logs.iter().map(String::as_str)).collect();
    assert_eq!(named.collect::<BTreeSet<_>>(), known);
    let output = run(drivetrain().args(["live", "--data", ".", "nothing"]), 2);
    let text = String::from_utf8(output.stderr).unwrap();
    let topics = text.lines().find_map(|line| line.strip_prefix("topics: ")).expect("the topics");
    assert_eq!(topics.split(", ").collect::<Vec<_>>(), TOPICS);
}
