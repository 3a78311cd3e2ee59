//! The layouts `wide` with `each`, `long` and `trip`.

use super::*;

const HEAD: &str = r#""vehicle_id":"v1","at":"2026-05-01T12:00:00Z""#;

#[test]
fn wide() {
    let seen =
        good("{}", &format!(r#"{{{HEAD},"driver_id":"d1","speed_kmh":50.1,"lat":48.12345678,"ignition":true}}"#));
    let at = time("2026-05-01T12:00:00Z");
    assert_eq!(seen.head, Head { at, position: 42, record_time: NULL, meta: 0, element: 0 });
    assert_eq!(seen.values, [NULL, 1, 481_234_568, 50_100_000, NULL]);
    assert_eq!((&*seen.meta.vehicle, seen.meta.driver.as_deref()), ("v1", Some("d1")));
}

#[test]
fn each_element_sees_its_parent() {
    let text = format!(
        r#"{{{HEAD},"hub":"h","x":1,"s":[{{"temp":1,"x":2}},{{"temp":2,"at":"2026-05-01T12:00:01Z","vehicle_id":"v2"}}],"speed_kmh":9}}"#
    );
    let out = json(r#"{"each":"s"}"#, &text);
    assert_eq!(out.readings.len(), 2, "{:?}", out.rejects);
    let (a, b) = (&out.readings[0], &out.readings[1]);
    assert_eq!((a.head.element, b.head.element), (0, 1));
    assert_eq!((&*a.meta.vehicle, &*b.meta.vehicle), ("v1", "v2"));
    assert_eq!(b.head.at - a.head.at, 1_000_000);
    assert_eq!((a.values[TEMP], b.values[TEMP], a.values[SPEED]), (1_000_000, 2_000_000, 9_000_000));
    assert_eq!(a.meta.tags.as_deref(), Some(r#"{"hub":"h","x":2}"#));
    assert_eq!(b.meta.tags.as_deref(), Some(r#"{"hub":"h","x":1}"#));
    assert_eq!(out.counts.readings, 2);
}

#[test]
fn long() {
    let mapping = r#"{"layout":"long","signals":{"temp":{"field":"t_f","unit":"fahrenheit"}}}"#;
    let text = |sensor: &str, value: &str| {
        format!(r#"{{{HEAD},"sensor_type":"{sensor}","value":{value},"quality":"good","metadata":{{"a": 1}}}}"#)
    };
    let seen = good(mapping, &text("speed_kmh", "50.1"));
    assert_eq!(seen.values, [NULL, NULL, NULL, 50_100_000, NULL]);
    assert_eq!(seen.meta.tags.as_deref(), Some(r#"{"metadata":{"a":1}}"#));
    assert_eq!(seen.meta.quality.as_deref(), Some("good"));
    assert_eq!(good(mapping, &text("t_f", "212")).values[TEMP], 100_000_000);
    assert_eq!(good(mapping, &text("ignition", "true")).values[IGNITION], 1);
    assert_eq!(good(mapping, &text("gear", "\"N\"")).meta.texts, [(GEAR as u16, "N".into())]);
    let seen = good(mapping, &text("mood", "\"fine\""));
    assert_eq!(seen.values, [NULL; 5]);
    assert_eq!(seen.meta.tags.as_deref(), Some(r#"{"metadata":{"a":1},"sensor_type":"mood","value":"fine"}"#));
    assert_eq!(json(mapping, &text("speed_kmh", "\"x\"")).counts.invalid_values, 1);
    assert_eq!(json(mapping, &text("speed_kmh", "null")).counts.invalid_values, 0);
}

fn trip(text: &str, timestamp: Option<i64>, replay_at: Option<i64>) -> TripPayload {
    let mut ctx = context(r#"{"layout":"trip"}"#);
    ctx.replay_at = replay_at;
    let out = one(&mut Decoder::new(&ctx, &catalogue()).unwrap(), Body::Json(text.as_bytes()), timestamp);
    assert!(out.rejects.is_empty(), "{:?}", out.rejects);
    assert_eq!(out.counts.readings, 1);
    out.trips.into_iter().next().unwrap()
}

#[test]
fn trips_without_sample_times() {
    let text = r#"{"trip_id":"t1","vehicle_id":"v1","driver_id":"d1","note":"x","speed_kmh":3,
        "data":[{"speed_kmh":50,"odd":1},{"speed_kmh":"bad"},{"gear":"D"}],"at":"2026-05-01T12:00:00Z"}"#;
    let t = trip(text, None, Some(7));
    let at = time("2026-05-01T12:00:00Z");
    assert_eq!((&*t.trip_id, t.record_time, &*t.vehicle), ("t1", at, "v1"));
    assert_eq!(t.samples.iter().map(|s| s.at - at).collect::<Vec<_>>(), [-2_000_000, -1_000_000, 0]);
    assert_eq!(t.samples[0].values, [NULL, NULL, NULL, 50_000_000, NULL]);
    assert_eq!(t.samples[2].texts, [(GEAR as u16, "D".into())]);
    // A field of the trip with a signal's name is not a sample's.
    assert_eq!(t.tags.as_deref(), Some(r#"{"note":"x","speed_kmh":3}"#));
    assert_eq!(t.sample_interval, 1_000_000);
    // Kafka's timestamp comes before the record's own time.
    assert_eq!(trip(text, Some(at + 5), None).record_time, at + 5);
}

#[test]
fn trips_without_any_time_are_never_implausible() {
    let text = r#"{"vehicle_id":"v1","data":[{"speed_kmh":1},{"speed_kmh":2}]}"#;
    let t = trip(text, None, None);
    assert_eq!((t.record_time, t.samples[0].at, t.samples[1].at), (0, -1_000_000, 0));
    assert_eq!(trip(text, None, Some(9)).record_time, 9);
}

#[test]
fn samples_are_sorted_by_time() {
    let text = r#"{"vehicle_id":"v1","at":1777636805,"data":[
        {"at":1777636803,"temp":1},{"at":1777636801,"temp":2},{"at":1777636803,"temp":0}]}"#;
    let t = trip(text, None, None);
    let temps: Vec<_> = t.samples.iter().map(|s| s.values[TEMP] / 1_000_000).collect();
    assert_eq!(temps, [2, 1, 0]);
}

#[test]
fn derived_trip_ids() {
    let text = r#"{"vehicle_id":"v1","data":[{"speed_kmh":1}]}"#;
    let (a, b, c) = (trip(text, None, None), trip(text, None, Some(1)), trip(text, None, None));
    assert_eq!(a.trip_id.len(), 32);
    assert!(a.trip_id.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(a.trip_id, c.trip_id);
    assert_ne!(a.trip_id, b.trip_id);
    assert_ne!(a.trip_id, trip(&text.replace("v1", "v2"), None, None).trip_id);
}

#[test]
fn trips_from_an_expanded_record() {
    let text = r#"{"vehicle_id":"v1","at":1777636805,"trips":[{"trip_id":"a","data":[{"temp":1}]},{"trip_id":"b","data":[{}]}]}"#;
    let out = json(r#"{"layout":"trip","each":"trips"}"#, text);
    assert_eq!(out.trips.iter().map(|t| &*t.trip_id).collect::<Vec<_>>(), ["a", "b"], "{:?}", out.rejects);
    assert_eq!(out.counts.readings, 2);
}

#[test]
fn peeking_finds_the_time_that_decoding_finds() {
    let origin = origin();
    let peek = |mapping: &str, text: &str| {
        let body = Body::Json(text.as_bytes());
        let record = Record { origin: &origin, position: 1, timestamp: None, key: None, headers: &[], body };
        decoder(mapping).peek_time(&record)
    };
    let at = Some(time("2026-05-01T12:00:00Z"));
    assert_eq!(peek("{}", &format!("{{{HEAD}}}")), at);
    assert_eq!(peek("{}", "{"), None);
    assert_eq!(peek(r#"{"each":"s"}"#, r#"{"s":[{"at":"2026-05-01T12:00:00Z"}]}"#), at);
    assert_eq!(peek(r#"{"layout":"trip"}"#, &format!("{{{HEAD},\"data\":[]}}")), at);
    assert_eq!(peek(r#"{"layout":"trip"}"#, "{}"), Some(0));
}

/// Else one reading of 2099 would let its partition look ahead of all others for ever, and they would go on without it.
#[test]
fn peeking_finds_no_time_for_which_a_record_is_rejected() {
    let origin = origin();
    let peek = |text: &str, sent: &str| {
        let (body, timestamp) = (Body::Json(text.as_bytes()), Some(time(sent)));
        let record = Record { origin: &origin, position: 1, timestamp, key: None, headers: &[], body };
        decoder("{}").peek_time(&record)
    };
    let text = format!("{{{HEAD}}}");
    assert_eq!(peek(&text, "2026-05-01T12:00:00Z"), Some(time("2026-05-01T12:00:00Z")));
    assert_eq!(peek(&text, "2024-05-01T12:00:00Z"), None, "two years before it was sent");
    assert_eq!(peek(&text.replace("2026", "1970"), "2026-05-01T12:00:00Z"), None);
}

#[test]
fn unmapped_fields_are_counted() {
    let mut d = decoder(r#"{"layout":"trip"}"#);
    d.track_unmapped(true);
    let text = r#"{"vehicle_id":"v1","note":1,"data":[{"odd":1},{"odd":2,"temp":1}]}"#;
    one(&mut d, Body::Json(text.as_bytes()), None);
    assert_eq!(d.unmapped().collect::<Vec<_>>(), [("data[].odd", 2), ("note", 1)]);
    d.track_unmapped(false);
    assert_eq!(d.unmapped().count(), 0);
}
