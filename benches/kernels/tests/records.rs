//! The benches measure what they say: every form of the readings decodes to the same ones.

use drivetrain_kernels::records::{Count, columns, csv, decode, decoder, long, origin, trips, wide};
use drivetrain_kernels::{Setup, WIDTH, batches, readings};
use drivetrain_schemas::decode::Body;

fn sum(setup: &Setup, mapping: &str, records: &[String]) -> Count {
    let bodies = records.iter().map(|record| Body::Json(record.as_bytes()));
    decode(&mut decoder(setup, mapping), &origin(), bodies)
}

#[test]
fn every_form_is_the_same_readings() {
    let setup = Setup::new();
    let readings = readings(7, 130);
    let expected = sum(&setup, "{}", &wide(&setup, &readings, |_| String::new()));
    assert_eq!((expected.readings, expected.rejects), (910, 0));
    let (header, lines) = csv(&setup, &readings);
    let lines = lines.iter().map(|line| Body::Csv { header: &header, line: line.as_bytes() });
    let found = decode(&mut decoder(&setup, "{}"), &origin(), lines);
    assert_eq!((found.readings, found.sum), (910, expected.sum));
    let batch = columns(&setup, &readings);
    let rows = (0..batch.num_rows()).map(|row| Body::Columns { batch: &batch, row });
    let found = decode(&mut decoder(&setup, "{}"), &origin(), rows);
    assert_eq!((found.readings, found.sum), (910, expected.sum));
    let found = sum(&setup, r#"{"layout":"long"}"#, &long(&setup, &readings));
    assert_eq!((found.readings, found.rejects), (910 * WIDTH, 0));
    let found = sum(&setup, r#"{"layout":"trip"}"#, &trips(&setup, &readings, 7, 65));
    assert_eq!((found.trips, found.readings, found.rejects), (14, 910, 0));
}

#[test]
fn late_readings_are_all_there() {
    let readings = readings(5, 100);
    let epochs = batches::late(&readings, 50, 7);
    let count: usize = epochs.iter().flat_map(|epoch| &epoch.batches).map(|batch| batch.len()).sum();
    assert_eq!((count, epochs.len()), (500, 11));
    let last = epochs[1].vehicles.iter().flat_map(|(_, rows)| batches::samples(&epochs[1], rows));
    assert!(last.map(|sample| sample.at).min() < epochs[0].batches[0].heads.last().map(|head| head.at));
}
