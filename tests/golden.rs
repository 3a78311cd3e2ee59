//! Real recordings and small payloads through `replay`, with the answers that are known.

mod support;

use std::fs;
use std::path::Path;
use support::{bus_days, drivetrain, one, recording, replay, repository, run, sql, unzipped};

fn trip(id: &str, values: &[f64]) -> String {
    let samples: Vec<String> = values.iter().map(|v| format!(r#"{{"speed_kmh":50,"g_force_long":{v}}}"#)).collect();
    format!(r#"{{"trip_id":"{id}","vehicle_id":"v1","driver_id":"d1","data":[{}]}}"#, samples.join(",")) + "\n"
}

#[test]
fn trip_payloads_score_as_fleetflow_says() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let input = scratch.path().join("t.jsonl");
    let text = trip("t1", &[0.1, -0.5])
        + &trip("thirty", &[-0.6; 30])
        + &trip("none", &[0.1, 0.2])
        + &trip("exact", &[0.4, -0.4, 0.1])
        + &trip("both", &[0.41, -0.41, 0.400001]);
    fs::write(&input, text).unwrap();
    replay(&repository("configs/trip-payloads.toml"), &data, &[], &[&input]);
    let query = "select trip_id,status,harsh_braking,rapid_acceleration,safety_score from trips order by trip_id";
    assert_eq!(
        sql(&data, query),
        [
            "both,COMPLETED,1,2,85.0",
            "exact,COMPLETED,0,0,100.0",
            "none,COMPLETED,0,0,100.0",
            "t1,COMPLETED,1,0,95.0",
            "thirty,COMPLETED,30,0,0.0",
        ]
    );
    // Weighted by duration: 3, 3, 2, 2 and 30 samples of one second.
    assert_eq!(one(&data, "select score, trips, duration_s from driver_scores"), "23.625,5,40.0");
    assert_eq!(one(&data, "select count(*) from readings"), "40");
}

#[test]
fn a_payload_sent_again_is_a_duplicate_and_a_newer_one_replaces() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let input = scratch.path().join("t.jsonl");
    fs::write(&input, trip("t1", &[0.1]) + &trip("t1", &[0.1]) + &trip("t1", &[0.1, -0.5])).unwrap();
    replay(&repository("configs/trip-payloads.toml"), &data, &[], &[&input]);
    assert_eq!(one(&data, "select records, readings, used, duplicates from intake"), "3,3,1,2");
    assert_eq!(sql(&data, "select trip_id from trips").len(), 1);
    assert_eq!(one(&data, "select count(*) from trips_log where diff > 0"), "1", "one epoch, one row");
}

#[test]
fn the_readme_s_first_answer() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let input = scratch.path().join("t.jsonl");
    fs::write(&input, trip("t1", &[0.1, -0.5])).unwrap();
    replay(&repository("configs/trip-payloads.toml"), &data, &[], &[&input]);
    let query = "select trip_id,status,harsh_braking,rapid_acceleration,safety_score from trips";
    let output = run(drivetrain().args(["sql", "--format", "csv", "--data"]).arg(&data).arg(query), 0);
    let text = String::from_utf8(output.stdout).unwrap();
    let header = "trip_id,status,harsh_braking,rapid_acceleration,safety_score";
    assert_eq!(text.lines().collect::<Vec<_>>(), [header, "t1,COMPLETED,1,0,95.0"]);
}

/// The recorder's own rule is an exact oracle (SOURCE.md of the recording).
#[test]
fn naturalistic_driving() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    replay(&repository("configs/nds.toml"), &data, &[], &[&recording("nds/nds_drives.csv.gz")]);
    assert_eq!(
        one(&data, "select count(*), count(distinct vehicle_id) from trips where status = 'COMPLETED'"),
        "14,14"
    );
    let kinds = "select kind, count(*) from events group by kind order by kind";
    assert_eq!(sql(&data, kinds), ["harsh_braking,4", "harsh_cornering,30", "rapid_acceleration,16"]);
    assert_eq!(one(&data, "select round(sum(distance_km), 3) from trips"), "272.234");
    assert_eq!(one(&data, "select used, rejected, late, duplicates from intake"), "13987,0,0,0");

    // Events joined where they overlap or follow within one sample interval.
    let joined = "with e as (select vehicle_id, started_at, ended_at, max(ended_at) over (partition by vehicle_id \
                  order by started_at, ended_at rows between unbounded preceding and 1 preceding) as before from events) \
                  select count(*) from e where before is null or started_at > before + interval '1 second'";
    assert_eq!(one(&data, joined), "48");

    // The rows inside an event are exactly the labelled ones.
    let inside = sql(
        &data,
        "select distinct r.vehicle_id, cast(date_part('epoch', r.at) as bigint) from readings r join events e \
         on r.vehicle_id = e.vehicle_id and r.at between e.started_at and e.ended_at",
    );
    let mut inside: Vec<String> = inside;
    inside.sort();
    let mut labelled = labelled_rows(&recording("nds/nds_drives.csv.gz"));
    labelled.sort();
    assert_eq!(labelled.len(), 60);
    assert_eq!(inside, labelled);

    // 31.7334267875606 mph in the first row of drive 2.
    let speed = "select round(speed_kmh, 4) from readings where vehicle_id = '2' order by at limit 1";
    assert_eq!(one(&data, speed), "51.07");
}

/// (drive, second) of the rows with an event number.
fn labelled_rows(path: &Path) -> Vec<String> {
    let text = unzipped(path);
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().expect("a header");
    let column = |name: &str| header.iter().position(|c| *c == name).expect("the column");
    let (drive, time, event) = (column("drive"), column("time_utc"), column("accel_event"));
    lines.filter(|row| !row[event].is_empty()).map(|row| format!("{},{}", row[drive], row[time])).collect()
}

/// Rows less distinct (vehicle, time) by file, as the recording's SOURCE.md counts them.
const DUPLICATES: [(&str, i64); 10] = [
    ("2015-03-07", 139),
    ("2015-03-08", 6),
    ("2016-01-17", 1),
    ("2016-02-07", 4),
    ("2016-03-22", 12_244),
    ("2016-05-19", 138),
    ("2016-05-30", 3_757),
    ("2016-08-02", 48),
    ("2016-09-01", 241),
    ("2016-12-16", 1),
];

#[test]
fn city_buses() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let days = bus_days();
    let inputs: Vec<&Path> = days.iter().map(|p| p.as_path()).collect();
    replay(&repository("configs/capmetrics.toml"), &data, &[], &inputs);
    let totals =
        "select sum(records), sum(used), sum(duplicates), sum(late), sum(rejected), sum(invalid_values) from intake";
    assert_eq!(one(&data, totals), "473861,457282,16579,0,0,0");
    for row in sql(&data, "select origin, duplicates from intake order by origin") {
        let (origin, duplicates) = row.rsplit_once(',').unwrap();
        let expected = DUPLICATES.iter().find(|(day, _)| origin.contains(day)).map_or(0, |(_, n)| *n);
        assert_eq!(duplicates, expected.to_string(), "{origin}");
    }
    // The unit changes in December 2015: buses drive as fast as before.
    let means = "select min(m) > 15 and max(m) < 40 from \
                 (select avg(speed_kmh) as m from readings where speed_kmh > 0 group by date_part('year', at))";
    assert_eq!(one(&data, means), "true");
    // 30.3999996185 mph, and 12.96416 m/s.
    let mph = "select round(speed_kmh, 3) from readings where at < timestamp '2015-04-01T00:00:00Z' and abs(speed_kmh - 48.924) < 0.001 limit 1";
    assert_eq!(one(&data, mph), "48.924");
    let metres =
        "select round(speed_kmh, 3) from readings where at > timestamp '2016-12-18T00:00:00Z' and vehicle_id = '2601'";
    assert_eq!(one(&data, metres), "46.671");
    assert_eq!(one(&data, "select count(*) from readings"), "457282");
}

#[test]
fn the_transmitters_word_for_unknown_is_null_and_counted() {
    let scratch = tempfile::tempdir().unwrap();
    let input = scratch.path().join("2016-06-01.csv");
    let header = "vehicle_id,timestamp,speed,route_id,trip_id,latitude,longitude,trip_headsign\n";
    let rows =
        "1,2016-06-01T10:00:00-05:00,113.9952,1,2,30.2,-97.7,X\n1,2016-06-01T10:02:00-05:00,10,1,2,30.2,-97.7,X\n";
    fs::write(&input, format!("{header}{rows}")).unwrap();
    let data = scratch.path().join("d");
    replay(&repository("configs/capmetrics.toml"), &data, &[], &[&input]);
    assert_eq!(one(&data, "select used, invalid_values from intake"), "2,1");
    assert_eq!(sql(&data, "select vehicle_id, speed_kmh from readings order by at"), ["1,", "1,36.0"]);
}
