//! How event times are read.

use super::*;

fn at(time: &str, value: &str) -> i64 {
    let mapping = format!(r#"{{"fields":{{"time":{time}}}}}"#);
    good(&mapping, &format!(r#"{{"vehicle_id":"v","t":{value}}}"#)).head.at
}

#[test]
fn formats() {
    let noon = time("2026-05-01T12:00:00Z");
    let cases = [
        (r#""t""#, r#""2026-05-01T12:00:00.1234569Z""#, noon + 123_456),
        (r#""t""#, r#""2026-05-01 14:00:00+02:00""#, noon),
        (r#""t""#, r#""2026-05-01t05:30:00-0630""#, noon),
        (r#""t""#, "1777636800", noon),
        (r#""t""#, "1777636800.1234569", noon + 123_456),
        (r#""t""#, r#""1777636800.5""#, noon + 500_000),
        (r#"{"field":"t","zone":"America/Chicago"}"#, r#""2026-05-01T07:00:00""#, noon),
        (r#"{"field":"t","zone":"America/Chicago"}"#, r#""2026-05-01T12:00:00Z""#, noon),
        (r#"{"field":"t","format":"unix_s"}"#, "1777636800.25", noon + 250_000),
        (r#"{"field":"t","format":"unix_ms"}"#, "1777636800250", noon + 250_000),
        (r#"{"field":"t","format":"unix_ms"}"#, r#""1777636800250.5""#, noon + 250_500),
        (r#"{"field":"t","format":"unix_us"}"#, "1777636800000001", noon + 1),
        (r#"{"field":"t","format":"unix_ns"}"#, "1777636800000001999", noon + 1),
        (r#"{"field":"t","format":"%d/%m/%Y %H:%M:%S","zone":"America/Chicago"}"#, r#""01/05/2026 07:00:00""#, noon),
        (r#"{"field":"t","format":"%Y-%m-%d %H:%M:%S %z"}"#, r#""2026-05-01 14:00:00 +0200""#, noon),
        (r#"{"field":"t","format":"%Y-%m-%d","zone":"UTC"}"#, r#""2026-05-01""#, noon - 43_200_000_000),
        (r#"{"field":"t","format":"%Y%m%d%H%M%S","zone":"UTC"}"#, "20260501120000", noon),
        (r#"{"field":"t","base":"2026-05-01T00:00:00Z","step":"1h"}"#, "12", noon),
        (r#"{"field":"t","base":"2026-05-01T00:00:00Z","step":"1h"}"#, r#""12.5""#, noon + 1_800_000_000),
    ];
    for (format, value, expected) in cases {
        assert_eq!(at(format, value), expected, "{format} {value}");
    }
}

#[test]
fn wrong_formats_are_rejected() {
    for (format, value) in [
        (r#"{"field":"t","format":"rfc3339"}"#, "1777636800"),
        (r#"{"field":"t","format":"unix_ms"}"#, r#""2026-05-01T12:00:00Z""#),
        (r#"{"field":"t","format":"%d/%m/%Y","zone":"UTC"}"#, r#""2026-05-01""#),
        (r#"{"field":"t","base":"2026-05-01T00:00:00Z","step":"1h"}"#, r#""x""#),
        (r#""t""#, r#""2026-05-01T12:00""#),
        (r#""t""#, r#""2026-05-01T24:00:00Z""#),
        (r#""t""#, r#""2026-13-01T12:00:00Z""#),
        (r#""t""#, r#""2026-05-01T12:00:00.Z""#),
    ] {
        let mapping = format!(r#"{{"fields":{{"time":{format}}}}}"#);
        let text = format!(r#"{{"vehicle_id":"v","t":{value}}}"#);
        assert_eq!(reason(&mapping, &text).0, "bad_time", "{format} {value}");
    }
}

#[test]
fn kafkas_timestamp_as_event_time_is_not_judged() {
    let mut d = decoder(r#"{"fields":{"time":"$timestamp"}}"#);
    let out = one(&mut d, Body::Json(b"{\"vehicle_id\":\"v\"}"), Some(5));
    assert_eq!((out.readings[0].head.at, out.readings[0].head.record_time), (5, 5));
    assert_eq!(&*one(&mut d, Body::Json(b"{\"vehicle_id\":\"v\"}"), None).rejects[0].reason, "no_time");
}
