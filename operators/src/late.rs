//! What came too late as JSON, so that it can be read again: the fields of `readings`, signals by their names with all digits.

use crate::config::KernelConfig;
use drivetrain_schemas::catalogue::SignalType;
use drivetrain_schemas::fixed;
use drivetrain_schemas::reading::{Meta, NULL, TripPayload};
use drivetrain_schemas::time::format_rfc3339;
use std::sync::Arc;

type Fields<'a> = Vec<(&'a str, String)>;

/// A reading: layout `wide`.
pub(crate) fn reading(cfg: &KernelConfig, at: i64, meta: &Meta, values: &[i64]) -> String {
    let mut fields = vec![("vehicle_id", quoted(&meta.vehicle)), ("at", quoted(&format_rfc3339(at)))];
    let Meta { driver, trip, fleet, quality, .. } = meta;
    known(&[("driver_id", driver), ("trip_id", trip), ("fleet_id", fleet), ("quality", quality)], &mut fields);
    signals(cfg, values, &meta.texts, &mut fields);
    fields.extend(meta.tags.as_ref().map(|tags| ("tags", tags.to_string())));
    object(fields)
}

/// A whole trip: layout `trip`.
pub(crate) fn trip(cfg: &KernelConfig, payload: &TripPayload) -> String {
    let mut fields = vec![("trip_id", quoted(&payload.trip_id)), ("vehicle_id", quoted(&payload.vehicle))];
    fields.push(("at", quoted(&format_rfc3339(payload.record_time))));
    let TripPayload { driver, fleet, quality, .. } = payload;
    known(&[("driver_id", driver), ("fleet_id", fleet), ("quality", quality)], &mut fields);
    let samples = payload.samples.iter().map(|sample| {
        let mut fields = vec![("at", quoted(&format_rfc3339(sample.at)))];
        signals(cfg, &sample.values, &sample.texts, &mut fields);
        object(fields)
    });
    fields.push(("data", format!("[{}]", samples.collect::<Vec<_>>().join(","))));
    fields.extend(payload.tags.as_ref().map(|tags| ("tags", tags.to_string())));
    object(fields)
}

/// Those of the circumstances that are known.
fn known<'a>(circumstances: &[(&'a str, &Option<Arc<str>>)], fields: &mut Fields<'a>) {
    fields.extend(circumstances.iter().filter_map(|(name, text)| Some((*name, quoted(text.as_deref()?)))));
}

fn signals<'a>(cfg: &'a KernelConfig, values: &[i64], texts: &[(u16, Arc<str>)], fields: &mut Fields<'a>) {
    for (signal, value) in cfg.signals.iter().zip(values).filter(|(_, value)| **value != NULL) {
        let text = match signal.kind {
            SignalType::Bool => (*value != 0).to_string(),
            _ => fixed::format(i128::from(*value), signal.decimals),
        };
        fields.push((&signal.name, text));
    }
    for (signal, text) in texts {
        if let Some(signal) = cfg.signals.get(usize::from(*signal)) {
            fields.push((&signal.name, quoted(text)));
        }
    }
}

fn object(fields: Fields<'_>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
    format!("{{{}}}", fields.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
