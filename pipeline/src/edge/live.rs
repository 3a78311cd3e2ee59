//! Facts as documents of the live topics: the table's columns, and for a score `why`, so that the arithmetic can be
//! redone by hand. `schema`, `epoch` and `updated_at` are added by the committer.

use super::rows::{anomaly_id, anomaly_row, driver_row, fleet_row, trip_row};
use drivetrain_operators::facts::{AnomalyFact, VehicleFact};
use drivetrain_operators::flow::relations::{DriverRow, FleetRow, TripRow};
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::document;
use drivetrain_schemas::fixed::{div_round, to_f64};
use drivetrain_schemas::policy::EventKind;
use drivetrain_schemas::reading::NULL;
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::{Table, TableId};
use drivetrain_schemas::time::format_rfc3339;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// A key and its document.
type Document = (Arc<str>, String);

const KINDS: [EventKind; 6] = [
    EventKind::HarshBraking,
    EventKind::RapidAcceleration,
    EventKind::HarshCornering,
    EventKind::Speeding,
    EventKind::Collision,
    EventKind::Idling,
];

static TRIPS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::Trips, &Catalogue::default()));
static DRIVERS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::DriverScores, &Catalogue::default()));
static FLEETS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::FleetAggregates, &Catalogue::default()));
static ANOMALIES: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::Anomalies, &Catalogue::default()));

/// A row's document with `why` behind its columns.
fn with_why(table: &Table, row: &Row, why: &Value) -> String {
    let mut document = document::document(table, row);
    document.pop();
    format!("{document},\"why\":{why}}}")
}

fn points(value: i64) -> Value {
    json!(to_f64(i128::from(value), 6))
}

pub fn trip_document(trip: &TripRow) -> Document {
    let mut why = Value::Null;
    if let Some((policy, score)) = &trip.score {
        let lost: i64 = score.penalties.iter().sum();
        let rules = policy.rules.iter().zip(&score.penalties).map(|(rule, penalty)| {
            json!({
                "kind": rule.kind.name(),
                "count": drivetrain_operators::score::count(rule, &trip.fact.harsh),
                "penalty": points(*penalty),
                "share": if lost > 0 { to_f64(div_round(i128::from(*penalty) * 1_000_000, i128::from(lost)), 6) } else { 0.0 },
            })
        });
        why = json!({
            "policy_id": &*policy.policy_id,
            "policy_version": policy.version,
            "base": policy.base,
            "floor": policy.floor,
            "events": rules.collect::<Vec<_>>(),
        });
    }
    (trip.fact.trip_id.clone(), with_why(&TRIPS, &trip_row(trip), &why))
}

pub fn driver_document(driver: &DriverRow) -> Document {
    let counts = &driver.totals.counts;
    let events: Vec<Value> = driver
        .policy
        .rules
        .iter()
        .map(|rule| rule.kind)
        .filter(|kind| KINDS.contains(kind))
        .map(|kind| json!({ "kind": kind.name(), "count": counts[kind as usize] }))
        .collect();
    let why = json!({
        "policy_id": &*driver.policy.policy_id,
        "policy_version": driver.policy.version,
        "weighting": driver.policy.driver.weighting,
        // score = weighted / exposure
        "weighted": driver.totals.weighted.to_string(),
        "exposure": driver.totals.exposure.to_string(),
        "events": events,
    });
    (driver.driver.clone(), with_why(&DRIVERS, &driver_row(driver), &why))
}

pub fn fleet_document(fleet: &FleetRow) -> Document {
    (fleet.fleet.clone(), document::document(&FLEETS, &fleet_row(fleet)))
}

pub fn anomaly_document(catalogue: &Catalogue, anomaly: &AnomalyFact) -> Document {
    (anomaly_id(catalogue, anomaly), document::document(&ANOMALIES, &anomaly_row(catalogue, anomaly)))
}

/// `status` is `on_trip` while a trip is open, else `idle`.
pub fn vehicle_document(catalogue: &Catalogue, vehicle: &VehicleFact) -> Document {
    let mut signals = Map::new();
    for (signal, value) in catalogue.signals.iter().zip(&vehicle.values) {
        let value = match signal.kind {
            _ if *value == NULL => continue,
            SignalType::Bool => json!(*value == 1),
            _ => json!(to_f64(i128::from(*value), signal.decimals)),
        };
        signals.insert(signal.name.clone(), value);
    }
    for (signal, text) in &vehicle.texts {
        if let Some(signal) = catalogue.signals.get(usize::from(*signal)) {
            signals.insert(signal.name.clone(), json!(&**text));
        }
    }
    let position = |path| {
        let index = catalogue.by_vss(path).map(usize::from)?;
        let value = vehicle.values.get(index).filter(|v| **v != NULL)?;
        Some(to_f64(i128::from(*value), catalogue.signals.get(index)?.decimals))
    };
    let fields = json!({
        "vehicle_id": &*vehicle.vehicle,
        "at": format_rfc3339(vehicle.at),
        "driver_id": vehicle.driver.as_deref(),
        "trip_id": vehicle.trip_id.as_deref(),
        "fleet_id": vehicle.fleet.as_deref(),
        "status": if vehicle.trip_id.is_some() { "on_trip" } else { "idle" },
        "lat": position("Vehicle.CurrentLocation.Latitude"),
        "lon": position("Vehicle.CurrentLocation.Longitude"),
        "signals": signals,
    });
    (vehicle.vehicle.clone(), fields.to_string())
}
