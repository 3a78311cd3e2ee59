//! The live topics as tables: the newest value of each key.

use super::QueryError;
use super::database::Source;
use crate::live as reader;
use datafusion::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::datasource::MemTable;
use drivetrain_schemas::arrow::data_type;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::table::{Kind, Table, TableId, Topic};
use drivetrain_schemas::time::parse_rfc3339;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The table whose columns a topic's documents have, where there is one.
pub fn table_of(topic: Topic) -> Option<TableId> {
    match topic {
        Topic::DriverScores => Some(TableId::DriverScores),
        Topic::TripScores => Some(TableId::Trips),
        Topic::FleetAggregates => Some(TableId::FleetAggregates),
        Topic::AnomaliesActive => Some(TableId::Anomalies),
        Topic::VehicleState => None,
    }
}

/// Reads the topic to its end: the table's columns, then whatever else the documents hold, nested values as JSON text.
///
/// # Errors
/// A broker or directory that can't be read, or a value that isn't a JSON object, with its key.
pub(super) fn table(source: &Source, topic: Topic, catalogue: &Catalogue) -> Result<MemTable, QueryError> {
    let latest = match &source.brokers {
        Some(brokers) => reader::kafka::latest(brokers, &format!("{}{}", source.topic_prefix, topic.name()))?,
        None if source.data.to_string_lossy().contains("://") => {
            return Err(QueryError::Usage(format!(
                "live_{}: a store has no live topics; name the brokers that have them with --brokers",
                topic.name()
            )));
        }
        None => reader::latest(&source.data, topic.name())?,
    };
    let mut documents = Vec::with_capacity(latest.len());
    for (key, text) in &latest {
        match serde_json::from_str(text) {
            Ok(Value::Object(document)) => documents.push(document),
            _ => {
                return Err(QueryError::Failed(format!(
                    "{}: the value of key {key:?} is no JSON object",
                    topic.name()
                )));
            }
        }
    }
    let shape = shape(topic, catalogue, &documents);
    let fields: Vec<Field> = shape.iter().map(|(name, kind)| Field::new(name, data_type(*kind), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = shape.iter().map(|(name, kind)| column(*kind, documents.iter().map(|d| d.get(name)))).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    Ok(MemTable::try_new(schema, vec![vec![batch]])?)
}

fn shape(topic: Topic, catalogue: &Catalogue, documents: &[Map<String, Value>]) -> Vec<(String, Kind)> {
    let mut shape: Vec<(String, Kind)> = match table_of(topic) {
        Some(id) => Table::new(id, catalogue).columns.into_iter().map(|c| (c.name, c.kind)).collect(),
        None => vec![("vehicle_id".into(), Kind::Text)],
    };
    if matches!(topic, Topic::DriverScores | Topic::TripScores) {
        shape.push(("why".into(), Kind::Json));
    }
    for document in documents {
        for (name, value) in document {
            let Some(kind) = kind_of(name, value) else { continue };
            match shape.iter_mut().find(|(n, _)| n == name) {
                None => shape.push((name.clone(), kind)),
                // A column beyond the table's may be whole in one document and not in the next.
                Some((_, known @ Kind::Int)) if kind == Kind::Float => *known = Kind::Float,
                Some(_) => {}
            }
        }
    }
    for (name, kind) in [("schema", Kind::Int), ("epoch", Kind::Int), ("updated_at", Kind::Time)] {
        if !shape.iter().any(|(n, _)| n == name) {
            shape.push((name.into(), kind));
        }
    }
    shape
}

/// `None` for null, which says nothing.
fn kind_of(name: &str, value: &Value) -> Option<Kind> {
    match value {
        Value::Null => None,
        Value::Bool(_) => Some(Kind::Bool),
        Value::Number(n) if n.is_i64() => Some(Kind::Int),
        Value::Number(_) => Some(Kind::Float),
        Value::String(s) => {
            let time = (name == "at" || name.ends_with("_at")) && parse_rfc3339(s).is_ok();
            Some(if time { Kind::Time } else { Kind::Text })
        }
        Value::Array(_) | Value::Object(_) => Some(Kind::Json),
    }
}

/// One column; a value of another kind than the column's is null.
fn column<'a>(kind: Kind, values: impl Iterator<Item = Option<&'a Value>>) -> ArrayRef {
    macro_rules! build {
        ($builder:expr, $value:expr) => {{
            let mut builder = $builder;
            values.for_each(|v| builder.append_option(v.filter(|v| !v.is_null()).and_then($value)));
            Arc::new(builder.finish())
        }};
    }
    match kind {
        Kind::Text => build!(StringBuilder::new(), |v: &Value| match v {
            Value::String(s) => Some(s.clone()),
            other => Some(other.to_string()),
        }),
        // A JSON column may hold the document itself or its text.
        Kind::Json => build!(StringBuilder::new(), |v: &Value| match v {
            Value::String(s) => Some(s.clone()),
            other => Some(other.to_string()),
        }),
        Kind::Int => build!(Int64Builder::new(), Value::as_i64),
        Kind::Float => build!(Float64Builder::new(), Value::as_f64),
        Kind::Bool => build!(BooleanBuilder::new(), Value::as_bool),
        Kind::Time => build!(TimestampMicrosecondBuilder::new().with_timezone("UTC"), |v: &Value| v
            .as_str()
            .and_then(|s| parse_rfc3339(s).ok())),
        Kind::Binary => build!(BinaryBuilder::new(), |v: &Value| v.as_str().map(|s| s.as_bytes().to_vec())),
    }
}
