//! Places and the errors of a mapping that cannot be used.

use super::*;

#[test]
fn circumstances_and_constants() {
    let place = |vehicle: &str| {
        let mapping = format!(r#"{{"fields":{{"vehicle":"{vehicle}"}}}}"#);
        good(&mapping, r#"{"at":1777636800,"gps":{"coords":[1,"v3"]}}"#).meta.vehicle.to_string()
    };
    assert_eq!(place("$key"), "k1");
    assert_eq!(place("$header.source"), "hub-7");
    assert_eq!(place("$topic"), "in/readings.jsonl.gz");
    assert_eq!(place("$partition"), "3");
    assert_eq!(place("$file"), "readings");
    assert_eq!(place("=bus 1"), "bus 1");
    assert_eq!(place("gps.coords[1]"), "v3");
    let missing = |vehicle: &str| reason(&format!(r#"{{"fields":{{"vehicle":"{vehicle}"}}}}"#), r#"{"at":1777636800}"#);
    assert_eq!(missing("$header.none").0, "no_vehicle");
    assert_eq!(missing("$header.absent").0, "no_vehicle");
    let quoted =
        good(r#"{"signals":{"temp":"[\"Vehicle.Temp\"]"}}"#, r#"{"vehicle_id":"v","at":1777636800,"Vehicle.Temp":1}"#);
    assert_eq!(quoted.values[TEMP], 1_000_000);
}

#[test]
fn two_signals_may_read_one_field() {
    let seen = good(
        r#"{"signals":{"temp":"x","speed_kmh":{"field":"x","unit":"m/s"}}}"#,
        r#"{"vehicle_id":"v","at":1777636800,"x":10}"#,
    );
    assert_eq!((seen.values[TEMP], seen.values[SPEED]), (10_000_000, 36_000_000));
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    let cases = [
        (r#"{"signals":{"speed_kmh":{"unit":"furlong"}}}"#, "signals.speed_kmh.unit", "km/h"),
        (r#"{"signals":{"speed_kmh":{"unit":"g"}}}"#, "signals.speed_kmh.unit", "acceleration"),
        (r#"{"signals":{"sped_kmh":"x"}}"#, "signals.sped_kmh", "did you mean \"speed_kmh\""),
        (r#"{"signals":{"gear":{"scale":2}}}"#, "signals.gear", "only numbers"),
        (r#"{"signals":{"temp":{"scale":"two"}}}"#, "signals.temp.scale", "not a number"),
        (r#"{"signals":{"temp":"a..b"}}"#, "signals.temp", "gps.coords[0]"),
        (r#"{"signals":{"temp":{"unit":[{"unit":"kelvin"},{"unit":"celsius"}]}}}"#, "signals.temp.unit", "until"),
        (r#"{"fields":{"vehicle":"$keys"}}"#, "fields.vehicle", "$key"),
        (r#"{"fields":{"time":{"field":"t","format":"iso"}}}"#, "fields.time.format", "unix_ms"),
        (r#"{"fields":{"time":{"field":"t","format":"%d/%m/%Y"}}}"#, "fields.time.format", "zone"),
        (r#"{"fields":{"time":{"field":"t","zone":"Mars/North"}}}"#, "fields.time.zone", "IANA"),
        (r#"{"fields":{"time":{"field":"t","step":"1h"}}}"#, "fields.time.base", "base and step"),
        (r#"{"sample_interval":"soon"}"#, "sample_interval", "duration"),
        (r#"{"each":"a["}"#, "each", "]"),
    ];
    for (mapping, field, remedy) in cases {
        let error = Decoder::new(&context(mapping), &catalogue()).unwrap_err();
        assert_eq!(error.field, format!("sources.test.{field}"), "{error}");
        assert!(error.problem.contains(remedy), "{error}");
    }
    let mut ctx = context("{}");
    ctx.limits.not_before = "always".into();
    assert_eq!(Decoder::new(&ctx, &catalogue()).unwrap_err().field, "limits.not_before");
}
