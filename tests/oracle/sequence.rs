//! What follows from the readings of a vehicle alone: windows, trips, events, anomalies.

use crate::compare::{agree, equal, near};
use crate::support::one;
use std::path::Path;

/// The signals of `configs/fleet.toml` that have windows.
const SIGNALS: [&str; 5] = ["speed_kmh", "g_force_long", "g_force_lat", "engine_rpm", "fuel_level"];

#[track_caller]
pub fn windows(data: &Path) {
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
pub fn trips(data: &Path) {
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

#[track_caller]
pub fn events(data: &Path) {
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
pub fn range_anomalies(data: &Path) {
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
