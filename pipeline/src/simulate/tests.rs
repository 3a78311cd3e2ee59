use super::*;
use drivetrain_query::schema::{self, SchemaArgs, SchemaFormat};
use drivetrain_schemas::policy::Policy;
use serde_json::Value;
use std::collections::BTreeMap;

fn options() -> SimulateOptions {
    SimulateOptions { vehicles: 50, duration: 600_000_000, seed: 7, ..Default::default() }
}

fn messy() -> SimulateOptions {
    SimulateOptions { broken: 0.02, duplicates: 0.03, late: 0.04, faults: true, ..options() }
}

fn value(record: &SimRecord) -> Value {
    serde_json::from_slice(record.bytes.as_deref().unwrap()).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let digest = |options: SimulateOptions| {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for record in Simulator::new(options).take(10_000) {
            hash.update(record.partition_key.as_bytes());
            hash.update(record.bytes.as_deref().unwrap_or(b"-"));
        }
        hash.digest()
    };
    assert_eq!(digest(messy()), digest(messy()));
    assert_ne!(digest(messy()), digest(SimulateOptions { seed: 8, ..messy() }));
    // Recorded once: a change means that benchmarks and goldens are no longer of the same data.
    assert_eq!(digest(options()), GOLDEN, "{:#x}", digest(options()));
}

const GOLDEN: u64 = 0x9bdccb1f58e2a91;

#[test]
fn records_are_plausible() {
    let mut last: BTreeMap<String, (i64, f64)> = BTreeMap::new();
    let (mut harsh, mut total, mut previous) = (0, 0, i64::MIN);
    for record in Simulator::new(SimulateOptions { vehicles: 200, ..options() }) {
        assert!(record.at >= previous);
        previous = record.at;
        let v = value(&record);
        let number = |name: &str| v[name].as_f64().unwrap();
        assert_eq!(v["vehicle_id"], record.partition_key.as_str());
        assert_eq!(drivetrain_schemas::time::parse_rfc3339(v["at"].as_str().unwrap()).unwrap(), record.at);
        assert!((0.0..=130.0).contains(&number("speed_kmh")), "{v}");
        assert!(number("g_force_long").abs() < 0.8 && number("g_force_lat").abs() < 0.6, "{v}");
        assert!(
            (500.0..6_000.0).contains(&number("engine_rpm")) && (0.0..=100.0).contains(&number("fuel_level")),
            "{v}"
        );
        assert!((47.0..55.0).contains(&number("latitude")) && (5.0..15.0).contains(&number("longitude")), "{v}");
        assert!((0.0..360.0).contains(&number("heading")));
        let key = format!("{}/{}", v["vehicle_id"], v["trip_id"]);
        if let Some((at, speed)) = last.insert(key, (record.at, number("speed_kmh"))) {
            assert_eq!(record.at - at, 1_000_000);
            // g says how the speed changed: 0.01 km/h rounding of two speeds is 0.0006 g.
            let g = (number("speed_kmh") - speed) / 3.6 / 9.80665;
            assert!((g - number("g_force_long")).abs() < 0.003, "{g} {v}");
        }
        harsh += usize::from(number("g_force_long").abs() > 0.4);
        total += 1;
    }
    let share = harsh as f64 / total as f64;
    assert!((0.003..0.008).contains(&share), "{share} of {total}");
    assert!(total > 60_000, "{total}: most vehicles drive");
}

#[test]
fn positions_follow_the_speed() {
    let mut last: BTreeMap<usize, (f64, f64, f64)> = BTreeMap::new();
    for record in Simulator::new(options()) {
        let v = value(&record);
        let number = |name: &str| v[name].as_f64().unwrap();
        let index: usize = record.partition_key[4..].parse().unwrap();
        let now = (number("latitude"), number("longitude"), number("odometer_km"));
        if let Some((lat, lon, odometer)) = last.insert(index, now) {
            let north = (now.0 - lat) * 111.32;
            let east = (now.1 - lon) * 111.32 * now.0.to_radians().cos();
            let moved = (north * north + east * east).sqrt();
            assert!((moved - (now.2 - odometer)).abs() < 0.003, "{moved} {}", now.2 - odometer);
        }
    }
}

#[test]
fn some_trips_end_within_seconds_and_all_are_short() {
    let mut trips: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for record in Simulator::new(SimulateOptions { duration: 1_800_000_000, ..options() }) {
        let id = value(&record)["trip_id"].as_str().unwrap().to_string();
        let trip = trips.entry(id).or_insert((record.at, record.at));
        trip.1 = record.at;
    }
    let end = DEFAULT_START + 1_800_000_000;
    let early = trips.values().filter(|t| t.1 < DEFAULT_START + 30_000_000).count();
    assert!(early >= 8, "{early}");
    for (start, last) in trips.values() {
        assert!(last - start < 601_000_000);
        let whole = *start > DEFAULT_START + 1_000_000 && *last < end - 700_000_000;
        assert!(!whole || last - start >= 118_000_000, "{}", last - start);
    }
}

#[test]
fn disorder_takes_nothing_from_the_good_records() {
    let key = |r: SimRecord| r.bytes;
    let mut clean: Vec<_> = Simulator::new(SimulateOptions { faults: true, ..options() }).map(key).collect();
    let all: Vec<_> = Simulator::new(messy()).collect();
    let mut good: Vec<_> = all.iter().filter(|r| r.broken.is_none() && !r.duplicate).map(|r| r.bytes.clone()).collect();
    let share = |n: usize| n as f64 / clean.len() as f64;
    assert!((share(all.iter().filter(|r| r.broken.is_some()).count()) - 0.02).abs() < 0.004);
    assert!((share(all.iter().filter(|r| r.duplicate).count()) - 0.03).abs() < 0.005);
    assert!((share(all.iter().filter(|r| r.late && !r.duplicate).count()) - 0.04).abs() < 0.005);
    clean.sort();
    good.sort();
    assert!(clean == good, "{} and {}", clean.len(), good.len());
    let twice = all.iter().filter(|r| r.duplicate).all(|d| good.binary_search(&d.bytes).is_ok());
    assert!(twice, "a duplicate is a good record again");
}

#[test]
fn late_records_are_late_but_inside_the_horizon() {
    let mut simulator = Simulator::new(messy());
    let (mut bytes, mut sent, mut newest, mut behind) = (Vec::new(), i64::MIN, BTreeMap::new(), 0);
    let mut seen = std::collections::BTreeSet::new();
    while let Some(head) = simulator.next_into(&mut bytes) {
        assert!(head.sent >= sent, "sent in order");
        sent = head.sent;
        if head.broken.is_some() {
            continue;
        }
        assert_eq!(seen.insert(bytes.clone()), !head.duplicate, "the original comes before the duplicate");
        let newest = newest.entry(head.vehicle).or_insert(head.at);
        assert!(*newest - head.at < 100_000_000, "{}", *newest - head.at);
        behind += usize::from(head.at < *newest && head.late && !head.duplicate);
        *newest = head.at.max(*newest);
    }
    assert!(behind > 500, "{behind}");
}

#[test]
fn faults_are_where_the_list_says() {
    let mut simulator = Simulator::new(SimulateOptions { faults: true, ..options() });
    let records: Vec<SimRecord> = simulator.by_ref().collect();
    let injected = simulator.injected().to_vec();
    for kind in [FaultKind::Spike, FaultKind::Stuck, FaultKind::OutOfRange] {
        assert!(injected.iter().any(|f| f.kind == kind), "{kind:?}");
    }
    for fault in &injected {
        let id = Simulator::key(fault.vehicle);
        let hit = |r: &&SimRecord| r.partition_key == id && (fault.from..=fault.to).contains(&r.at);
        let shown: Vec<f64> = records.iter().filter(hit).map(|r| value(r)[fault.signal].as_f64().unwrap()).collect();
        assert_eq!(shown.len(), fault.samples as usize);
        assert!(shown.iter().all(|v| (v * 1_000.0).round() as i64 == fault.value), "{fault:?} {shown:?}");
    }
    let outside = records.iter().filter(|r| value(r)["fuel_level"].as_f64().unwrap() > 100.0).count();
    let expected: u32 = injected.iter().filter(|f| f.kind == FaultKind::OutOfRange).map(|f| f.samples).sum();
    assert_eq!(outside, expected as usize);
}

#[test]
fn documents_are_control_documents_and_agree_with_the_records() {
    use drivetrain_schemas::control::{Driver, Fleet, Vehicle};
    let simulator = Simulator::new(SimulateOptions { vehicles: 23, ..options() });
    let documents = simulator.documents();
    let vehicles: Vec<Vehicle> = documents.vehicles.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let drivers: Vec<Driver> = documents.drivers.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let fleets: Vec<Fleet> = documents.fleets.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(vehicles.len(), 23);
    assert_eq!(fleets.iter().filter(|f| f.parent_id.is_none()).count(), 1);
    for fleet in &fleets {
        let parent = fleet.parent_id.as_ref();
        assert!(parent.is_none_or(|p| fleets.iter().any(|f| &f.fleet_id == p)), "{fleet:?}");
    }
    for record in simulator {
        let v = value(&record);
        let vehicle = vehicles.iter().find(|d| v["vehicle_id"] == *d.vehicle_id).unwrap();
        assert_eq!(v["fleet_id"], *vehicle.fleet_id.as_deref().unwrap());
        assert!(drivers.iter().any(|d| v["driver_id"] == *d.driver_id));
        assert!(fleets.iter().any(|f| v["fleet_id"] == *f.fleet_id));
    }
}

#[test]
fn other_intervals_keep_the_share_of_harsh_samples() {
    for interval in [100_000, 10_000_000] {
        let options = SimulateOptions { vehicles: 300, duration: interval * 200, interval, ..options() };
        let (mut harsh, mut total) = (0, 0);
        for record in Simulator::new(options) {
            harsh += usize::from(value(&record)["g_force_long"].as_f64().unwrap().abs() > 0.4);
            total += 1;
        }
        let share = harsh as f64 / total as f64;
        assert!((0.003..0.008).contains(&share), "{interval}: {share} of {total}");
    }
}

/// Checks a document against those parts of JSON Schema that `drivetrain schema` uses.
fn fits(schema: &Value, document: &Value) -> Result<(), String> {
    let is = |kind: &str| match kind {
        "string" => document.is_string(),
        "number" => document.is_number(),
        "integer" => document.is_i64(),
        "boolean" => document.is_boolean(),
        "null" => document.is_null(),
        "array" => document.is_array(),
        "object" => document.is_object(),
        _ => false,
    };
    let ok = match &schema["type"] {
        Value::String(kind) => is(kind),
        Value::Array(kinds) => kinds.iter().any(|k| is(k.as_str().unwrap())),
        _ => true,
    };
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(document));
    if !ok || !listed {
        return Err(format!("{document} is not {schema}"));
    }
    if let Some(fields) = document.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            fields.get(name.as_str().unwrap()).ok_or(format!("{name} is missing"))?;
        }
        for (name, value) in fields {
            match schema["properties"].get(name) {
                Some(property) => fits(property, value)?,
                None if schema["additionalProperties"] == false => return Err(format!("{name} is not known")),
                None => {}
            }
        }
    }
    for (item, schema) in document.as_array().into_iter().flatten().zip(std::iter::repeat(&schema["items"])) {
        fits(schema, item)?;
    }
    Ok(())
}

fn json_schema(name: &str) -> Value {
    let format = SchemaFormat::JsonSchema;
    let args = SchemaArgs { name: Some(name.into()), format, config: None, data: None };
    serde_json::from_str(&schema::render(&args).unwrap()).unwrap()
}

#[test]
fn json_schemas_fit_the_documents() {
    let documents = Simulator::new(Default::default()).documents();
    let check = |name: &str, line: &str| fits(&json_schema(name), &serde_json::from_str(line).unwrap()).unwrap();
    documents.vehicles.lines().for_each(|l| check("vehicles", l));
    documents.drivers.lines().for_each(|l| check("drivers", l));
    documents.fleets.lines().for_each(|l| check("fleets", l));
    check("policies", &serde_json::to_string(&Policy::fleetflow()).unwrap());
    // And they are not so wide that anything fits.
    for (name, line) in [
        ("vehicles", "{}"),
        ("fleets", r#"{"fleet_id":1}"#),
        ("policies", r#"{"policy_id":"a","version":1,"events":[],"x":1}"#),
    ] {
        assert!(fits(&json_schema(name), &serde_json::from_str(line).unwrap()).is_err(), "{name}");
    }
}
