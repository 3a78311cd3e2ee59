//! Jobs on a real Kafka that are disturbed, and what must be there in the end.

use super::job::Job;
use super::topics::{latest, wait_until_read};
use super::{TOPICS, drivetrain, one, repository, rows_of, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `configs/fleet.toml` as NAME.toml with fields set (each as `(field, TOML value)`, wherever a field of that name stands,
/// else where it is commented out).
pub fn fleet(directory: &Path, name: &str, fields: &[(&str, &str)]) -> PathBuf {
    let text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    for (field, value) in fields {
        let places = |start: String| {
            let is_it = |line: &String| line.starts_with(&start);
            lines.iter().enumerate().filter(|(_, line)| is_it(line)).map(|(i, _)| i).collect::<Vec<_>>()
        };
        let mut found = places(format!("{field} = "));
        if found.is_empty() {
            found = places(format!("# {field} = "));
        }
        assert!(!found.is_empty(), "fleet.toml has no field {field}");
        found.into_iter().for_each(|i| lines[i] = format!("{field} = {value}"));
    }
    let path = directory.join(format!("{name}.toml"));
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

/// A job of that name on Kafka, in a hurry, whose topics begin with `NAME.`: frequent checkpoints and files, partitions
/// that are idle after 1 s. `more` fields are set, too.
pub fn hurried(directory: &Path, name: &str, more: &[(&str, &str)]) -> PathBuf {
    let (quoted, prefix) = (format!("{name:?}"), format!("\"{name}.\""));
    let fields = [
        ("name", quoted.as_str()),
        ("topic_prefix", &prefix),
        ("checkpoint_every", "\"300ms\""),
        ("roll_after", "\"400ms\""),
        ("idle_after", "\"1s\""),
    ];
    fleet(directory, name, &[&fields, more].concat())
}

/// Reads `telemetry` to the end, until nothing is pending any more, and stops cleanly. `expected` records are counted then.
pub fn drain(brokers: &str, config: &Path, job: &str, data: &Path, log: &Path, expected: i64) {
    drain_to(brokers, config, job, (data, data), log, expected);
}

/// As [`drain`], where the results are elsewhere than the job's data directory.
pub fn drain_to(brokers: &str, config: &Path, job: &str, (data, results): (&Path, &Path), log: &Path, expected: i64) {
    let said = || fs::read_to_string(log).unwrap_or_default();
    for _ in 0..5 {
        let running = Job::start(config, data, brokers, log);
        wait_until_read(brokers, "telemetry", job, log);
        // Idle after 1 s, quiet after 2 s; then silence has closed what it can.
        std::thread::park_timeout(Duration::from_secs(6));
        assert_eq!(running.stop(), Some(0), "{}", said());
        if one(results, "select sum(records) from intake").parse() == Ok(expected) {
            return;
        }
    }
    panic!("{} records of {expected}", one(results, "select sum(records) from intake"));
}

/// Every table and every topic, without `epoch` and `updated_at`.
pub fn state(data: &Path, brokers: &str, prefix: &str) -> Vec<(String, Vec<String>)> {
    let mut state = rows_of(data, |table| format!("select * from {table}"));
    for topic in TOPICS {
        let values = latest(brokers, &format!("{prefix}{topic}")).into_iter().map(|(key, mut value)| {
            let fields = value.as_object_mut().unwrap();
            fields.remove("epoch");
            fields.remove("updated_at");
            format!("{key}\t{value}")
        });
        state.push((format!("topic {topic}"), values.collect()));
    }
    state
}

/// The reference configuration with small epochs, frequent checkpoints and short-lived files, so that a replay comes to
/// each part of the protocol often.
pub fn small_epochs(directory: &Path, more: &[(&str, &str)]) -> PathBuf {
    let fields = [
        ("max_records", "500"),
        ("max_in_flight", "4"),
        ("checkpoint_every", "\"200ms\""),
        ("roll_after", "\"300ms\""),
        // Trips are sealed, and drivers forget them.
        ("retention", "\"3m\""),
        ("horizon", "\"5m\""),
    ];
    fleet(directory, "hurried", &[&fields, more].concat())
}

/// Readings with everything in them that the simulator can put there.
pub fn readings(directory: &Path, vehicles: &str, time: &str) -> PathBuf {
    let input = directory.join("readings.jsonl");
    run(
        drivetrain()
            .args(["simulate", "--vehicles", vehicles, "--for", time, "--seed", "5", "--broken", "0.002"])
            .args(["--duplicates", "0.01", "--late", "0.03", "--faults", "--out"])
            .arg(&input),
        0,
    );
    input
}
