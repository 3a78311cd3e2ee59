//! Nothing lost, nothing twice: a job that is killed goes on, with another number of workers, as if nothing had been.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{assert_same, drivetrain, every_step, final_state, replay, repository, run};

/// How often the job is killed; `KILLS=n` for more.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// The reference configuration with small epochs, frequent checkpoints and short-lived files, so that each kill finds
/// another part of the protocol under way.
fn hurried(directory: &Path) -> PathBuf {
    let text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let set = |text: String, name: &str, value: &str| {
        let old = text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap_or_else(|| panic!("{name}"));
        let new = format!("{name} = {value}\n");
        text.replacen(&format!("{old}\n"), &new, 1)
    };
    let text = set(text, "max_records", "500");
    let text = set(text, "max_in_flight", "4");
    let text = set(text, "checkpoint_every", "\"200ms\"");
    let text = set(text, "roll_after", "\"300ms\"");
    let path = directory.join("hurried.toml");
    fs::write(&path, text).unwrap();
    path
}

/// The newest committed epoch, as the progress log has it.
fn committed(data: &Path) -> usize {
    fs::read_to_string(data.join("progress/log.jsonl")).map_or(0, |log| log.matches("\"commit\":{").count())
}

/// Readings with everything in them that the simulator can put there.
fn readings(directory: &Path, vehicles: &str, time: &str) -> PathBuf {
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

/// The steps of `sinks/src/failpoint.rs` that a replay comes to, with how many times it passes each before it is killed.
const STEPS: [(&str, u32); 31] = [
    ("claim.before", 1),
    ("claim.after", 1),
    ("begin", 3),
    ("produce.before", 2),
    ("produce.between", 30),
    ("recovery.live", 1),
    ("record", 4),
    ("recovery.staging", 1),
    ("commit.before", 3),
    ("recovery.sweep", 1),
    ("commit.after", 2),
    ("recovery.bindings", 1),
    ("history.close", 1),
    ("recovery.manifest", 1),
    ("history.closed", 1),
    ("recovery.done", 1),
    ("final_files", 3),
    ("checkpoint.write", 1),
    ("checkpoint.sync", 1),
    ("checkpoint.rename", 1),
    ("publish.before", 1),
    ("publish.between", 1),
    ("publish.after", 1),
    ("manifest.before", 1),
    ("manifest.between", 1),
    ("manifest.after", 1),
    ("trim.before", 1),
    ("trim.between", 1),
    ("trim.after", 1),
    ("checkpoint.write", 5),
    ("commit.after", 9),
];

/// At each named step, at one worker and at two: the state is that of a run that was never killed, and every row of every
/// log, epoch included, that of a run of the recorded bindings.
#[test]
fn a_kill_at_each_step_leaves_no_trace() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "60", "20m");
    let config = hurried(scratch.path());
    let reference = scratch.path().join("reference");
    replay(&config, &reference, &["--workers", "1"], &[&input]);
    let expected = final_state(&reference);
    for workers in ["1", "2"] {
        let data = scratch.path().join(format!("killed-{workers}"));
        let mut missed = Vec::new();
        for (step, nth) in STEPS {
            let output = drivetrain()
                .args(["replay", "--workers", workers, "--config"])
                .arg(&config)
                .arg("--data")
                .arg(&data)
                .arg(&input)
                .env("DRIVETRAIN_FAILPOINT", format!("{step}:{nth}"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                // Ended by a signal: by itself, at the step.
                None => {}
                Some(0) => missed.push(step),
                Some(code) => panic!("{step}, {workers} workers: exit {code}: {said}"),
            }
            assert!(missed.is_empty(), "the input ended before {missed:?}: make it longer");
        }
        replay(&config, &data, &["--workers", workers], &[&input]);
        assert_same(&format!("killed at each step, {workers} workers"), &expected, &final_state(&data));
        let again = scratch.path().join(format!("again-{workers}"));
        let bindings = data.join("bindings").display().to_string();
        replay(&config, &again, &["--workers", "1", "--bindings", &bindings], &[&input]);
        assert_same(&format!("its bindings, {workers} workers"), &every_step(&again), &every_step(&data));
    }
}

#[test]
fn a_killed_replay_goes_on_with_other_workers_and_ends_equal() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "60", "15m");
    let config = hurried(scratch.path());
    let reference = scratch.path().join("reference");
    replay(&config, &reference, &["--workers", "1"], &[&input]);
    let expected = final_state(&reference);

    let data = scratch.path().join("killed");
    let (mut killed, mut finished) = (0, false);
    for round in 0..kills() {
        let workers = [1, 2, 4][round as usize % 3].to_string();
        let mut child = drivetrain()
            .args(["replay", "--workers", &workers, "--config"])
            .arg(&config)
            .arg("--data")
            .arg(&data)
            .arg(&input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Some kills come early, in recovery itself; others after further commits.
        let (before, from) = (committed(&data), Instant::now());
        let wanted = before + [0, 3, 12][(round as usize / 2) % 3];
        while committed(&data) < wanted.max(1) && from.elapsed() < Duration::from_secs(20) {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        std::thread::park_timeout(Duration::from_millis(round * 37 % 150));
        if let Some(status) = child.try_wait().unwrap() {
            let output = child.wait_with_output().unwrap();
            assert!(status.success(), "round {round}: {}", String::from_utf8_lossy(&output.stderr));
            finished = true;
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    assert!(killed >= 3, "only {killed} kills before the end: make the input longer");
    if !finished {
        replay(&config, &data, &["--workers", "2"], &[&input]);
    }
    assert_same(&format!("after {killed} kills"), &expected, &final_state(&data));
    // The logs hold each change once: no row is there twice.
    for table in ["trips", "windows", "readings", "events"] {
        let count = |data: &Path| support::one(data, &format!("select count(*), sum(diff) from {table}_log"));
        let (there, here) = (count(&reference), count(&data));
        let sum = |text: &str| text.split(',').nth(1).map(str::to_string);
        assert_eq!(sum(&there), sum(&here), "{table}: {there} and {here}");
    }
}
