//! Trips that are sealed (`[facts] retention`) leave memory and checkpoints, and what was said of them stays.

mod support;

use std::fs;
use std::process::Stdio;
use std::time::Duration;
use support::job::is_stopped;
use support::world::{readings, small_epochs};
use support::{assert_same, drivetrain, final_state, replay, signal, sql};

#[test]
fn sealing_changes_no_result() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "20", "3h");
    let run = |name: &str, retention: &str, workers: &str| {
        let directory = scratch.path().join(name);
        fs::create_dir(&directory).unwrap();
        let config = small_epochs(&directory, &[("retention", retention)]);
        let data = directory.join("data");
        replay(&config, &data, &["--workers", workers], &[&input]);
        final_state(&data)
    };
    let expected = run("forever", "\"forever\"", "1");
    for (name, workers) in [("one", "1"), ("two", "2")] {
        assert_same(name, &expected, &run(name, "\"2m\"", workers));
    }
}

/// A policy that comes after some trips were sealed scores the others anew, and them not.
#[test]
fn a_policy_that_comes_later_governs_what_is_not_sealed() {
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "20", "2h");
    let before = small_epochs(scratch.path(), &[("retention", "\"10m\"")]);
    let data = scratch.path().join("data");
    let mut job = drivetrain()
        .args(["replay", "--workers", "2", "--config"])
        .arg(&before)
        .arg("--data")
        .arg(&data)
        .arg(&input)
        .env("DRIVETRAIN_FAILPOINT", "commit.after:60:stop")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_stopped(job.id()) {
        assert!(job.try_wait().unwrap().is_none(), "it ended before that commit");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    signal(job.id(), "-TERM");
    signal(job.id(), "-CONT");
    assert_eq!(job.wait().unwrap().code(), Some(0));

    // What is sealed by then: by vehicle, what ended 10 min before the newest completed trip, but for the last of those.
    // The line moves by steps of 10 min / 64; what ended within one of it is left out.
    let completed = "select trip_id, vehicle_id, ended_at, max(ended_at) over (partition by vehicle_id) as newest from trips \
                     where status = 'COMPLETED'";
    let sealed = sql(
        &data,
        &format!(
            "select trip_id from (select *, row_number() over (partition by vehicle_id order by ended_at desc) as n from \
             ({completed}) where ended_at < newest - interval '10 minutes 10 seconds') where n > 1 order by 1"
        ),
    );
    let held = sql(
        &data,
        &format!("select trip_id from ({completed}) where ended_at >= newest - interval '10 minutes' order by 1"),
    );
    assert!(sealed.len() > 20 && held.len() > 20, "{} sealed, {} held", sealed.len(), held.len());

    let policy = r#"{"policy_id":"strict","version":2,"events":[{"kind":"harsh_braking","signal":"g_force_long","direction":"negative","threshold":0.3,"weight":9}]}"#;
    fs::write(scratch.path().join("policies.jsonl"), policy).unwrap();
    let policies = format!("{{ files = [{:?}] }}", scratch.path().join("policies.jsonl"));
    let after = small_epochs(scratch.path(), &[("retention", "\"10m\""), ("policies", &policies)]);
    replay(&after, &data, &["--workers", "1"], &[&input]);
    let governed =
        |policy: &str| sql(&data, &format!("select trip_id from trips where policy_id = '{policy}' order by 1"));
    let (old, new) = (governed("fleetflow"), governed("strict"));
    assert!(sealed.iter().all(|trip| old.contains(trip)), "a sealed trip was scored anew");
    assert!(held.iter().all(|trip| new.contains(trip)), "a trip that was held was not scored anew");
    assert!(new.len() > 3 * held.len(), "what came later is governed by the new policy");
}
