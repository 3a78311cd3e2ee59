//! Facts as documents of the live topics: the table's columns, and for a score `why`, so that the arithmetic can be
//! redone by hand. `schema`, `epoch` and `updated_at` are added by the committer.

use super::rows::{anomaly_id, anomaly_row};
use drivetrain_operators::facts::{AnomalyFact, VehicleFact};
use drivetrain_operators::flow::relations::{DriverRow, FleetRow, TripRow};
use drivetrain_operators::score;
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::document;
use drivetrain_schemas::fixed::{self, to_f64};
use drivetrain_schemas::reading::NULL;
use drivetrain_schemas::row::Row;
use drivetrain_schemas::table::{Table, TableId};
use drivetrain_schemas::time::format_rfc3339;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};

/// A key and its document.
type Document = (Arc<str>, String);

static TRIPS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::Trips, &Catalogue::default()));
static DRIVERS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::DriverScores, &Catalogue::default()));
static FLEETS: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::FleetAggregates, &Catalogue::default()));
static ANOMALIES: LazyLock<Table> = LazyLock::new(|| Table::new(TableId::Anomalies, &Catalogue::default()));

/// A row's document with what `why` writes behind its columns.
fn with_why(table: &Table, row: &Row, why: impl FnOnce(&mut String)) -> String {
    let mut document = document::document(table, row);
    document.pop();
    document.push_str(",\"why\":");
    why(&mut document);
    document.push('}');
    document
}

/// Millionths as a decimal number: exact, and as short as it can be (`0.5`, `100.0`).
fn write_millionths(out: &mut String, value: i64) {
    let text = fixed::format(value.into(), 6);
    let short = text.trim_end_matches('0');
    out.push_str(short);
    if short.ends_with('.') {
        out.push('0');
    }
}

/// `row`: that of the trip. Written by hand, since there is one for each change of a trip; `why` has its keys in the order
/// of the alphabet.
pub fn trip_document(trip: &TripRow, row: &Row) -> Document {
    let why = |out: &mut String| {
        let Some((policy, score)) = &trip.score else { return out.push_str("null") };
        let _ = write!(out, "{{\"base\":{},\"events\":[", policy.base);
        for (i, part) in score::why(policy, &trip.fact, score).into_iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let _ = write!(out, "{comma}{{\"count\":{},\"kind\":\"{}\",\"penalty\":", part.count, part.kind.name());
            write_millionths(out, part.penalty);
            out.push_str(",\"share\":");
            write_millionths(out, part.share);
            out.push('}');
        }
        let _ = write!(out, "],\"floor\":{},\"policy_id\":", policy.floor);
        document::write_string(out, &policy.policy_id);
        let _ = write!(out, ",\"policy_version\":{}}}", policy.version);
    };
    (trip.fact.trip_id.clone(), with_why(&TRIPS, row, why))
}

/// `row`: that of the driver.
pub fn driver_document(driver: &DriverRow, row: &Row) -> Document {
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
    let write = |out: &mut String| {
        let _ = write!(out, "{why}");
    };
    (driver.driver.clone(), with_why(&DRIVERS, row, write))
}

/// `row`: that of the fleet.
pub fn fleet_document(fleet: &FleetRow, row: &Row) -> Document {
    (fleet.fleet.clone(), document::document(&FLEETS, row))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millionths_are_the_shortest_decimals() {
        let numbers =
            [(0, "0.0"), (100_000_000, "100.0"), (500_000, "0.5"), (-1_250_001, "-1.250001"), (10, "0.00001")];
        for (value, text) in numbers.into_iter().chain([(i64::MAX, "9223372036854.775807")]) {
            let mut out = String::from("00");
            write_millionths(&mut out, value);
            assert_eq!(out, format!("00{text}"));
        }
    }
}
