//! Nothing lost, nothing twice: a job that is killed goes on, with another number of workers, as if nothing had been.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::{assert_same, drivetrain, final_state, replay, repository, run};

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

#[test]
fn a_killed_replay_goes_on_with_other_workers_and_ends_equal() {
    let scratch = tempfile::tempdir().unwrap();
    let input = scratch.path().join("readings.jsonl");
    run(
        drivetrain()
            .args(["simulate", "--vehicles", "60", "--for", "15m", "--seed", "5", "--broken", "0.002"])
            .args(["--duplicates", "0.01", "--late", "0.03", "--faults", "--out"])
            .arg(&input),
        0,
    );
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
