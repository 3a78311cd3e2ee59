//! Trips that are sealed (`[facts] retention`) leave memory and checkpoints, and what was said of them stays.

mod support;

use std::fs;
use support::job::replay_until_commit;
use support::world::{readings, small_epochs};
use support::{assert_same, drivetrain, final_state, one, replay, repository, run, sql};

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
    replay_until_commit(60, &before, &data, &input);

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

/// A trip sent whole that comes again when it is sealed is late, and what is kept of it can be read again.
#[test]
fn a_trip_that_is_sent_again_after_it_was_sealed_is_late() {
    let scratch = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(repository("configs/trip-payloads.toml")).unwrap();
    let config = scratch.path().join("trips.toml");
    fs::write(&config, text + "\n[facts]\nretention = \"30d\"\n[epoch]\nmax_records = 1\nchunk_records = 1\n").unwrap();
    let payload = |trip: &str, at: &str, g: &str| {
        let (trip, data) =
            (format!("\"trip_id\":{trip:?}"), format!("[{{\"g_force_long\":0.1}},{{\"g_force_long\":{g}}}]"));
        format!("{{{trip},\"vehicle_id\":\"v\",\"driver_id\":\"d\",\"at\":{at:?},\"data\":{data}}}\n")
    };
    let input = scratch.path().join("trips.jsonl");
    let records = [
        payload("t1", "2026-01-01T10:00:00Z", "0.1"),
        payload("t2", "2026-01-20T10:00:00Z", "-0.5"),
        payload("t3", "2026-02-10T10:00:00Z", "0.2"),
        // Corrections: of t1, which is sealed, and of t2, which is not.
        payload("t1", "2026-01-02T10:00:00Z", "-0.6"),
        payload("t2", "2026-01-21T10:00:00Z", "0.3"),
    ];
    fs::write(&input, records.concat()).unwrap();
    let data = scratch.path().join("data");
    replay(&config, &data, &[], &[&input]);
    let scores = |data| sql(data, "select trip_id, safety_score from trips order by 1");
    assert_eq!(scores(&data), ["t1,100.0", "t2,100.0", "t3,100.0"]);
    assert_eq!(one(&data, "select used, duplicates, late from intake"), "3,1,1");
    assert_eq!(one(&data, "select reason, position from late"), "late,4");
    let again = scratch.path().join("again.jsonl");
    let late = ["sql", "--format", "json", "select cast(payload as varchar) as text from late", "--data"];
    let output = run(drivetrain().args(late).arg(&data), 0);
    let row: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    fs::write(&again, row["text"].as_str().unwrap()).unwrap();
    let fresh = scratch.path().join("fresh");
    replay(&config, &fresh, &[], &[&again]);
    assert_eq!(scores(&fresh), ["t1,95.0"]);
    let times = "select started_at, ended_at, driver_id from trips where trip_id = 't1'";
    assert_eq!(one(&fresh, times), "2026-01-02T09:59:59Z,2026-01-02T10:00:00Z,d");
}
