//! The results recomputed in batch, by SQL, from the raw readings: what the job maintained step by step must be equal.
//!
//! The `computed` side of each comparison reads only what stands before it in the chain readings → trips → drivers →
//! fleets (and the reference documents as they were written), the `stored` side is the table.

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use support::{drivetrain, live, one, replay, repository, run, sql};

/// The signals of `configs/fleet.toml` that have windows.
const SIGNALS: [&str; 5] = ["speed_kmh", "g_force_long", "g_force_lat", "engine_rpm", "fuel_level"];

/// Simulated readings in `readings.jsonl`, and their reference documents in `ref/`.
fn simulated(directory: &Path, extra: &[&str]) -> PathBuf {
    let out = directory.join("readings.jsonl");
    let mut command = drivetrain();
    command.arg("simulate").args(extra).arg("--reference").arg(directory.join("ref")).arg("--out").arg(&out);
    run(&mut command, 0);
    out
}

/// A copy of `configs/fleet.toml` with files of `ref/` as its `[reference]`.
fn config(directory: &Path, kinds: &[&str]) -> PathBuf {
    let mut text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
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

fn documents(directory: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(directory.join(format!("ref/{kind}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write_documents(directory: &Path, kind: &str, documents: &[Value]) {
    fs::create_dir_all(directory.join("ref")).unwrap();
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    fs::write(directory.join(format!("ref/{kind}.jsonl")), lines.join("\n")).unwrap();
}

/// `select … union all select …`: rows of text, with null for the empty text.
fn rows(names: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |(name, value): (&&str, &String)| match value.as_str() {
        "" => format!("cast(null as varchar) as {name}"),
        _ => format!("'{value}' as {name}"),
    };
    let row = |r: &Vec<String>| format!("select {}", names.iter().zip(r).map(cell).collect::<Vec<_>>().join(", "));
    rows.iter().map(row).collect::<Vec<_>>().join(" union all ")
}

/// Both queries give the same set of keys, once each, and `same` holds of every pair of rows (`c` computed, `s` stored).
/// Returns how many rows there are.
#[track_caller]
fn agree(data: &Path, what: &str, keys: &[&str], [computed, stored]: [&str; 2], same: &[String]) -> usize {
    let on = keys.iter().map(|k| format!("c.{k} = s.{k}")).collect::<Vec<_>>().join(" and ");
    let first = keys[0];
    let same = same.iter().map(|s| format!("({s})")).collect::<Vec<_>>().join(" and ");
    let with = format!("with c as ({computed}), s as ({stored})");
    let counts = one(
        data,
        &format!(
            "{with} select (select count(*) from c) as c, (select count(*) from s) as s, count(*), \
             coalesce(sum(case when c.{first} is not null and s.{first} is not null and {same} then 1 else 0 end), 0) \
             from c full join s on {on}"
        ),
    );
    let counts: Vec<usize> = counts.split(',').map(|n| n.parse().unwrap()).collect();
    let differing = || {
        let failed = format!("not coalesce(c.{first} is not null and s.{first} is not null and {same}, false)");
        sql(
            data,
            &format!("{with} select c.*, 'stored' as stored, s.* from c full join s on {on} where {failed} limit 5"),
        )
    };
    assert!(counts[0] > 0, "{what}: nothing was computed, so this shows nothing");
    assert!(
        counts.iter().all(|n| *n == counts[0]),
        "{what}: [computed, stored, joined, equal] rows are {counts:?}; the first that differ:\n{}",
        differing().join("\n")
    );
    counts[0]
}

/// Equal, null being equal to null.
fn equal(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|c| format!("c.{c} is not distinct from s.{c}")).collect()
}

/// Equal up to a part of the larger, or up to `least`.
fn near(column: &str, relative: f64, least: f64) -> String {
    format!("abs(c.{column} - s.{column}) <= greatest({least:e}, {relative:e} * abs(c.{column}))")
}

#[track_caller]
fn windows(data: &Path) {
    let stored = "select * from windows";
    let mut same = equal(&["count", "window_end", "sum", "min", "max"]);
    same.extend(["mean", "stddev"].map(|c| near(c, 1e-9, 1e-11)));
    // Readings of the same instant are ordered by content, which SQL does not know.
    same.push("c.tied or (c.first = s.first and c.last = s.last)".into());
    for signal in SIGNALS {
        for (resolution, unit) in [("1m", "minute"), ("1h", "hour"), ("1d", "day")] {
            // Deviations from the window's exact mean: Σ(x-m)² loses nothing to large values.
            let computed = format!(
                "with v as (select vehicle_id, at, {signal} as x, cast({signal} as decimal(38, 6)) as d, \
                 date_trunc('{unit}', at) as window_start from readings where {signal} is not null), \
                 m as (select vehicle_id as mv, window_start as mw, cast(sum(d) as double) / count(*) as mean, \
                 count(distinct at) < count(*) as tied from v group by vehicle_id, window_start) \
                 select vehicle_id, '{signal}' as signal, '{resolution}' as resolution, window_start, \
                 window_start + interval '1 {unit}' as window_end, count(*) as count, cast(sum(d) as double) as sum, \
                 max(mean) as mean, min(x) as min, max(x) as max, \
                 sqrt(sum((x - mean) * (x - mean)) / count(*)) as stddev, first_value(x order by at) as first, \
                 last_value(x order by at) as last, bool_or(tied) as tied \
                 from v join m on mv = vehicle_id and mw = window_start group by vehicle_id, window_start"
            );
            let stored = format!("{stored} where signal = '{signal}' and resolution = '{resolution}'");
            let what = format!("windows of {signal}, {resolution}");
            agree(data, &what, &["vehicle_id", "window_start"], [&computed, &stored], &same);
        }
    }
    let others = format!("select count(*) from windows where signal not in ('{}')", SIGNALS.join("', '"));
    assert_eq!(one(data, &others), "0");
}

/// Every reading with the number of its vehicle's trip: a new one where the trip id changes, and where there is none
/// after a gap of more than five minutes.
const NUMBERED: &str = "with r as (select *, arrow_cast(at, 'Int64') as t from readings), \
    l as (select *, lag(t) over (partition by vehicle_id order by at) as t0, \
    lag(trip_id) over (partition by vehicle_id order by at) as id0 from r), \
    n as (select *, sum(case when t0 is null or (trip_id is distinct from id0) or \
    (trip_id is null and t - t0 > 300000000) then 1 else 0 end) \
    over (partition by vehicle_id order by at rows unbounded preceding) as number from l), \
    p as (select *, lag(speed_kmh) over (partition by vehicle_id, number order by at) as v0 from n)";

#[track_caller]
fn trips(data: &Path) {
    let computed = format!(
        "{NUMBERED}, d as (select vehicle_id as dv, number as dn, driver_id, row_number() over (partition by vehicle_id, \
         number order by count(*) desc, driver_id) as place from n where driver_id is not null group by vehicle_id, \
         number, driver_id), t as (select vehicle_id, number, max(trip_id) as id, min(at) as started_at, \
         max(at) as ended_at, count(*) as samples, (max(t) - min(t)) / 1000000.0 + 1 as duration_s, \
         sum(case when g_force_long < -0.4 then 1 else 0 end) as harsh_braking, \
         sum(case when g_force_long > 0.4 then 1 else 0 end) as rapid_acceleration, \
         max(speed_kmh) as max_speed_kmh, count(speed_kmh) = count(*) as fast, \
         coalesce(sum((v0 + speed_kmh) / 2 * (t - t0)) / 3600000000.0, 0) as distance_km \
         from p group by vehicle_id, number) \
         select t.*, driver_id, greatest(0, 100 - 5 * (harsh_braking + rapid_acceleration)) as safety_score, \
         case when id is null then null else vehicle_id || ':' || id || ':' || to_char(started_at, '%Y-%m-%d') end \
         as trip_id from t left join d on dv = vehicle_id and dn = number and place = 1"
    );
    let mut same = equal(&["ended_at", "samples", "harsh_braking", "rapid_acceleration", "driver_id", "max_speed_kmh"]);
    same.push("c.duration_s = s.duration_s".into());
    same.push("c.safety_score = s.safety_score".into());
    same.push("c.trip_id is null or c.trip_id = s.trip_id".into());
    // Where the speed is not known the way is measured by positions.
    same.push(format!("not c.fast or {}", near("distance_km", 1e-9, 1e-6)));
    same.push(
        "s.status = 'COMPLETED' and s.policy_id = 'fleetflow' and s.policy_version = 1 and not s.excluded".into(),
    );
    same.push("s.harsh_cornering = 0 and s.speeding_s is null".into());
    let n = agree(data, "trips", &["vehicle_id", "started_at"], [&computed, "select * from trips"], &same);
    assert!(n > 100, "{n} trips");
    assert_ne!(one(data, "select count(*) from trips where safety_score < 100"), "0");
}

/// Half to even at six decimals: Σ score × exposure / Σ exposure, both integers (1e-6 points, ms), as `name`.
fn weighted(name: &str) -> String {
    let (w, e) = ("sum(points * weight)", "nullif(sum(weight), 0)");
    format!(
        "({w} / {e} + case when 2 * ({w} % {e}) > {e} or (2 * ({w} % {e}) = {e} and ({w} / {e}) % 2 = 1) then 1 \
         else 0 end) / 1e6 as {name}"
    )
}

/// A trip's score and weight as integers.
const WEIGHTED: &str =
    "cast(round(safety_score * 1e6) as bigint) as points, cast(round(duration_s * 1000) as bigint) as weight";

/// Sums over trips.
const SUMS: &str = "count(*) as trips, sum(cast(distance_km as decimal(38, 6))) as distance_km, \
    sum(cast(duration_s as decimal(38, 6))) as duration_s";

/// `distance_km` sums what each trip has rounded to six decimals.
fn sums_agree() -> Vec<String> {
    vec![
        "c.trips = s.trips".into(),
        "c.duration_s = cast(s.duration_s as decimal(38, 6))".into(),
        "abs(cast(c.distance_km as double) - s.distance_km) <= 1e-6 * c.trips".into(),
        "c.score is not distinct from s.score".into(),
    ]
}

/// `scored`: a query of trips under policies, with `status`.
#[track_caller]
fn driver_scores(data: &Path, scored: &str) {
    let computed = format!(
        "with t as (select *, {WEIGHTED} from ({scored}) where driver_id is not null), \
         newest as (select driver_id as nd, fleet_id as nf, row_number() over (partition by driver_id \
         order by ended_at desc, trip_id desc) as place from t where status = 'active'), \
         g as (select driver_id, policy_id, status, {SUMS}, sum(harsh_braking) as harsh_braking, \
         sum(rapid_acceleration) as rapid_acceleration, {} from t group by driver_id, policy_id, status) \
         select g.*, nf as fleet_id, case when score >= 90 then 'excellent' when score >= 75 then 'good' \
         when score >= 60 then 'fair' else 'poor' end as band from g join newest on nd = driver_id and place = 1",
        weighted("score")
    );
    let mut same = equal(&["harsh_braking", "rapid_acceleration", "fleet_id", "band", "status"]);
    same.extend(sums_agree());
    agree(data, "driver_scores", &["driver_id", "policy_id"], [&computed, "select * from driver_scores"], &same);
}

/// The rows of `trips` or `anomalies` with `its_fleet`: that of the vehicle's last document at or before the start, else
/// the record's (in simulated records a vehicle's fleet never changes).
fn located(directory: &Path, table: &str, key: &str) -> String {
    let document = |v: &Value| {
        let text = |field: &str| v[field].as_str().unwrap_or_default().to_string();
        let since = Some(text("effective_from")).filter(|since| !since.is_empty());
        vec![text("vehicle_id"), since.unwrap_or_else(|| "2000-01-01T00:00:00Z".into()), text("fleet_id")]
    };
    let timeline: Vec<_> = documents(directory, "vehicles").iter().map(document).collect();
    format!(
        "with tl as ({}), h as (select {key} as hk, tf, row_number() over (partition by {key} order by since desc) as hn \
         from {table} join tl on tv = vehicle_id and cast(since as timestamp) <= started_at), \
         rf as (select vehicle_id as rv, max(fleet_id) as record from readings group by vehicle_id) \
         select x.*, coalesce(tf, record) as its_fleet from {table} x left join h on hk = {key} and hn = 1 \
         left join rf on rv = vehicle_id",
        rows(&["tv", "since", "tf"], &timeline)
    )
}

#[track_caller]
fn fleets_of_trips(directory: &Path, data: &Path) {
    let computed = located(directory, "trips", "trip_id");
    let same = ["c.its_fleet is not distinct from s.fleet_id".to_string()];
    agree(data, "fleets of trips", &["trip_id"], [&computed, "select * from trips"], &same);
}

/// (fleet, parent) of the documents.
fn parents(fleets: &[Value]) -> Vec<(String, Option<String>)> {
    let text = |v: &Value, f: &str| v[f].as_str().map(str::to_string);
    fleets.iter().map(|f| (text(f, "fleet_id").unwrap(), text(f, "parent_id"))).collect()
}

/// (fleet, above) for each fleet and each of its ancestors, itself included, by `edges` whose cycles have been cut; a
/// recursion by hand over the documents.
fn closure(edges: &[(String, Option<String>)]) -> Vec<Vec<String>> {
    let parent: BTreeMap<_, _> = edges.iter().filter_map(|(f, p)| p.as_ref().map(|p| (f, p))).collect();
    let mut pairs = Vec::new();
    for (fleet, _) in edges {
        let mut above = Some(fleet);
        while let Some(a) = above {
            pairs.push(vec![fleet.clone(), a.clone()]);
            above = parent.get(a).copied();
        }
    }
    pairs
}

/// `edges`: the fleets with the parents that are left after cutting.
#[track_caller]
fn fleet_aggregates(directory: &Path, data: &Path, edges: &[(String, Option<String>)]) {
    let pairs = closure(edges);
    let edge_rows: Vec<_> = edges
        .iter()
        .map(|(f, p)| {
            let depth = pairs.iter().filter(|pair| pair[0] == *f).count() - 1;
            vec![f.clone(), p.clone().unwrap_or_default(), depth.to_string()]
        })
        .collect();
    let up = rows(&["fleet", "above"], &pairs);
    let fleets = rows(&["fleet_id", "parent_id", "depth"], &edge_rows);
    // The live row of a driver: under the policy of the newest trip.
    let computed = format!(
        "with up as ({up}), f as ({fleets}), t as (select *, {WEIGHTED} from trips where driver_id is not null \
         and safety_score is not null), \
         g as (select above, {SUMS}, count(distinct vehicle_id) as vehicles, count(distinct driver_id) as drivers, \
         sum(harsh_braking + rapid_acceleration + harsh_cornering) as harsh_events, {} \
         from t join up on fleet_id = fleet group by above), \
         newest as (select driver_id as nd, policy_id as np, row_number() over (partition by driver_id \
         order by ended_at desc, trip_id desc) as place from t), \
         ranked as (select above as ra, score as rs, row_number() over (partition by above order by score, driver_id) \
         as place, count(*) over (partition by above) as n from driver_scores join newest on nd = driver_id \
         and np = policy_id and place = 1 join up on fleet_id = fleet where score is not null), \
         m as (select ra, min(rs) as score_min, max(case when place = (n + 1) / 2 then rs end) as score_p50 \
         from ranked group by ra), \
         a as (select above as aa, count(*) as open from ({}) join up on its_fleet = fleet \
         where ended_at is null group by above) \
         select f.fleet_id, parent_id, cast(depth as bigint) as depth, coalesce(trips, 0) as trips, distance_km, \
         coalesce(duration_s, 0) as duration_s, coalesce(vehicles, 0) as vehicles, coalesce(drivers, 0) as drivers, \
         coalesce(harsh_events, 0) as harsh_events, score, score_min, score_p50, \
         coalesce(open, 0) as anomalies_active from f left join g on above = fleet_id left join m on ra = fleet_id \
         left join a on aa = fleet_id",
        weighted("score"),
        located(directory, "anomalies", "anomaly_id")
    );
    let mut same = equal(&["parent_id", "depth", "vehicles", "drivers", "harsh_events", "score_min", "score_p50"]);
    same.push("c.anomalies_active = s.anomalies_active".into());
    same.extend(sums_agree().into_iter().map(|s| match s.starts_with("abs") {
        true => format!("(c.trips = 0 and s.distance_km is null) or {s}"),
        false => s,
    }));
    agree(data, "fleet_aggregates", &["fleet_id"], [&computed, "select * from fleet_aggregates"], &same);
    worst_drivers(data, &up);
}

/// The five lowest, ties by id.
#[track_caller]
fn worst_drivers(data: &Path, up: &str) {
    let newest = "select driver_id as nd, policy_id as np, row_number() over (partition by driver_id \
                  order by ended_at desc, trip_id desc) as place from trips where safety_score is not null";
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in sql(
        data,
        &format!(
            "with up as ({up}), newest as ({newest}) select above, driver_id, score from driver_scores join newest on \
             nd = driver_id and np = policy_id and place = 1 join up on fleet_id = fleet where score is not null \
             order by above, score, driver_id"
        ),
    ) {
        let [fleet, driver, score] = row.split(',').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let lowest = expected.entry(fleet.into()).or_default();
        if lowest.len() < 5 {
            lowest.push(format!("{driver}={score}"));
        }
    }
    let mut stored = BTreeMap::new();
    for line in live(data, "fleet_aggregates") {
        let (fleet, document) = line.split_once('\t').unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        let show = |w: &Value| format!("{}={:?}", w["driver_id"].as_str().unwrap(), w["score"].as_f64().unwrap());
        let lowest: Vec<_> = document["worst_drivers"].as_array().unwrap().iter().map(show).collect();
        if !lowest.is_empty() {
            stored.insert(fleet.to_string(), lowest);
        }
    }
    assert!(expected.values().any(|w| w.len() == 5), "a fleet with five drivers");
    assert_eq!(stored, expected, "worst_drivers");
}

#[track_caller]
fn events(data: &Path) {
    let mut total = 0;
    for (kind, passes, sign) in
        [("harsh_braking", "g_force_long < -0.4", -1), ("rapid_acceleration", "g_force_long > 0.4", 1)]
    {
        // A run ends before a known value that does not pass, after more than 5 s, and with its trip.
        let computed = format!(
            "{NUMBERED}, v as (select vehicle_id, number, at, t, trip_id as id, driver_id, latitude, longitude, \
             g_force_long as x, {passes} as beyond, lag({passes}) over w as beyond0, lag(t) over w as before, \
             lag(number) over w as number0 from n where g_force_long is not null \
             window w as (partition by vehicle_id order by at)), \
             i as (select *, sum(case when beyond0 and t - before <= 5000000 and number = number0 then 0 else 1 end) \
             over (partition by vehicle_id order by at rows unbounded preceding) as run from v where beyond) \
             select vehicle_id, min(at) as started_at, max(at) as ended_at, count(*) as samples, \
             {sign} * max({sign} * x) as peak, first_value(driver_id order by at) as driver_id, \
             first_value(latitude order by at) as lat, first_value(longitude order by at) as lon, \
             case when max({sign} * x) >= 0.68 then 'high' when max({sign} * x) >= 0.52 then 'medium' else 'low' end \
             as severity from i group by vehicle_id, run"
        );
        let stored = format!("select * from events where kind = '{kind}'");
        let mut same = equal(&["ended_at", "samples", "peak", "driver_id", "lat", "lon", "severity"]);
        same.push(format!(
            "s.event_id = s.trip_id || ':{kind}:' || cast(arrow_cast(s.started_at, 'Int64') as varchar)"
        ));
        total += agree(data, kind, &["vehicle_id", "started_at"], [&computed, &stored], &same);
        // `samples` counts what a policy counts by sample.
        let counted = format!("select trip_id, sum(samples) as n from events where kind = '{kind}' group by trip_id");
        let trips = format!("select trip_id, {kind} as n from trips where {kind} > 0");
        agree(data, &format!("{kind} by trip"), &["trip_id"], [&counted, &trips], &equal(&["n"]));
    }
    assert_eq!(one(data, "select count(*) from events"), total.to_string());
    assert_ne!(one(data, "select count(*) from events where samples > 1"), "0", "no event is longer than a sample");
}

/// `[detectors.range.engine_rpm]`: 0 to 7000.
#[track_caller]
fn range_anomalies(data: &Path) {
    let computed = "with v as (select vehicle_id, at, engine_rpm as x, engine_rpm > 7000 as beyond, \
        lag(engine_rpm > 7000) over w as beyond0 from readings where engine_rpm is not null \
        window w as (partition by vehicle_id order by at)), \
        i as (select *, sum(case when beyond is distinct from beyond0 then 1 else 0 end) \
        over (partition by vehicle_id order by at rows unbounded preceding) as run from v), \
        g as (select vehicle_id, run, beyond, min(at) as started_at, max(x) as observed, \
        floor((max(x) - 7000) * 1000 / 7000) / 1000 as score from i group by vehicle_id, run, beyond), \
        e as (select *, lead(started_at) over (partition by vehicle_id order by run) as ended_at from g) \
        select *, 7000.0 as expected, case when score >= 1 then 'high' when score >= 0.25 then 'medium' else 'low' end \
        as severity from e where beyond";
    let stored = "select * from anomalies where signal = 'engine_rpm' and detector = 'range'";
    let mut same = equal(&["ended_at", "expected", "score", "severity"]);
    same.push("s.kind = 'high'".into());
    // Of values with the same score (in thousandths) the first stays.
    same.push("c.observed >= s.observed and c.observed - s.observed < 7".into());
    agree(data, "range anomalies", &["vehicle_id", "started_at"], [computed, stored], &same);
    assert_eq!(one(data, "select count(*) from readings where engine_rpm < 0"), "0");
    let long =
        "select count(*) > 0 from anomalies where detector = 'range' and ended_at > started_at + interval '5 seconds'";
    assert_eq!(one(data, long), "true", "no range anomaly lasts");
}

/// `lines`: of the input, without blank ones.
#[track_caller]
fn intake(data: &Path, lines: usize) {
    assert_eq!(one(data, "select sum(records) from intake"), lines.to_string());
    let sums = "select records = decoded + rejected and readings = used + duplicates + late and duplicates > 0 \
                and used = (select count(*) from readings) and rejected = (select count(*) from rejects) \
                and late = (select count(*) from late) from intake";
    assert_eq!(sql(data, sums), ["true"]);
}

/// The live topics say what the tables say.
#[track_caller]
fn live_is_table(data: &Path) {
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
fn why_adds_up(data: &Path) {
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

/// The columns of a trip without its own status.
const TRIP: &str = "select trip_id, vehicle_id, driver_id, fleet_id, ended_at, duration_s, distance_km, \
    harsh_braking, rapid_acceleration, safety_score, policy_id";

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
fn write_reference(directory: &Path) {
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
fn governed() -> String {
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
