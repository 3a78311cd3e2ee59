//! Tests of the decoder by layout; `Collect` is what a source operator would be.

mod ahead;
mod broken;
mod columnar;
mod layouts;
mod mapping;
mod times;
mod values;

use super::*;
use crate::catalogue::SignalConfig;
use crate::reading::{Head, Interned, Meta, NULL, Reject};

/// One reading with its metadata, as a test compares it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) head: Head,
    pub(super) meta: Arc<Meta>,
    pub(super) values: Vec<i64>,
    pub(super) invalid: Vec<u16>,
}

#[derive(Debug, Default)]
pub(super) struct Collect {
    pub(super) readings: Vec<Seen>,
    pub(super) trips: Vec<TripPayload>,
    pub(super) rejects: Vec<Reject>,
    pub(super) counts: IntakeCounts,
}

impl Accept for Collect {
    fn reading(&mut self, head: Head, Interned { meta, hash, .. }: Interned<'_>, values: &[i64], invalid: &[u16]) {
        assert_eq!(hash, crate::key::hash(&meta.vehicle));
        let (meta, values, invalid) = (meta.clone(), values.to_vec(), invalid.to_vec());
        self.readings.push(Seen { head, meta, values, invalid });
    }
    fn trip(&mut self, trip: TripPayload) {
        self.trips.push(trip);
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

/// gear (text), ignition (bool), lat (deg, 7 decimals), speed_kmh (km/h, 0..400), temp (celsius): indexes 0 to 4.
pub(super) fn catalogue() -> Arc<Catalogue> {
    let toml = r#"{
        "speed_kmh": {"vss": "Vehicle.Speed", "unit": "km/h", "range": [0, 400]},
        "ignition": {"type": "bool"},
        "gear": {"type": "text"},
        "lat": {"vss": "Vehicle.CurrentLocation.Latitude", "unit": "deg", "range": [-90, 90]},
        "temp": {"unit": "celsius"}
    }"#;
    let configs: BTreeMap<String, SignalConfig> = serde_json::from_str(toml).unwrap();
    Arc::new(Catalogue::new(&configs).unwrap())
}

pub(super) const GEAR: usize = 0;
pub(super) const IGNITION: usize = 1;
pub(super) const SPEED: usize = 3;
pub(super) const TEMP: usize = 4;

pub(super) fn context(mapping: &str) -> SourceContext {
    SourceContext {
        name: "test".into(),
        mapping: serde_json::from_str(mapping).unwrap(),
        limits: Limits::default(),
        replay_at: None,
    }
}

pub(super) fn decoder(mapping: &str) -> Decoder {
    Decoder::new(&context(mapping), &catalogue()).unwrap()
}

pub(super) fn origin() -> Arc<Origin> {
    Arc::new(Origin { source: "test".into(), name: "in/readings.jsonl.gz".into(), partition: 3 })
}

/// Decodes one body with Kafka's timestamp.
pub(super) fn one(decoder: &mut Decoder, body: Body<'_>, timestamp: Option<i64>) -> Collect {
    let (origin, mut out) = (origin(), Collect::default());
    let headers: [(&str, Option<&[u8]>); 2] = [("source", Some(b"hub-7")), ("none", None)];
    let record = Record { origin: &origin, position: 42, timestamp, key: Some(b"k1"), headers: &headers, body };
    let mut counts = IntakeCounts::default();
    decoder.decode(&record, &mut counts, &mut out);
    assert_eq!(counts.records, 1);
    assert_eq!(counts.decoded + counts.rejected, 1);
    assert_eq!(counts.rejected, out.rejects.len() as i64);
    assert_eq!(counts.readings, (out.readings.len() + out.trips.len()) as i64);
    if counts.rejected == 1 {
        assert_eq!(counts, IntakeCounts { records: 1, rejected: 1, ..IntakeCounts::default() });
    }
    out.counts = counts;
    out
}

pub(super) fn json(mapping: &str, text: &str) -> Collect {
    one(&mut decoder(mapping), Body::Json(text.as_bytes()), None)
}

/// The single reading of a record that must be good.
pub(super) fn good(mapping: &str, text: &str) -> Seen {
    let out = json(mapping, text);
    assert!(out.rejects.is_empty(), "{:?}", out.rejects);
    assert_eq!(out.readings.len(), 1);
    out.readings.into_iter().next().unwrap()
}

/// (reason, detail) of a record that must be rejected.
pub(super) fn reason(mapping: &str, text: &str) -> (String, String) {
    let out = json(mapping, text);
    assert!(out.readings.is_empty() && out.trips.is_empty(), "{text} was accepted");
    (out.rejects[0].reason.to_string(), out.rejects[0].detail.clone())
}

pub(super) fn time(text: &str) -> i64 {
    crate::time::parse_rfc3339(text).unwrap()
}
