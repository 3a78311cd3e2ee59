//! The results recomputed in batch, by SQL, from the raw readings: what the job maintained step by step must be equal.
//!
//! The `computed` side of each comparison reads only what stands before it in the chain readings → trips → drivers →
//! fleets (and the reference documents as they were written), the `stored` side is the table.

#[path = "../support/mod.rs"]
mod support;

mod compare;
mod edges;
mod reference;
mod scores;
mod sequence;

use compare::{agree, equal};
use edges::{intake, live_is_table, why_adds_up};
use reference::{documents, governed, write_reference};
use scores::{TRIP, driver_scores, fleet_aggregates, fleets_of_trips, parents};
use sequence::{events, range_anomalies, trips, windows};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use support::{drivetrain, one, replay, repository, run, sql};

/// Simulated readings in `readings.jsonl`, and their reference documents in `ref/`.
fn simulated(directory: &Path, extra: &[&str]) -> PathBuf {
    let out = directory.join("readings.jsonl");
    let mut command = drivetrain();
    command.arg("simulate").args(extra).arg("--reference").arg(directory.join("ref")).arg("--out").arg(&out);
    run(&mut command, 0);
    out
}

/// A copy of `configs/fleet.toml` with files of `ref/` as its `[reference]`, and without the odometer, so that distances
/// are those of speed and time.
fn config(directory: &Path, kinds: &[&str]) -> PathBuf {
    let mut text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let from = text.find("[signals.odometer_km]").expect("the odometer");
    let to = from + text[from..].find("\n\n").expect("its end");
    text.replace_range(from..to, "");
    assert!(text.trim_end().lines().rev().take_while(|l| l.starts_with('#')).count() >= 4, "[reference] is the last");
    for kind in kinds {
        text += &format!("{kind} = {{ files = [\"ref/{kind}.jsonl\"] }}\n");
    }
    let path = directory.join("fleet.toml");
    fs::write(&path, text).unwrap();
    path
}

/// Simulated harsh samples and engine speeds beyond the range stand alone: in some vehicles they are made larger, so that
/// excursions and anomalies last.
fn exaggerate(path: &Path) {
    let change = |line: &[u8]| -> Option<Vec<u8>> {
        let mut reading: Value = serde_json::from_slice(line).ok()?;
        let number: usize = reading["vehicle_id"].as_str()?.strip_prefix("veh-")?.parse().ok()?;
        let (field, factor) = match number {
            1 | 6 | 11 => ("g_force_long", 4.0),
            4 => ("engine_rpm", 3.0),
            _ => return None,
        };
        let value = reading[field].as_f64()? * factor;
        reading[field] = json!((value * 1e4).round() / 1e4);
        Some(reading.to_string().into_bytes())
    };
    let bytes = fs::read(path).unwrap();
    let lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(|l| change(l).unwrap_or_else(|| l.to_vec())).collect();
    fs::write(path, lines.join(&b'\n')).unwrap();
}

#[test]
fn the_results_are_those_of_a_batch_over_the_readings() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let extra = ["--vehicles", "20", "--for", "30m", "--seed", "5", "--duplicates", "0.01", "--late", "0.05"];
    let input = simulated(directory, &[&extra[..], &["--faults", "--broken", "0.005"]].concat());
    exaggerate(&input);
    let data = directory.join("d");
    replay(&config(directory, &["vehicles", "drivers", "fleets"]), &data, &[], &[&input]);
    let bytes = fs::read(&input).unwrap();
    intake(&data, bytes.split(|b| *b == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).count());
    windows(&data);
    trips(&data);
    events(&data);
    range_anomalies(&data);
    fleets_of_trips(directory, &data);
    driver_scores(&data, &format!("{TRIP}, 'active' as status from trips"));
    let fleets = parents(&documents(directory, "fleets"));
    fleet_aggregates(directory, &data, &fleets);
    let root = "select sum(trips), sum(harsh_events), sum(duration_s) from fleet_aggregates where depth = 0";
    let members = "select count(*), sum(harsh_braking + rapid_acceleration), sum(duration_s) from trips \
                   where driver_id is not null";
    assert_eq!(one(&data, root), one(&data, members));
    live_is_table(&data);
    why_adds_up(&data);
    assert_eq!(one(&data, "select count(*) from reference_problems"), "0");
}

#[test]
fn policies_and_fleets_from_documents() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let input =
        simulated(directory, &["--vehicles", "14", "--for", "30m", "--seed", "9", "--late", "0.05", "--faults"]);
    write_reference(directory);
    let data = directory.join("d");
    replay(&config(directory, &["vehicles", "fleets", "policies"]), &data, &[], &[&input]);

    let problems: BTreeMap<String, String> = sql(&data, "select document, problem from reference_problems")
        .iter()
        .filter_map(|row| row.split_once(',').map(|(d, p)| (d.to_string(), p.to_string())))
        .collect();
    let expected = [
        ("fleets/a", "cycle"),
        ("fleets/b", "cycle"),
        ("fleets/orphan", "nowhere"),
        ("vehicles/veh-000010", "ghost"),
        ("policies/broken@1", "0.4005 is not on the grid"),
        ("policies/low@1", "0.1 is below 0.2"),
    ];
    assert_eq!(problems.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected.map(|(d, _)| d).into());
    for (document, says) in expected {
        assert!(problems[document].contains(says), "{document}: {}", problems[document]);
    }

    fleets_of_trips(directory, &data);
    let same = equal(&["policy_id", "harsh_braking", "rapid_acceleration"]);
    let same = [same, vec!["c.safety_score = s.safety_score".into()]].concat();
    let active = format!("select * from ({}) where status = 'active'", governed());
    agree(&data, "governed trips", &["trip_id"], [&active, "select * from trips"], &same);
    let used = "select policy_id from trips group by policy_id order by policy_id";
    assert_eq!(sql(&data, used), ["fleetflow", "own", "strict"]);
    let moved = "select count(distinct fleet_id) from trips where vehicle_id = 'veh-000011'";
    assert_eq!(one(&data, moved), "2");

    driver_scores(&data, &governed());
    let shadows = "select count(*) > 0, bool_and(policy_id = 'gentle') from driver_scores where status = 'shadow'";
    assert_eq!(one(&data, shadows), "true,true");
    let costing = "select count(distinct policy_id) from trips where safety_score between 0.1 and 99.9";
    assert_eq!(one(&data, costing), "3", "a policy takes points nowhere, so that this would show nothing");
    // One row a driver: under the policy of the newest trip.
    let newest = "select d.* from driver_scores d join (select driver_id as nd, policy_id as np, row_number() over \
                  (partition by driver_id order by ended_at desc, trip_id desc) as place from trips) on nd = driver_id \
                  and np = policy_id and place = 1";
    let same = equal(&["policy_id", "score", "trips", "duration_s", "harsh_braking", "fleet_id", "status"]);
    agree(&data, "live driver_scores", &["driver_id"], [newest, "select * from live_driver_scores"], &same);

    // The edges that are left; the fleets that have no document are roots: `ghost`, and what the records name.
    let mut edges = parents(&documents(directory, "fleets"));
    edges.iter_mut().filter(|(f, _)| ["a", "b", "orphan"].contains(&f.as_str())).for_each(|(_, parent)| *parent = None);
    let named = sql(&data, "select distinct fleet_id from trips where driver_id is not null");
    edges.extend(
        named.into_iter().filter(|f| !edges.iter().any(|(e, _)| e == f)).map(|f| (f, None)).collect::<Vec<_>>(),
    );
    assert_eq!(edges.len(), 7 + 3, "{edges:?}");
    fleet_aggregates(directory, &data, &edges);
    why_adds_up(&data);
}
