//! JSON Schemas (draft 2020-12) of the documents on the live topics and on the control topics.

use super::{Subject, kind_name};
use crate::sql::table_of;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::control::ControlKind;
use drivetrain_schemas::table::{Column, Kind, Table, Topic};
use serde_json::{Map, Value, json};
use std::fmt::Write;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// One schema, or an array of them.
pub(super) fn render(subjects: &[Subject], catalogue: &Catalogue) -> String {
    let mut schemas: Vec<Value> = subjects.iter().filter_map(|s| schema(*s, catalogue)).collect();
    let all = if schemas.len() == 1 { schemas.remove(0) } else { Value::Array(schemas) };
    format!("{all:#}\n")
}

fn schema(subject: Subject, catalogue: &Catalogue) -> Option<Value> {
    match subject {
        Subject::Table(_) => None,
        Subject::Topic(topic) => Some(topic_schema(topic, catalogue)),
        Subject::Control(kind) => Some(control_schema(kind)),
    }
}

fn key_of(topic: Topic) -> &'static str {
    match topic {
        Topic::DriverScores => "driver_id",
        Topic::TripScores => "trip_id",
        Topic::FleetAggregates => "fleet_id",
        Topic::VehicleState => "vehicle_id",
        Topic::AnomaliesActive => "anomaly_id",
    }
}

fn doc_of(topic: Topic) -> &'static str {
    match topic {
        Topic::DriverScores => {
            "The newest score of each driver, under the active policy of the fleet of the newest trip."
        }
        Topic::TripScores => "The newest state of each trip, with its score; of an open trip the score so far.",
        Topic::FleetAggregates => "The newest sums and scores of each fleet with its descendants.",
        Topic::VehicleState => "Where each vehicle is and what its sensors said last.",
        Topic::AnomaliesActive => "The open anomalies; a tombstone closes one.",
    }
}

/// The columns beyond the table's that every live document has.
fn envelope() -> [(&'static str, Value); 3] {
    [
        ("schema", json!({"type": "integer", "description": "Version of the document; fields are only ever added."})),
        ("epoch", json!({"type": "integer", "description": "The epoch that made this value."})),
        ("updated_at", json!({"type": "string", "format": "date-time", "description": "The epoch's wall time."})),
    ]
}

fn topic_schema(topic: Topic, catalogue: &Catalogue) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    match table_of(topic) {
        Some(id) => {
            for column in Table::new(id, catalogue).columns {
                properties.insert(column.name.clone(), property(&column));
                required.push(column.name);
            }
        }
        None => {
            let description = "The vehicle. Beside it: position, signals, trip and status.";
            properties.insert("vehicle_id".into(), json!({"type": "string", "description": description}));
            required.push("vehicle_id".into());
        }
    }
    for (name, value) in envelope() {
        properties.insert(name.into(), value);
        required.push(name.into());
    }
    if matches!(topic, Topic::DriverScores | Topic::TripScores) {
        let description = "Why the score is what it is: the policy's version, and of each event kind its count, penalty \
                           and share.";
        properties.insert("why".into(), json!({"type": ["object", "null"], "description": description}));
    }
    json!({
        "$schema": DRAFT,
        "title": topic.name(),
        "description": format!("{} The record's key is {}.", doc_of(topic), key_of(topic)),
        "type": "object",
        "properties": properties,
        "required": required,
    })
}

fn property(column: &Column) -> Value {
    let (kind, format) = match column.kind {
        Kind::Text | Kind::Binary => ("string", None),
        Kind::Time => ("string", Some("date-time")),
        Kind::Int => ("integer", None),
        Kind::Float => ("number", None),
        Kind::Bool => ("boolean", None),
        // A document of any form.
        Kind::Json => return json!({"description": column.doc}),
    };
    let mut property = match column.nullable {
        true => json!({"type": [kind, "null"], "description": column.doc}),
        false => json!({"type": kind, "description": column.doc}),
    };
    if let (Some(format), Some(fields)) = (format, property.as_object_mut()) {
        fields.insert("format".into(), format.into());
    }
    property
}

/// A field of a control document: name, JSON type, whether it must be there, what it says.
type Field = (&'static str, &'static str, bool, &'static str);

const EFFECTIVE: Field =
    ("effective_from", "date-time", false, "The document holds from this time on; default: always. Part of the key.");

fn control_fields(kind: ControlKind) -> (&'static str, &'static str, Vec<Field>) {
    match kind {
        ControlKind::Vehicles => (
            "A vehicle.",
            "vehicle_id, and @effective_from where it has one",
            vec![
                ("vehicle_id", "string", true, "The vehicle, as in the readings."),
                ("external_id", "string", false, "Its id elsewhere, such as a VIN."),
                ("type", "string", false, "bus, car, scooter, truck, rig, …"),
                ("manufacturer", "string", false, "Who built it."),
                ("model", "string", false, "Which model it is."),
                ("fleet_id", "string", false, "The fleet that it belongs to."),
                ("sensors", "sensors", false, "Its sensors."),
                EFFECTIVE,
            ],
        ),
        ControlKind::Drivers => (
            "A driver.",
            "driver_id, and @effective_from where it has one",
            vec![
                ("driver_id", "string", true, "The driver, as in the readings."),
                ("name", "string", false, "For people."),
                ("fleet_id", "string", false, "The fleet that the driver belongs to."),
                EFFECTIVE,
            ],
        ),
        ControlKind::Fleets => (
            "A fleet.",
            "fleet_id",
            vec![
                ("fleet_id", "string", true, "The fleet, as in the documents of vehicles and drivers."),
                ("parent_id", "string", false, "The fleet above it; none: a root."),
                ("name", "string", false, "For people."),
            ],
        ),
        ControlKind::Policies => (
            "A scoring policy: a trip starts at `base`, each event costs its weight, and the score is not below `floor`.",
            "policy_id@version",
            vec![
                ("policy_id", "string", true, "The policy."),
                ("version", "integer", true, "Its version. Part of the key."),
                (
                    "valid_from",
                    "date-time",
                    false,
                    "It governs the trips that start from this time on; default: always.",
                ),
                ("valid_to", "date-time", false, "Up to this time, exclusive; default: always."),
                (
                    "scope",
                    "string",
                    false,
                    "A fleet, inherited by its descendants, the nearest wins; default: everybody.",
                ),
                ("status", "status", false, "active (default), shadow or retired."),
                ("base", "integer", false, "Score of a trip without events; default 100."),
                ("floor", "integer", false, "Lowest score; default 0."),
                ("events", "events", true, "What counts, and what it costs."),
                ("normalisation", "normalisation", false, "What the counts are divided by; default none."),
                ("driver", "driver", false, "How trips make a driver's score."),
            ],
        ),
    }
}

fn one_of(values: &[&str]) -> Value {
    json!({"type": "string", "enum": values})
}

/// The schema of a field's type.
fn type_schema(name: &str) -> Value {
    let number = || json!({"type": ["number", "string"]});
    match name {
        "date-time" => json!({"type": ["string", "null"], "format": "date-time"}),
        "status" => one_of(&["active", "shadow", "retired"]),
        "normalisation" => one_of(&["none", "per_100km", "per_hour"]),
        "sensors" => json!({"type": "array", "items": {
            "type": "object",
            "properties": {
                "sensor_type": {"type": "string", "description": "The signal's name."},
                "sampling_interval": {"type": ["string", "null"], "description": "Such as \"1s\"."},
                "range": {"type": ["array", "null"], "items": number(), "minItems": 2, "maxItems": 2},
                "enabled": {"type": "boolean", "default": true},
            },
            "required": ["sensor_type"],
        }}),
        "events" => json!({"type": "array", "items": {
            "type": "object",
            "properties": {
                "kind": one_of(&["harsh_braking", "rapid_acceleration", "harsh_cornering", "speeding", "collision", "idling"]),
                "signal": {"type": "string", "description": "A signal of the configuration, such as g_force_long."},
                "direction": one_of(&["negative", "positive", "both"]),
                "threshold": {"type": ["number", "string"], "description": "Magnitude in the signal's unit, on the grid of 0.001."},
                "compare": one_of(&["gt", "ge"]),
                "weight": {"type": ["number", "string"], "description": "Points that one event costs."},
                "counting": one_of(&["sample", "excursion"]),
                "hysteresis": {"type": ["number", "string", "null"]},
                "min_duration": {"type": ["string", "null"], "description": "Such as \"100ms\"."},
                "min_speed": {"type": ["integer", "null"], "description": "km/h."},
                "severity": {"type": ["array", "null"], "items": number(), "minItems": 2, "maxItems": 2},
            },
            "required": ["kind", "signal", "threshold", "weight"],
            "additionalProperties": false,
        }}),
        "driver" => json!({
            "type": "object",
            "properties": {
                "horizon": {"type": "string", "default": "28d"},
                "weighting": one_of(&["duration", "distance", "trip"]),
                "min_exposure": number(),
                "bands": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "from": number()},
                    "required": ["name", "from"],
                    "additionalProperties": false,
                }},
            },
            "additionalProperties": false,
        }),
        "integer" => json!({"type": "integer"}),
        _ => json!({"type": ["string", "null"]}),
    }
}

fn control_schema(kind: ControlKind) -> Value {
    let (doc, key, fields) = control_fields(kind);
    let mut properties = Map::new();
    for (name, type_name, required, doc) in &fields {
        let mut schema =
            if *required && *type_name == "string" { json!({"type": "string"}) } else { type_schema(type_name) };
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), (*doc).into());
        }
        properties.insert((*name).into(), schema);
    }
    let required: Vec<&str> = fields.iter().filter(|f| f.2).map(|f| f.0).collect();
    let mut schema = json!({
        "$schema": DRAFT,
        "title": kind.name(),
        "description": format!("{doc} The record's key is {key}."),
        "type": "object",
        "properties": properties,
        "required": required,
    });
    if let (ControlKind::Policies, Some(object)) = (kind, schema.as_object_mut()) {
        object.insert("additionalProperties".into(), false.into());
    }
    schema
}

pub(super) fn topic_markdown(topic: Topic) -> String {
    let columns = match table_of(topic) {
        Some(id) => format!("The columns of the table `{}`", id.name()),
        None => "The vehicle's id, position, signals, trip and status".to_string(),
    };
    format!(
        "## Topic {}\n\n{} Key: {}.\n\n{columns}, and `schema`, `epoch`, `updated_at`, and for a score `why`.\n",
        topic.name(),
        doc_of(topic),
        key_of(topic)
    )
}

pub(super) fn control_markdown(kind: ControlKind) -> String {
    let (doc, key, fields) = control_fields(kind);
    let mut out = format!(
        "## Control documents: {}\n\n{doc} Key: {key}.\n\n| field | type | must | |\n|---|---|---|---|\n",
        kind.name()
    );
    for (name, type_name, required, doc) in fields {
        let type_name = match type_name {
            "date-time" => kind_name(Kind::Time),
            "sensors" | "events" => "array",
            "driver" => "object",
            "integer" => "integer",
            _ => "text",
        };
        let _ = writeln!(out, "| {name} | {type_name} | {} | {doc} |", if required { "yes" } else { "" });
    }
    out
}
