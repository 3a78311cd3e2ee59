//! Facts as rows of the history tables, cell by cell in the order of `drivetrain_schemas::table`.

use super::{decimals, name};
use drivetrain_operators::edge::{mean, stddev};
use drivetrain_operators::facts::{AnomalyFact, EventFact, QualityFact, WindowFact};
use drivetrain_operators::flow::relations::{DriverRow, FleetRow, Problem, Totals, TripRow};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::fixed::div_round;
use drivetrain_schemas::policy::Status;
use drivetrain_schemas::row::{Cell, Row};
use std::sync::Arc;

const SEVERITY: [&str; 3] = ["low", "medium", "high"];

fn severity(level: u8) -> Cell<'static> {
    Cell::from(SEVERITY[usize::from(level.min(2))])
}

/// `event_id` of an excursion.
pub(crate) fn event_id(event: &EventFact) -> Arc<str> {
    let owner = event.trip_id.as_ref().unwrap_or(&event.vehicle);
    format!("{owner}:{}:{}", event.kind.name(), event.started_at).into()
}

/// `anomaly_id`.
pub(crate) fn anomaly_id(catalogue: &Catalogue, a: &AnomalyFact) -> Arc<str> {
    format!("{}:{}:{}:{}", a.vehicle, name(catalogue, a.signal), a.detector.name(), a.started_at).into()
}

pub fn window_row(catalogue: &Catalogue, w: &WindowFact) -> Row {
    let d = decimals(catalogue, w.signal);
    let s = &w.stats;
    let quantile = |i: usize| w.quantiles.map_or(Cell::Null, |q| Cell::fixed(i128::from(q[i]), d));
    let fixed = |v: i64| Cell::fixed(i128::from(v), d);
    Row::new(&[
        Cell::from(&w.vehicle),
        Cell::from(name(catalogue, w.signal)),
        Cell::from(w.resolution.name()),
        Cell::Time(w.start),
        Cell::Time(w.start + w.resolution.micros()),
        Cell::Int(s.count),
        Cell::fixed(s.sum, d),
        Cell::float(mean(s, d)),
        fixed(s.min),
        fixed(s.max),
        Cell::float(stddev(s, d)),
        fixed(s.first),
        fixed(s.last),
        quantile(0),
        quantile(1),
        quantile(2),
    ])
}

/// `positions`: the decimals of latitude and longitude.
pub fn event_row(catalogue: &Catalogue, positions: (u32, u32), e: &EventFact) -> Row {
    Row::new(&[
        Cell::Text(&event_id(e)),
        Cell::from(&e.vehicle),
        Cell::text(&e.driver),
        Cell::text(&e.trip_id),
        Cell::from(e.kind.name()),
        Cell::Time(e.started_at),
        Cell::Time(e.ended_at),
        Cell::Int(e.samples),
        Cell::fixed(i128::from(e.peak), decimals(catalogue, e.signal)),
        severity(e.severity),
        Cell::maybe_fixed(e.position.map(|p| i128::from(p.0)), positions.0),
        Cell::maybe_fixed(e.position.map(|p| i128::from(p.1)), positions.1),
    ])
}

pub fn anomaly_row(catalogue: &Catalogue, a: &AnomalyFact) -> Row {
    let d = decimals(catalogue, a.signal);
    Row::new(&[
        Cell::Text(&anomaly_id(catalogue, a)),
        Cell::from(&a.vehicle),
        Cell::from(name(catalogue, a.signal)),
        Cell::from(a.detector.name()),
        Cell::from(a.kind.name()),
        severity(a.severity),
        Cell::Time(a.started_at),
        Cell::maybe_time(a.ended_at),
        Cell::fixed(i128::from(a.score), 3),
        Cell::fixed(i128::from(a.observed), d),
        Cell::maybe_fixed(a.expected.map(i128::from), d),
    ])
}

/// Each share is one division of two exact counts; null where there is nothing to divide by.
pub fn quality_row(catalogue: &Catalogue, q: &QualityFact) -> Row {
    let share = |part: i64, whole: i64| if whole > 0 { Cell::float(part as f64 / whole as f64) } else { Cell::Null };
    Row::new(&[
        Cell::from(&q.vehicle),
        Cell::from(name(catalogue, q.signal)),
        Cell::Time(q.start),
        q.expected.map_or(Cell::Null, Cell::Int),
        Cell::Int(q.received),
        Cell::Int(q.invalid),
        Cell::Int(q.duplicates),
        Cell::Int(q.late),
        q.expected.map_or(Cell::Null, |expected| share(q.received.min(expected), expected)),
        share(q.received, q.received + q.invalid),
        share(q.received, q.received + q.late),
    ])
}

/// Kilometres from (1e-6 km/h) × µs, at six decimals.
fn kilometres(distance: i128) -> Cell<'static> {
    Cell::fixed(div_round(distance, 3_600_000_000), 6)
}

fn seconds(micros: i64) -> Cell<'static> {
    Cell::fixed(i128::from(micros), 6)
}

pub fn trip_row(trip: &TripRow) -> Row {
    let f = &trip.fact;
    let status = match (f.open, &trip.score) {
        (true, _) => "PROCESSING",
        (false, None) => "PENDING",
        (false, Some(_)) => "COMPLETED",
    };
    let ended = |cell: Cell<'static>| if f.open { Cell::Null } else { cell };
    let score = trip.score.as_ref();
    let count = |kind: usize| Cell::Int(score.map_or(0, |(_, s)| s.counts[kind]));
    Row::new(&[
        Cell::from(&f.trip_id),
        Cell::from(&f.vehicle),
        Cell::text(&f.driver),
        Cell::text(&trip.fleet),
        Cell::from(status),
        Cell::Time(f.started_at),
        ended(Cell::Time(f.ended_at)),
        ended(Cell::Int(f.samples)),
        ended(seconds(f.duration)),
        ended(f.distance.map_or(Cell::Null, kilometres)),
        ended(Cell::maybe_fixed(f.max_speed.map(i128::from), 6)),
        count(0),
        count(1),
        count(2),
        ended(f.speeding.map_or(Cell::Null, seconds)),
        Cell::maybe_fixed(score.map(|(_, s)| i128::from(s.score)), 6),
        score.map_or(Cell::Null, |(p, _)| Cell::from(&p.policy_id)),
        score.map_or(Cell::Null, |(p, _)| Cell::Int(p.version)),
        Cell::Bool(false),
    ])
}

/// Distance and speeding are known when they are for at least one trip.
fn measured(totals: &Totals) -> (Cell<'static>, Cell<'static>) {
    let distance = if totals.measured > 0 { kilometres(totals.distance) } else { Cell::Null };
    let speeding = if totals.observed > 0 { seconds(totals.speeding) } else { Cell::Null };
    (distance, speeding)
}

pub fn driver_row(row: &DriverRow) -> Row {
    let t = &row.totals;
    let (distance, speeding) = measured(t);
    Row::new(&[
        Cell::from(&row.driver),
        Cell::from(&row.policy.policy_id),
        Cell::maybe_fixed(row.score.map(i128::from), 6),
        Cell::text(&row.band),
        Cell::Int(t.trips),
        distance,
        seconds(t.duration),
        Cell::Int(t.counts[0]),
        Cell::Int(t.counts[1]),
        Cell::Int(t.counts[2]),
        speeding,
        Cell::text(&row.fleet),
        Cell::from(if row.policy.status == Status::Shadow { "shadow" } else { "active" }),
    ])
}

pub fn fleet_row(row: &FleetRow) -> Row {
    let t = &row.totals;
    let worst: Vec<_> = row
        .worst
        .iter()
        .map(|w| {
            let score = drivetrain_schemas::fixed::to_f64(i128::from(w.score), 6);
            serde_json::json!({ "driver_id": &*w.driver, "score": score })
        })
        .collect();
    Row::new(&[
        Cell::from(&row.fleet),
        Cell::text(&row.parent),
        Cell::Int(row.depth),
        Cell::Int(row.vehicles),
        Cell::Int(row.drivers),
        Cell::Int(t.trips),
        measured(t).0,
        seconds(t.duration),
        Cell::Int(t.harsh()),
        Cell::maybe_fixed(row.score.map(i128::from), 6),
        Cell::maybe_fixed(row.score_min.map(i128::from), 6),
        Cell::maybe_fixed(row.score_p50.map(i128::from), 6),
        Cell::Json(&serde_json::Value::from(worst).to_string()),
        Cell::Int(row.anomalies),
    ])
}

pub fn problem_row(problem: &Problem) -> Row {
    Row::new(&[Cell::from(&problem.document), Cell::from(&problem.problem)])
}
