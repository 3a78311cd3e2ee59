//! The control documents of the tests, and the trips as they govern them.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub fn documents(directory: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(directory.join(format!("ref/{kind}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_documents(directory: &Path, kind: &str, documents: &[Value]) {
    fs::create_dir_all(directory.join("ref")).unwrap();
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    fs::write(directory.join(format!("ref/{kind}.jsonl")), lines.join("\n")).unwrap();
}

/// A vehicle, from a time on.
fn vehicle(n: usize, fleet: Option<&str>, since: Option<&str>) -> Value {
    json!({ "vehicle_id": format!("veh-{n:06}"), "type": "car", "fleet_id": fleet, "effective_from": since })
}

fn policy(id: &str, fields: Value, threshold: f64, weights: [f64; 2]) -> Value {
    let event = |kind: &str, direction: &str, weight: f64| {
        json!({ "kind": kind, "signal": "g_force_long", "direction": direction, "threshold": threshold,
            "compare": "gt", "weight": weight })
    };
    let mut policy = json!({ "policy_id": id, "version": 1,
        "events": [event("harsh_braking", "negative", weights[0]), event("rapid_acceleration", "positive", weights[1])] });
    policy.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    policy
}

/// North has its own policy from 08:05 on, inherited by n1, which has one of its own from 08:10 on.
pub fn write_reference(directory: &Path) {
    let places = ["n1", "n1", "n1", "north", "north", "root", "a", "b", "leaf", "orphan", "ghost"];
    let mut vehicles: Vec<_> = places.iter().enumerate().map(|(n, fleet)| vehicle(n, Some(fleet), None)).collect();
    vehicles.push(vehicle(11, Some("n1"), None));
    vehicles.push(vehicle(11, Some("orphan"), Some("2026-05-01T08:12:00Z")));
    // Names no fleet: the record's holds.
    vehicles.push(vehicle(12, None, None));
    write_documents(directory, "vehicles", &vehicles);
    let fleet = |id: &str, parent: Option<&str>| json!({ "fleet_id": id, "parent_id": parent });
    let fleets = [
        fleet("root", None),
        fleet("north", Some("root")),
        fleet("n1", Some("north")),
        fleet("a", Some("b")),
        fleet("b", Some("a")),
        fleet("leaf", Some("a")),
        fleet("orphan", Some("nowhere")),
    ];
    write_documents(directory, "fleets", &fleets);
    let from = |time: &str, scope: &str| json!({ "scope": scope, "valid_from": time });
    let policies = [
        policy("strict", from("2026-05-01T08:05:00Z", "north"), 0.4, [7.5, 3.0]),
        policy("own", from("2026-05-01T08:10:00Z", "n1"), 0.45, [1.0, 0.25]),
        policy("gentle", json!({ "status": "shadow" }), 0.5, [5.0, 5.0]),
        policy("gone", json!({ "status": "retired", "scope": "root" }), 0.4, [100.0, 100.0]),
        policy("broken", json!({}), 0.4005, [5.0, 5.0]),
        policy("low", json!({ "scope": "root" }), 0.1, [5.0, 5.0]),
    ];
    write_documents(directory, "policies", &policies);
}

/// Trips under each policy that governs or shadows them, from the readings and the documents of [`write_reference`].
pub fn governed() -> String {
    let score = |policy: &str, status: &str, threshold: f64, [b, a]: [f64; 2], governs: &str| {
        format!(
            "select s.trip_id as trip_id, vehicle_id, driver_id, fleet_id, started_at, ended_at, duration_s, distance_km, \
             b as harsh_braking, a as rapid_acceleration, greatest(0, 100 - {b} * b - {a} * a) as safety_score, \
             '{policy}' as policy_id, '{status}' as status from trips s join (select trip_id as id, \
             sum(case when g_force_long < -{threshold} then 1 else 0 end) as b, \
             sum(case when g_force_long > {threshold} then 1 else 0 end) as a from inside group by trip_id) \
             on id = s.trip_id where {governs}"
        )
    };
    let five = "started_at >= timestamp '2026-05-01T08:05:00Z'";
    let ten = "started_at >= timestamp '2026-05-01T08:10:00Z'";
    let own = format!("coalesce(fleet_id, '') = 'n1' and {ten}");
    let strict = format!("coalesce(fleet_id, '') in ('n1', 'north') and {five}");
    let parts = [
        score("own", "active", 0.45, [1.0, 0.25], &own),
        score("strict", "active", 0.4, [7.5, 3.0], &format!("{strict} and not ({own})")),
        score("fleetflow", "active", 0.4, [5.0, 5.0], &format!("not ({strict}) and not ({own})")),
        score("gentle", "shadow", 0.5, [5.0, 5.0], "true"),
    ];
    format!(
        "with inside as (select t.trip_id as trip_id, g_force_long from trips t join readings r on \
         r.vehicle_id = t.vehicle_id and r.at >= t.started_at and r.at <= t.ended_at) {}",
        parts.join(" union all ")
    )
}
