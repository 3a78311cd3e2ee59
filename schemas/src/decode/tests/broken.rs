//! Records that must be rejected, each with its reason; and the raw bytes that must be kept.

use super::*;

const GOOD: &str = r#"{"vehicle_id":"v1","at":"2026-05-01T12:00:00Z","speed_kmh":50}"#;

#[test]
fn broken_json_records() {
    let long_id = format!(r#"{{"vehicle_id":"{}","at":1777636800}}"#, "x".repeat(257));
    let deep = format!(r#"{{"vehicle_id":"v1","at":1777636800,"x":{}{}}}"#, "[".repeat(128), "]".repeat(128));
    let cases: &[(&str, &str)] = &[
        ("", "empty"),
        (" \r\n\t", "empty"),
        ("null", "not_object"),
        ("[]", "not_object"),
        ("17", "not_object"),
        ("\"text\"", "not_object"),
        ("{", "not_json"),
        ("{}", "no_vehicle"),
        ("{]", "not_json"),
        ("nul", "not_json"),
        ("\u{feff}{}", "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800}x"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800}{"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":NaN}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":Infinity}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":01}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":1.}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":.5}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":+1}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":1e}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":"\x"}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":"\ud800"}"#, "not_json"),
        (r#"{"vehicle_id":"v1","at":1777636800,"x":"\u12"}"#, "not_json"),
        ("{\"vehicle_id\":\"v1\",\"at\":1777636800,\"x\":\"a\nb\"}", "not_json"),
        (r#"{'vehicle_id':'v1'}"#, "not_json"),
        (r#"{vehicle_id:"v1"}"#, "not_json"),
        (r#"{"vehicle_id" "v1"}"#, "not_json"),
        (r#"{"vehicle_id":"v1" "at":1}"#, "not_json"),
        (&deep, "not_json"),
        (r#"{"at":1777636800}"#, "no_vehicle"),
        (r#"{"vehicle_id":null,"at":1777636800}"#, "no_vehicle"),
        (r#"{"vehicle_id":"","at":1777636800}"#, "no_vehicle"),
        (r#"{"vehicle_id":{"a":1},"at":1777636800}"#, "bad_vehicle"),
        (r#"{"vehicle_id":["v"],"at":1777636800}"#, "bad_vehicle"),
        (r#"{"vehicle_id":true,"at":1777636800}"#, "bad_vehicle"),
        (&long_id, "bad_vehicle"),
        (r#"{"vehicle_id":"v1"}"#, "no_time"),
        (r#"{"vehicle_id":"v1","at":null}"#, "no_time"),
        (r#"{"vehicle_id":"v1","at":""}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":"yesterday"}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":"2026-05-01T12:00:00"}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":"2026-02-29T12:00:00Z"}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":true}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":{}}"#, "bad_time"),
        (r#"{"vehicle_id":"v1","at":1777636800000}"#, "time_implausible"),
        (r#"{"vehicle_id":"v1","at":1e400}"#, "time_implausible"),
        (r#"{"vehicle_id":"v1","at":0}"#, "time_implausible"),
        (r#"{"vehicle_id":"v1","at":"1999-12-31T23:59:59.999999Z"}"#, "time_implausible"),
    ];
    assert!(cases.len() >= 30);
    for (text, expected) in cases {
        let (reason, detail) = reason("{}", text);
        assert_eq!(reason, *expected, "{text}: {detail}");
        assert!(detail.len() > 8, "{text}: {detail}");
    }
}

#[test]
fn bytes_tombstones_and_sizes() {
    let mut d = decoder("{}");
    let out = one(&mut d, Body::Json(b"{\"vehicle_id\":\"v\xff\"}"), None);
    assert_eq!(&*out.rejects[0].reason, "not_utf8");
    assert_eq!(out.rejects[0].payload.as_deref(), Some(&b"{\"vehicle_id\":\"v\xff\"}"[..]));
    assert!(out.rejects[0].detail.contains("byte 16 is 0xff"), "{}", out.rejects[0].detail);
    let out = one(&mut d, Body::Tombstone, Some(7));
    assert_eq!((&*out.rejects[0].reason, &out.rejects[0].payload), ("tombstone", &None));
    assert_eq!((out.rejects[0].record_time, out.rejects[0].position), (7, 42));
    let mut ctx = context("{}");
    ctx.limits.max_record = GOOD.len();
    let mut d = Decoder::new(&ctx, &catalogue()).unwrap();
    assert_eq!(one(&mut d, Body::Json(GOOD.as_bytes()), None).readings.len(), 1);
    let longer = format!("{GOOD} ");
    assert_eq!(&*one(&mut d, Body::Json(longer.as_bytes()), None).rejects[0].reason, "too_large");
}

#[test]
fn the_future_is_judged_by_when_the_record_was_sent() {
    let sent = time("2026-05-01T11:59:00Z");
    let mut d = decoder("{}");
    assert_eq!(one(&mut d, Body::Json(GOOD.as_bytes()), Some(sent)).readings.len(), 1);
    let out = one(&mut d, Body::Json(GOOD.as_bytes()), Some(sent - 1));
    assert_eq!(&*out.rejects[0].reason, "time_in_future");
    // A mapped record time comes before Kafka's.
    let mut d = decoder(r#"{"fields":{"record_time":"sent"}}"#);
    let text = r#"{"vehicle_id":"v","at":"2026-05-01T12:00:00Z","sent":"2026-05-01T11:00:00Z"}"#;
    assert_eq!(&*one(&mut d, Body::Json(text.as_bytes()), Some(sent)).rejects[0].reason, "time_in_future");
    let text = r#"{"vehicle_id":"v","at":"2026-05-01T12:00:00Z"}"#;
    let out = one(&mut d, Body::Json(text.as_bytes()), Some(sent));
    assert_eq!(out.readings[0].head.record_time, sent);
    let mut ctx = context("{}");
    ctx.limits.not_after = Some("2026-05-01T12:00:00Z".into());
    let out = one(&mut Decoder::new(&ctx, &catalogue()).unwrap(), Body::Json(GOOD.as_bytes()), None);
    assert_eq!(&*out.rejects[0].reason, "time_implausible");
}

#[test]
fn broken_elements_and_samples() {
    let each = r#"{"each":"s"}"#;
    let trip = r#"{"layout":"trip"}"#;
    let long = r#"{"layout":"long"}"#;
    let head = r#""vehicle_id":"v1","at":1777636800"#;
    let cases = [
        (each, format!("{{{head}}}"), "no_elements"),
        (each, format!("{{{head},\"s\":[]}}"), "no_elements"),
        (each, format!("{{{head},\"s\":null}}"), "no_elements"),
        (each, format!("{{{head},\"s\":{{}}}}"), "bad_element"),
        (each, format!("{{{head},\"s\":5}}"), "bad_element"),
        (each, format!("{{{head},\"s\":[{{}},7]}}"), "bad_element"),
        (each, format!("{{{head},\"s\":[{{}},null]}}"), "bad_element"),
        (each, format!("{{{head},\"s\":[\"{{}}\"]}}"), "bad_element"),
        (trip, format!("{{{head},\"data\":[\"{{}}\"]}}"), "bad_element"),
        (each, format!("{{{head},\"s\":[{{}},{{\"at\":\"x\"}}]}}"), "bad_time"),
        (each, format!("{{{head},\"s\":[{{}},{{\"vehicle_id\":null}}]}}"), "no_vehicle"),
        (trip, format!("{{{head}}}"), "no_samples"),
        (trip, format!("{{{head},\"data\":[]}}"), "no_samples"),
        (trip, format!("{{{head},\"data\":\"x\"}}"), "bad_element"),
        (trip, format!("{{{head},\"data\":[{{}},[]]}}"), "bad_element"),
        (trip, format!("{{{head},\"data\":[{{\"at\":5}}]}}"), "time_implausible"),
        (trip, format!("{{{head},\"data\":[{{\"at\":\"5 o'clock\"}}]}}"), "bad_time"),
        (trip, "{\"data\":[{}]}".to_string(), "no_vehicle"),
        (long, format!("{{{head},\"value\":5}}"), "no_sensor"),
        (long, format!("{{{head},\"sensor_type\":\"\",\"value\":5}}"), "no_sensor"),
        (long, format!("{{{head},\"sensor_type\":{{}},\"value\":5}}"), "bad_sensor"),
    ];
    for (mapping, text, expected) in &cases {
        let (reason, detail) = reason(mapping, text);
        assert_eq!(reason, *expected, "{text}: {detail}");
    }
    let mut ctx = context(each);
    ctx.limits.max_elements = 2;
    let mut d = Decoder::new(&ctx, &catalogue()).unwrap();
    let text = format!("{{{head},\"s\":[{{}},{{}},{{}}]}}");
    assert_eq!(&*one(&mut d, Body::Json(text.as_bytes()), None).rejects[0].reason, "too_many_elements");
}

#[test]
fn a_decoder_lives_on_after_broken_records() {
    let mut d = decoder(r#"{"each":"s"}"#);
    let bad = r#"{"vehicle_id":"v1","at":1777636800,"junk":1,"s":[{"speed_kmh":1},{"speed_kmh":2,"at":"x"}]}"#;
    let fine = r#"{"vehicle_id":"v1","at":1777636800,"s":[{"temp":3}]}"#;
    assert_eq!(one(&mut d, Body::Json(bad.as_bytes()), None).rejects.len(), 1);
    let out = one(&mut d, Body::Json(fine.as_bytes()), None);
    assert_eq!(out.readings.len(), 1);
    assert_eq!(out.readings[0].values, [NULL, NULL, NULL, NULL, 3_000_000]);
    assert_eq!(out.readings[0].meta.tags, None);
}

proptest::proptest! {
    /// Whatever comes, nothing panics, every record is counted once (see `one`), and a rejected one keeps its bytes.
    #[test]
    fn damaged_records_are_counted(
        at in 0usize..200,
        with in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4),
        cut in 0usize..4,
    ) {
        let text = r#"{"vehicle_id":"v1","at":"2026-05-01T12:00:00.5Z","sensor_type":"temp","value":"1e5","speed_kmh":-0.50,
            "gear":"\u00e9","x":{"y":[1,2.5]},"data":[{"at":1777636800,"temp":1},{"lat":"9"}]}"#;
        let mut bytes = text.as_bytes().to_vec();
        let from = at.min(bytes.len());
        let to = (from + cut).min(bytes.len());
        bytes.splice(from..to, with);
        for mapping in ["{}", r#"{"layout":"long"}"#, r#"{"layout":"trip"}"#, r#"{"each":"data","signals":{"temp":"x.y[1]"}}"#] {
            let out = one(&mut decoder(mapping), Body::Json(&bytes), None);
            if let Some(reject) = out.rejects.first() {
                proptest::prop_assert_eq!(reject.payload.as_deref(), Some(&bytes[..]));
            }
        }
    }
}
