//! Facts as documents of the live topics: the table's columns, and for a score `why`, so that the arithmetic can be
//! redone by hand. `schema`, `epoch` and `updated_at` are added by the committer.

use super::rows::{anomaly_id, anomaly_row, driver_row, fleet_row, trip_row};
use drivetrain_operators::facts::{AnomalyFact, VehicleFact};
use drivetrain_operators::flow::relations::{DriverRow, FleetRow, TripRow};
use drivetrain_operators::score;
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::document;
use drivetrain_schemas::fixed::to_f64;
use drivetrain_schemas::reading::NULL;
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::{Table, TableId};
use drivetrain_schemas::time::format_rfc3339;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// A key and its document.
type Document = (Arc<str>, String);

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
        let rules = score::why(policy, &trip.fact, score).into_iter().map(|part| {
            json!({
                "kind": part.kind.name(),
                "count": part.count,
                "penalty": points(part.penalty),
                "share": to_f64(i128::from(part.share), 6),
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
        .map(|rule| json!({ "kind": rule.kind.name(), "count": counts[rule.kind as usize] }))
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

/// Each vehicle's document, in their order. `status` is `on_trip` while a trip is open, else `idle`.
pub fn vehicle_documents(catalogue: &Catalogue, vehicles: &[VehicleFact]) -> impl Iterator<Item = Document> {
    let signal = |path| catalogue.by_vss(path).map(usize::from);
    let position = [signal("Vehicle.CurrentLocation.Latitude"), signal("Vehicle.CurrentLocation.Longitude")];
    vehicles.iter().map(move |vehicle| vehicle_document(catalogue, position, vehicle))
}

/// `position`: the signals that hold latitude and longitude.
fn vehicle_document(catalogue: &Catalogue, position: [Option<usize>; 2], vehicle: &VehicleFact) -> Document {
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
    let [lat, lon] = position.map(|index| {
        let value = vehicle.values.get(index?).filter(|v| **v != NULL)?;
        Some(to_f64(i128::from(*value), catalogue.signals.get(index?)?.decimals))
    });
    let fields = json!({
        "vehicle_id": &*vehicle.vehicle,
        "at": format_rfc3339(vehicle.at),
        "driver_id": vehicle.driver.as_deref(),
        "trip_id": vehicle.trip_id.as_deref(),
        "fleet_id": vehicle.fleet.as_deref(),
        "status": if vehicle.trip_id.is_some() { "on_trip" } else { "idle" },
        "lat": lat,
        "lon": lon,
        "signals": signals,
    });
    (vehicle.vehicle.clone(), fields.to_string())
}
