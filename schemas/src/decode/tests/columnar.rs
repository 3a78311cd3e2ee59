//! Delimited text and Arrow batches: the same readings as JSON gives.

use super::*;
use arrow::array::{
    ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMillisecondArray,
};
use proptest::prelude::*;

fn csv(mapping: &str, names: &str, line: &str) -> Collect {
    let header = Arc::new(CsvHeader::parse(names.as_bytes(), b','));
    one(&mut decoder(mapping), Body::Csv { header: &header, line: line.as_bytes() }, None)
}

#[test]
fn csv_lines() {
    let names = "vehicle_id,at,speed_kmh,ignition,gear,note,n";
    let out = csv("{}", names, "v1,2026-05-01 12:00:00Z,50.1,true,\"D\",\"say \"\"hi\"\", x\",007\r\n");
    let seen = &out.readings[0];
    assert_eq!(seen.values, [NULL, 1, NULL, 50_100_000, NULL]);
    assert_eq!(seen.meta.texts, [(GEAR as u16, "D".into())]);
    assert_eq!(seen.meta.tags.as_deref(), Some(r#"{"n":"007","note":"say \"hi\", x"}"#));
    let out = csv("{}", names, "v1,1777636800,,,,,7.0");
    assert_eq!((&out.readings[0].values[..], out.counts.invalid_values), (&[NULL; 5][..], 0));
    assert_eq!(out.readings[0].meta.tags.as_deref(), Some(r#"{"n":7.0}"#));
    assert_eq!(csv("{}", names, "v1,1777636800,NaN,maybe,,,").counts.invalid_values, 2);
    for (line, expected) in [
        ("v1,1777636800,1", "bad_csv"),
        ("v1,1777636800,1,,,,,,", "bad_csv"),
        ("v1,1777636800,\"1,,,,", "bad_csv"),
        ("v1,1777636800,\"1\"x,,,,", "bad_csv"),
        ("", "empty"),
        (",1777636800,1,,,,", "no_vehicle"),
        ("v1,,1,,,,", "no_time"),
    ] {
        let out = csv("{}", names, line);
        assert_eq!(&*out.rejects[0].reason, expected, "{line}: {}", out.rejects[0].detail);
        assert_eq!(out.rejects[0].payload.as_deref(), Some(line.as_bytes()));
    }
}

#[test]
fn text_with_runs_of_spaces() {
    let header = Arc::new(CsvHeader::numbered(3, b' '));
    let mapping = r#"{"fields":{"vehicle":"c0","time":{"field":"c1","base":"2020-01-01T00:00:00Z","step":"1h"}},
        "signals":{"temp":"c2"}}"#;
    let out = one(&mut decoder(mapping), Body::Csv { header: &header, line: b"1 31  -0.0007  " }, None);
    let seen = &out.readings[0];
    assert_eq!((&*seen.meta.vehicle, seen.values[TEMP]), ("1", -700));
    assert_eq!(seen.head.at, time("2020-01-02T07:00:00Z"));
}

#[test]
fn arrow_rows() {
    let at = time("2026-05-01T12:00:00Z");
    let gps: StructArray = vec![(
        Arc::new(arrow::datatypes::Field::new("lat", arrow::datatypes::DataType::Float64, true)),
        Arc::new(Float64Array::from(vec![Some(48.1), None])) as ArrayRef,
    )]
    .into();
    let stamps = TimestampMillisecondArray::from(vec![at / 1000, at / 1000 + 1]).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter_with_nullable(vec![
        ("vehicle_id", Arc::new(Int64Array::from(vec![Some(7), None])) as ArrayRef, true),
        ("at", Arc::new(stamps) as ArrayRef, true),
        ("speed_kmh", Arc::new(Float32Array::from(vec![50.1, f32::NAN])) as ArrayRef, true),
        ("ignition", Arc::new(BooleanArray::from(vec![Some(true), None])) as ArrayRef, true),
        ("gps", Arc::new(gps) as ArrayRef, true),
        ("note", Arc::new(StringArray::from(vec![Some("a \"b\""), None])) as ArrayRef, true),
    ])
    .unwrap();
    let mut d = decoder(r#"{"signals":{"lat":"gps.lat"}}"#);
    let out = one(&mut d, Body::Columns { batch: &batch, row: 0 }, None);
    let seen = &out.readings[0];
    assert_eq!((&*seen.meta.vehicle, seen.head.at), ("7", at));
    assert_eq!(seen.values, [NULL, 1, 481_000_000, 50_100_000, NULL]);
    assert_eq!(seen.meta.tags.as_deref(), Some(r#"{"note":"a \"b\""}"#));
    let out = one(&mut d, Body::Columns { batch: &batch, row: 1 }, None);
    assert_eq!(&*out.rejects[0].reason, "no_vehicle");
    let payload = String::from_utf8(out.rejects[0].payload.clone().unwrap()).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&payload).is_ok(), "{payload}");
}

#[test]
fn wall_clock_columns_take_the_zone() {
    let at = time("2026-05-01T12:00:00Z");
    let local = TimestampMillisecondArray::from(vec![time("2026-05-01T07:00:00Z") / 1000]);
    let batch = RecordBatch::try_from_iter(vec![("t", Arc::new(local) as ArrayRef)]).unwrap();
    let read = |time: &str| {
        let mut d = decoder(&format!(r#"{{"fields":{{"vehicle":"=v","time":{time}}}}}"#));
        one(&mut d, Body::Columns { batch: &batch, row: 0 }, None).readings[0].head.at
    };
    assert_eq!(read(r#"{"field":"t","zone":"America/Chicago"}"#), at);
    assert_eq!(read(r#""t""#), at - 5 * 3_600_000_000);
}

proptest! {
    /// A line of CSV and the JSON object with the same texts give the same reading.
    #[test]
    fn csv_is_as_json(
        vehicle in "[a-z \",;\u{e9}]{1,8}",
        speed in proptest::option::of(-10i32..500),
        digits in 0u32..100_000_000,
        gear in proptest::option::of("[a-zA-Z\", ]{1,5}"),
        ignition in proptest::option::of(any::<bool>()),
        seconds in 1_000_000_000i64..2_000_000_000,
    ) {
        let speed = speed.map(|v| format!("{v}.{digits}"));
        let quote = |s: &str| format!("\"{}\"", s.replace('"', "\"\""));
        let cell = |s: Option<String>| s.unwrap_or_default();
        let line = format!(
            "{},{seconds},{},{},{}",
            quote(&vehicle), cell(speed.clone()), cell(gear.as_deref().map(quote)), cell(ignition.map(|b| b.to_string()))
        );
        let mut object = serde_json::Map::new();
        object.insert("vehicle_id".into(), vehicle.into());
        object.insert("at".into(), seconds.into());
        object.insert("speed_kmh".into(), speed.into());
        object.insert("gear".into(), gear.into());
        object.insert("ignition".into(), ignition.into());
        let text = serde_json::Value::Object(object).to_string();
        let a = csv("{}", "vehicle_id,at,speed_kmh,gear,ignition", &line);
        let b = json("{}", &text);
        prop_assert_eq!(a.counts, b.counts);
        prop_assert_eq!(a.readings, b.readings);
    }
}
