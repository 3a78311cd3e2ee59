//! The readings as records, by layout and format.

use crate::{Reading, SECOND, Setup};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use drivetrain_schemas::decode::{Body, CsvHeader, Decoder, Record, SourceContext};
use drivetrain_schemas::fixed;
use drivetrain_schemas::mapping::Limits;
use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, Origin, Reject, TripPayload};
use drivetrain_schemas::time::format_rfc3339;
use std::fmt::Write;
use std::sync::Arc;

/// The names of the columns of [`csv`] and [`columns`], before the signals.
const CIRCUMSTANCES: [&str; 5] = ["vehicle_id", "driver_id", "trip_id", "fleet_id", "at"];

pub fn origin() -> Arc<Origin> {
    Arc::new(Origin { source: "bench".into(), name: "readings".into(), partition: 0 })
}

/// A decoder of a source with this mapping (as JSON).
pub fn decoder(setup: &Setup, mapping: &str) -> Decoder {
    let context = SourceContext {
        name: "bench".into(),
        mapping: serde_json::from_str(mapping).unwrap(),
        limits: Limits::default(),
        replay_at: None,
    };
    Decoder::new(&context, &setup.catalogue).unwrap()
}

/// Takes what a decoder gives and looks at all of it.
#[derive(Debug, Default)]
pub struct Count {
    pub readings: usize,
    pub trips: usize,
    pub rejects: usize,
    /// So that nothing is left out as unused.
    pub sum: i64,
}

impl Accept for Count {
    fn reading(&mut self, head: Head, interned: Interned<'_>, values: &[i64], _invalid: &[u16]) {
        self.readings += 1;
        let values = values.iter().fold(0i64, |sum, value| sum.wrapping_add(*value));
        self.sum = self.sum.wrapping_add(head.at).wrapping_add(values).wrapping_add(interned.hash as i64);
    }

    fn trip(&mut self, trip: TripPayload) {
        self.trips += 1;
        self.readings += trip.samples.len();
    }

    fn reject(&mut self, _reject: Reject) {
        self.rejects += 1;
    }
}

/// Decodes all bodies.
pub fn decode<'a>(decoder: &mut Decoder, origin: &Arc<Origin>, bodies: impl Iterator<Item = Body<'a>>) -> Count {
    let (mut counts, mut out) = (IntakeCounts::default(), Count::default());
    for (position, body) in bodies.enumerate() {
        let position = position as i64;
        let record = Record { origin, position, timestamp: None, key: None, headers: &[], body };
        decoder.decode_ahead(&record, &mut counts, &mut out);
    }
    decoder.flush(&mut out);
    out
}

fn circumstances(out: &mut String, reading: &Reading) {
    let _ = write!(
        out,
        "{{\"vehicle_id\":\"{}\",\"driver_id\":\"{}\",\"trip_id\":\"{}\",\"fleet_id\":\"{}\",\"at\":\"{}\"",
        reading.vehicle_id(),
        reading.driver_id(),
        reading.trip_id(),
        reading.fleet_id(),
        format_rfc3339(reading.at)
    );
}

/// Each signal's name and value as a decimal number.
fn values<'a>(setup: &'a Setup, reading: &'a Reading) -> impl Iterator<Item = (&'a str, String)> {
    let signals = setup.catalogue.signals.iter().zip(&reading.values);
    signals.map(|(signal, value)| (signal.name.as_str(), fixed::format(i128::from(*value), signal.decimals)))
}

fn signals(out: &mut String, setup: &Setup, reading: &Reading) {
    for (name, value) in values(setup, reading) {
        let _ = write!(out, ",\"{name}\":{value}");
    }
}

/// One moment a record. `more` stands behind the signals: nothing, or further members with a comma before them.
pub fn wide(setup: &Setup, readings: &[Reading], more: impl Fn(usize) -> String) -> Vec<String> {
    let record = |(i, reading): (usize, &Reading)| {
        let mut out = String::new();
        circumstances(&mut out, reading);
        signals(&mut out, setup, reading);
        out + &more(i) + "}"
    };
    readings.iter().enumerate().map(record).collect()
}

/// One measurement a record.
pub fn long(setup: &Setup, readings: &[Reading]) -> Vec<String> {
    let records = |reading: &Reading| {
        let mut begin = String::new();
        circumstances(&mut begin, reading);
        let record = |(name, value)| format!("{begin},\"sensor_type\":\"{name}\",\"value\":{value}}}");
        values(setup, reading).map(record).collect::<Vec<_>>()
    };
    readings.iter().flat_map(records).collect()
}

/// A whole trip a record: the readings of each vehicle, `samples` at a time.
pub fn trips(setup: &Setup, readings: &[Reading], vehicles: usize, samples: usize) -> Vec<String> {
    let mut out = Vec::new();
    for vehicle in 0..vehicles {
        let of: Vec<&Reading> = readings.iter().filter(|reading| reading.vehicle == vehicle).collect();
        for (n, part) in of.chunks(samples).enumerate() {
            let Some(first) = part.first() else { continue };
            let mut record = format!(
                "{{\"trip_id\":\"t{n}\",\"vehicle_id\":\"{}\",\"driver_id\":\"{}\",\"at\":\"{}\",\"data\":[",
                first.vehicle_id(),
                first.driver_id(),
                format_rfc3339(first.at + samples as i64 * SECOND)
            );
            for (i, reading) in part.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(record, "{comma}{{\"at\":\"{}\"", format_rfc3339(reading.at));
                signals(&mut record, setup, reading);
                record.push('}');
            }
            out.push(record + "]}");
        }
    }
    out
}

/// A header, and one moment a line.
pub fn csv(setup: &Setup, readings: &[Reading]) -> (Arc<CsvHeader>, Vec<String>) {
    let signals = setup.catalogue.signals.iter().map(|signal| signal.name.as_str());
    let names: Vec<&str> = CIRCUMSTANCES.into_iter().chain(signals).collect();
    let line = |reading: &Reading| {
        let (at, trip) = (format_rfc3339(reading.at), reading.trip_id());
        let cells = [reading.vehicle_id(), reading.driver_id(), trip, reading.fleet_id(), at];
        let cells = cells.into_iter().chain(values(setup, reading).map(|(_, value)| value));
        cells.collect::<Vec<_>>().join(",")
    };
    (Arc::new(CsvHeader::parse(names.join(",").as_bytes(), b',')), readings.iter().map(line).collect())
}

/// One moment a row, as a Parquet file's rows come.
pub fn columns(setup: &Setup, readings: &[Reading]) -> RecordBatch {
    let text =
        |of: &dyn Fn(&Reading) -> String| Arc::new(StringArray::from_iter_values(readings.iter().map(of))) as ArrayRef;
    let at = TimestampMicrosecondArray::from_iter_values(readings.iter().map(|reading| reading.at));
    let circumstances = [
        text(&Reading::vehicle_id),
        text(&Reading::driver_id),
        text(&Reading::trip_id),
        text(&Reading::fleet_id),
        Arc::new(at.with_timezone("UTC")) as ArrayRef,
    ];
    let mut columns: Vec<(&str, ArrayRef)> = CIRCUMSTANCES.into_iter().zip(circumstances).collect();
    for (i, signal) in setup.catalogue.signals.iter().enumerate() {
        let value = |reading: &Reading| fixed::to_f64(i128::from(reading.values[i]), signal.decimals);
        columns.push((&signal.name, Arc::new(Float64Array::from_iter_values(readings.iter().map(value))) as ArrayRef));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}
