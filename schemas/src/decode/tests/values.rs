//! What becomes of single values: types, ranges, sentinels, units, ids, tags.

use super::*;

fn with(mapping: &str, field: &str) -> (Seen, i64) {
    let text = format!(r#"{{"vehicle_id":"v1","at":1777636800,{field}}}"#);
    let out = json(mapping, &text);
    assert!(out.rejects.is_empty(), "{text}: {:?}", out.rejects);
    (out.readings[0].clone(), out.counts.invalid_values)
}

#[test]
fn numbers_and_what_is_none() {
    let cases: &[(&str, i64, i64)] = &[
        ("50.1", 50_100_000, 0),
        ("\"50.1\"", 50_100_000, 0),
        ("\" 50.1 \"", 50_100_000, 0),
        ("5e1", 50_000_000, 0),
        ("-0", 0, 0),
        ("0.0000005", 0, 0),
        ("0.0000015", 2, 0),
        ("400", 400_000_000, 0),
        ("400.0000004", 400_000_000, 0),
        ("null", NULL, 0),
        ("400.1", NULL, 1),
        ("-0.1", NULL, 1),
        ("1e400", NULL, 1),
        ("99999999999999999999", NULL, 1),
        ("\"NaN\"", NULL, 1),
        ("\"inf\"", NULL, 1),
        ("\"\"", NULL, 1),
        ("\"fast\"", NULL, 1),
        ("true", NULL, 1),
        ("[1]", NULL, 1),
        ("{\"v\":1}", NULL, 1),
    ];
    for (text, value, invalid) in cases {
        let (seen, n) = with("{}", &format!("\"speed_kmh\":{text}"));
        assert_eq!((seen.values[SPEED], n), (*value, *invalid), "{text}");
        assert_eq!(seen.meta.tags, None, "{text}");
    }
}

#[test]
fn booleans_and_texts() {
    for (text, value, invalid) in [
        ("true", 1, 0),
        ("false", 0, 0),
        ("1", 1, 0),
        ("0.0", 0, 0),
        ("1.0", 1, 0),
        ("\"True\"", 1, 0),
        ("\"0\"", 0, 0),
        ("2", NULL, 1),
        ("-1", NULL, 1),
        ("\"on\"", NULL, 1),
        ("{}", NULL, 1),
        ("null", NULL, 0),
    ] {
        let (seen, n) = with("{}", &format!("\"ignition\":{text}"));
        assert_eq!((seen.values[IGNITION], n), (value, invalid), "{text}");
    }
    for (text, value, invalid) in [
        ("\"D\"", Some("D"), 0),
        ("\"\\u00e9\\n\"", Some("é\n"), 0),
        ("3", Some("3"), 0),
        ("true", Some("true"), 0),
        ("\"\"", None, 0),
        ("null", None, 0),
        ("[]", None, 1),
    ] {
        let (seen, n) = with("{}", &format!("\"gear\":{text}"));
        assert_eq!(seen.values[GEAR], NULL);
        let texts: Vec<_> = seen.meta.texts.iter().map(|(i, t)| (*i, &**t)).collect();
        assert_eq!(texts, value.map(|v| (GEAR as u16, v)).into_iter().collect::<Vec<_>>(), "{text}");
        assert_eq!(n, invalid, "{text}");
    }
}

#[test]
fn units_scale_offset_and_sentinels() {
    let mph = r#"{"signals":{"speed_kmh":{"field":"v","unit":"mph","sentinels":[113.9952,"n/a"]}}}"#;
    assert_eq!(with(mph, "\"v\":100").0.values[SPEED], 160_934_400);
    assert_eq!(with(mph, "\"v\":\"0.0088148407743224\"").0.values[SPEED], 14_186);
    assert_eq!(with(mph, "\"v\":113.99520").1, 1);
    assert_eq!(with(mph, "\"v\":113.9952").0.values[SPEED], NULL);
    assert_eq!(with(mph, "\"v\":\"n/a\"").1, 1);
    assert_eq!(with(mph, "\"v\":113.9951").1, 0);
    let f = r#"{"signals":{"temp":{"unit":"fahrenheit"}}}"#;
    assert_eq!(with(f, "\"temp\":0").0.values[TEMP], -17_777_778);
    assert_eq!(with(f, "\"temp\":212").0.values[TEMP], 100_000_000);
    let raw = r#"{"signals":{"temp":{"scale":"0.1","offset":-40}}}"#;
    assert_eq!(with(raw, "\"temp\":655").0.values[TEMP], 25_500_000);
    // The raw value is the sentinel, not the scaled one.
    let raw = r#"{"signals":{"temp":{"scale":0.1,"offset":-40,"sentinels":[655]}}}"#;
    let nulled = Seen { invalid: vec![TEMP as u16], ..with(raw, "\"temp\":null").0 };
    assert_eq!(with(raw, "\"temp\":655.0"), (nulled, 1));
    // Not rounded to the catalogue's decimals before the conversion: 0.0000004 m/s are 0.00000144 km/h.
    let ms = r#"{"signals":{"speed_kmh":{"unit":"m/s"}}}"#;
    assert_eq!(with(ms, "\"speed_kmh\":0.0000004").0.values[SPEED], 1);
}

#[test]
fn units_by_time() {
    let mapping = r#"{"signals":{"speed_kmh":{"unit":[
        {"until":"2026-05-01T12:00:00Z","unit":"mph"},{"unit":"m/s"}]}}}"#;
    let at = |t: &str| {
        let text = format!(r#"{{"vehicle_id":"v","at":"{t}","speed_kmh":10}}"#);
        good(mapping, &text).values[SPEED]
    };
    assert_eq!(at("2026-05-01T11:59:59.999999Z"), 16_093_440);
    assert_eq!(at("2026-05-01T12:00:00Z"), 36_000_000);
}

#[test]
fn ids() {
    let (seen, n) = with("{}", r#""driver_id":7,"trip_id":"","fleet_id":null,"quality":"good""#);
    assert_eq!(n, 0);
    assert_eq!(
        (seen.meta.driver.as_deref(), seen.meta.trip.as_deref(), seen.meta.fleet.as_deref()),
        (Some("7"), None, None)
    );
    assert_eq!(seen.meta.quality.as_deref(), Some("good"));
    assert_eq!(with("{}", r#""driver_id":{"id":7}"#).1, 1);
    assert_eq!(&*good("{}", r#"{"vehicle_id":17,"at":1777636800}"#).meta.vehicle, "17");
    assert_eq!(&*good("{}", r#"{"vehicle_id":"a\u002fb","at":1777636800}"#).meta.vehicle, "a/b");
}

#[test]
fn tags_are_ordered_compact_and_the_last_of_equal_keys() {
    let fields = r#" "z" : [ 1 , {"b" : " x "} ], "a":1.50 , "m":null,"a": 2.0e1,"é\"":"\u00e9", "speed_kmh":1"#;
    let (seen, _) = with("{}", fields);
    let expected = r#"{"a":2.0e1,"m":null,"z":[1,{"b":" x "}],"é\"":"\u00e9"}"#;
    assert_eq!(seen.meta.tags.as_deref(), Some(expected));
    assert_eq!(with(r#"{"tags":false}"#, fields).0.meta.tags, None);
    assert_eq!(with(r#"{"ignore":["z","a","m","é\""]}"#, fields).0.meta.tags, None);
    // Not read as a signal, so a tag.
    assert_eq!(with(r#"{"only_mapped":true}"#, "\"temp\":1").0.meta.tags.as_deref(), Some("{\"temp\":1}"));
}

#[test]
fn the_last_of_equal_keys_wins_with_all_below_it() {
    let mapping = r#"{"signals":{"temp":"t.a","speed_kmh":"t.b[1]"}}"#;
    let (seen, _) = with(mapping, r#""t":{"a":1,"b":[1,2],"c":3},"t":{"a":5}"#);
    assert_eq!((seen.values[TEMP], seen.values[SPEED], &seen.meta.tags), (5_000_000, NULL, &None));
    let (seen, _) = with(mapping, r#""t":{"a":1,"b":[7,2,9],"c":3}"#);
    assert_eq!((seen.values[TEMP], seen.values[SPEED]), (1_000_000, 2_000_000));
    assert_eq!(seen.meta.tags.as_deref(), Some(r#"{"t.b[0]":7,"t.b[2]":9,"t.c":3}"#));
    let (seen, _) = with(mapping, r#""t":{"a":1},"t":"none""#);
    assert_eq!((seen.values[TEMP], seen.meta.tags.as_deref()), (NULL, Some(r#"{"t":"none"}"#)));
    let (seen, _) = with(mapping, r#""t":"none","t":{"a":1}"#);
    assert_eq!((seen.values[TEMP], &seen.meta.tags), (1_000_000, &None));
    let (seen, _) = with(mapping, r#""t":{"b":1,"b":[7,2]},"t.b":3"#);
    assert_eq!((seen.values[SPEED], seen.meta.tags.as_deref()), (2_000_000, Some(r#"{"t.b":3,"t.b[0]":7}"#)));
    let (seen, n) = with("{}", r#""temp":1,"temp":"x""#);
    assert_eq!((seen.values[TEMP], n), (NULL, 1));
}

#[test]
fn consecutive_readings_share_their_meta() {
    let mut d = decoder("{}");
    let mut meta = |text: &str| one(&mut d, Body::Json(text.as_bytes()), None).readings[0].meta.clone();
    let a = meta(r#"{"vehicle_id":"a","at":1777636800,"driver_id":"d"}"#);
    let b = meta(r#"{"vehicle_id":"b","at":1777636800,"driver_id":"d"}"#);
    let again = meta(r#"{"vehicle_id":"a","driver_id":"d","at":1777636801,"speed_kmh":7}"#);
    assert!(Arc::ptr_eq(&a, &again));
    assert!(!Arc::ptr_eq(&a, &b));
    let other = meta(r#"{"vehicle_id":"a","driver_id":"e","at":1777636802}"#);
    assert!(!Arc::ptr_eq(&a, &other) && Arc::ptr_eq(&a.vehicle, &other.vehicle));
    assert_eq!(other.driver.as_deref(), Some("e"));
}
