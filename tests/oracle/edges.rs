//! What goes in and what comes out: the counts of records, the live topics.

use crate::compare::{agree, equal};
use crate::support::{drivetrain, live, one, run, sql};
use serde_json::Value;
use std::path::Path;

/// `lines`: of the input, without blank ones.
#[track_caller]
pub fn intake(data: &Path, lines: usize) {
    assert_eq!(one(data, "select sum(records) from intake"), lines.to_string());
    let sums = "select records = decoded + rejected and readings = used + duplicates + late and duplicates > 0 \
                and used = (select count(*) from readings) and rejected = (select count(*) from rejects) \
                and late = (select count(*) from late) from intake";
    assert_eq!(sql(data, sums), ["true"]);
}

/// The live topics say what the tables say.
#[track_caller]
pub fn live_is_table(data: &Path) {
    for (topic, table, rows, key) in [
        ("trip_scores", "trips", "true", "trip_id"),
        ("driver_scores", "driver_scores", "status = 'active'", "driver_id"),
        ("fleet_aggregates", "fleet_aggregates", "true", "fleet_id"),
        ("anomalies_active", "anomalies", "ended_at is null", "anomaly_id"),
    ] {
        let header = run(
            drivetrain().args(["sql", "--format", "csv", "--data"]).arg(data).arg(format!("select * from {table}")),
            0,
        );
        let header = String::from_utf8(header.stdout).unwrap();
        let columns: Vec<&str> = header.lines().next().unwrap().split(',').collect();
        let stored = format!("select * from {table} where {rows}");
        agree(data, topic, &[key], [&format!("select * from live_{topic}"), &stored], &equal(&columns));
    }
}

/// `why` is enough to redo a trip's score by hand.
#[track_caller]
pub fn why_adds_up(data: &Path) {
    let scores = live(data, "trip_scores");
    assert!(!scores.is_empty());
    for line in scores {
        let document: Value = serde_json::from_str(line.split_once('\t').unwrap().1).unwrap();
        let why = &document["why"];
        let number = |v: &Value| v.as_f64().unwrap();
        let lost: f64 = why["events"].as_array().unwrap().iter().map(|e| number(&e["penalty"])).sum();
        let score = (number(&why["base"]) - lost).max(number(&why["floor"]));
        assert!((score - number(&document["safety_score"])).abs() < 1e-6, "{document}");
    }
}
