//! From records to readings, by layout and format; each goes through one decoder, as in a worker.

use crate::{SECONDS, VEHICLES, of_records};
use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use drivetrain_kernels::records::{columns, csv, decode, decoder, long, origin, trips, wide};
use drivetrain_kernels::{Setup, readings};
use drivetrain_schemas::decode::Body;
use std::hint::black_box;

/// Seconds, so that all forms together do not take much memory.
const SHORT: usize = SECONDS / 10;

/// JSON records with a mapping. `expected`: how many readings they hold.
fn json(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mapping: &str, records: &[String], expected: usize) {
    let setup = Setup::new();
    let (mut decoder, origin) = (decoder(&setup, mapping), origin());
    group.throughput(of_records(records));
    group.bench_function(name, |b| {
        b.iter(|| {
            let bodies = records.iter().map(|record| Body::Json(record.as_bytes()));
            let found = decode(&mut decoder, &origin, bodies);
            assert_eq!((found.readings, found.rejects), (expected, 0));
            found
        });
    });
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let setup = Setup::new();
    let readings = readings(VEHICLES, SHORT);
    let n = readings.len();
    let mut group = criterion.benchmark_group("decode");
    let records = wide(&setup, &readings, |_| String::new());
    // The yardstick: what a general parser takes for the same records.
    group.throughput(of_records(&records));
    group.bench_function("serde_json_value", |b| {
        let parse = |record: &String| serde_json::from_str::<serde_json::Value>(record).unwrap();
        b.iter(|| records.iter().map(parse).for_each(|value| drop(black_box(value))));
    });
    json(&mut group, "json_wide", "{}", &records, n);
    json(&mut group, "json_wide_no_tags", r#"{"tags":false}"#, &records, n);
    // What clean does with a value that is none: null, and counted.
    let mut without = readings.clone();
    without.iter_mut().step_by(10).for_each(|reading| reading.values[8] = -1_000_000);
    json(&mut group, "json_wide_invalid_values", "{}", &wide(&setup, &without, |_| String::new()), n);
    let same = wide(&setup, &readings, |_| ",\"firmware\":\"4.2.1\",\"dongle\":{\"id\":17,\"slot\":\"a\"}".into());
    json(&mut group, "json_wide_tags", "{}", &same, n);
    let changing = wide(&setup, &readings, |i| format!(",\"sequence\":{i}"));
    json(&mut group, "json_wide_tags_that_change", "{}", &changing, n);
    let measurements = long(&setup, &readings);
    json(&mut group, "json_long", r#"{"layout":"long"}"#, &measurements, measurements.len());
    let payloads = trips(&setup, &readings, VEHICLES, SHORT);
    json(&mut group, "json_trip", r#"{"layout":"trip"}"#, &payloads, n);
    let (header, lines) = csv(&setup, &readings);
    group.throughput(of_records(&lines));
    group.bench_function("csv_wide", |b| {
        let (mut decoder, origin) = (decoder(&setup, "{}"), origin());
        b.iter(|| {
            let bodies = lines.iter().map(|line| Body::Csv { header: &header, line: line.as_bytes() });
            let found = decode(&mut decoder, &origin, bodies);
            assert_eq!((found.readings, found.rejects), (n, 0));
            found
        });
    });
    let batch = columns(&setup, &readings);
    let bytes = batch.get_array_memory_size() as u64;
    group.throughput(Throughput::ElementsAndBytes { elements: n as u64, bytes });
    group.bench_function("columns_wide", |b| {
        let (mut decoder, origin) = (decoder(&setup, "{}"), origin());
        b.iter(|| {
            let found =
                decode(&mut decoder, &origin, (0..batch.num_rows()).map(|row| Body::Columns { batch: &batch, row }));
            assert_eq!((found.readings, found.rejects), (n, 0));
            found
        });
    });
    group.finish();
}
