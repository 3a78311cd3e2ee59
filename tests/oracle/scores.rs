//! What follows from trips, policies and fleets: scores of drivers, sums of fleets.

use crate::compare::{agree, equal, rows};
use crate::reference::documents;
use crate::support::{live, sql};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The columns of a trip without its own status.
pub const TRIP: &str = "select trip_id, vehicle_id, driver_id, fleet_id, ended_at, duration_s, distance_km, \
    harsh_braking, rapid_acceleration, safety_score, policy_id";

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
pub fn driver_scores(data: &Path, scored: &str) {
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
pub fn fleets_of_trips(directory: &Path, data: &Path) {
    let computed = located(directory, "trips", "trip_id");
    let same = ["c.its_fleet is not distinct from s.fleet_id".to_string()];
    agree(data, "fleets of trips", &["trip_id"], [&computed, "select * from trips"], &same);
}

/// (fleet, parent) of the documents.
pub fn parents(fleets: &[Value]) -> Vec<(String, Option<String>)> {
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
pub fn fleet_aggregates(directory: &Path, data: &Path, edges: &[(String, Option<String>)]) {
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
