//! Nothing lost, nothing twice: a job that is killed goes on, with another number of workers, as if nothing had been.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::job::replay_until_commit;
use support::steps::kill_at_each_step;
use support::world::{readings, small_epochs};
use support::{assert_same, committed, drivetrain, every_step, final_state, replay};

/// How often the job is killed; `KILLS=n` for more.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// At each named step, at one worker and at two: the state is that of a run that was never killed, and every row of every
/// log, epoch included, that of a run of the recorded bindings.
#[test]
fn a_kill_at_each_step_leaves_no_trace() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "60", "60m");
    let config = small_epochs(scratch.path(), &[]);
    let reference = scratch.path().join("reference");
    replay(&config, &reference, &["--workers", "1"], &[&input]);
    let expected = final_state(&reference);
    for workers in ["1", "2"] {
        let data = scratch.path().join(format!("killed-{workers}"));
        kill_at_each_step(&format!("{workers} workers"), |variables| {
            let mut command = drivetrain();
            command
                .args(["replay", "--workers", workers, "--config"])
                .arg(&config)
                .arg("--data")
                .arg(&data)
                .arg(&input);
            let output = command.envs(variables).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        });
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
    let config = small_epochs(scratch.path(), &[]);
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

/// After a clean stop the operators go on with what they have kept, so that it must fit what they are now told.
#[test]
fn another_configuration_after_a_clean_stop_goes_on_rightly_or_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "40", "40m");
    let config = small_epochs(scratch.path(), &[]);
    let reference = scratch.path().join("reference");
    replay(&config, &reference, &["--workers", "1"], &[&input]);
    let data = scratch.path().join("stopped");
    let start = |config: &Path| {
        let mut command = drivetrain();
        command.args(["replay", "--workers", "2", "--config"]).arg(config).arg("--data").arg(&data).arg(&input);
        command.output().unwrap()
    };
    // In its midst.
    let stop = |config: &Path| replay_until_commit(9, config, &data, &input);
    stop(&config);
    let log = || fs::read(data.join("progress/log.jsonl")).unwrap();
    let before = log();
    let more = |name: &str, added: &str| {
        let path = scratch.path().join(name);
        fs::write(&path, fs::read_to_string(&config).unwrap() + added).unwrap();
        path
    };
    let set = |field: (&str, &str)| {
        let directory = scratch.path().join(field.0);
        fs::create_dir_all(&directory).unwrap();
        small_epochs(&directory, &[field])
    };
    for (changed, section) in [
        (set(("hot_horizon", "\"3m\"")), "`time`"),
        (set(("max_gap", "\"6m\"")), "`trip`"),
        (set(("resolutions", "[\"1m\"]")), "`windows`"),
        (set(("threshold", "9")), "`detectors`"),
        (set(("weight", "7")), "`policy`"),
        (set(("quantiles", "true")), "`signals`"),
        (more("new.toml", "\n[signals.a_new_one]\nunit = \"g\"\n"), "`signals`"),
    ] {
        let output = start(&changed);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{section}: {said}");
        assert!(
            said.contains(section) && said.contains("--fresh") && said.contains("has changed"),
            "{section}: {said}"
        );
        assert_eq!(said.contains("as a document"), section == "`policy`", "{said}");
        assert!(log() == before, "{section}: a refused start has written");
    }
    // What concerns only what is to come.
    stop(&set(("roll_after", "\"5s\"")));
    replay(&set(("max_records", "2000")), &data, &["--workers", "1"], &[&input]);
    assert_same("after stops", &final_state(&reference), &final_state(&data));
}
