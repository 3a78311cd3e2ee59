use super::*;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

#[test]
fn keys_are_sorted_and_one_key_is_indented() {
    let latest = map(&[("d2", r#"{"score":90.0}"#), ("d1", r#"{"b":1,"a":{"x":[1,2],"y":{},"t":"a: {b}, \"c\""}}"#)]);
    let print = |key: Option<&str>| {
        let mut out = Vec::new();
        show(&latest, Topic::DriverScores, key, false, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    assert!(print(None).unwrap().starts_with("d1\t{\"b\":1,"));
    assert!(print(None).unwrap().ends_with("\nd2\t{\"score\":90.0}\n"));
    assert_eq!(print(Some("d2")).unwrap(), "{\n  \"score\": 90.0\n}\n");
    let document: serde_json::Value = serde_json::from_str(&print(Some("d1")).unwrap()).unwrap();
    assert_eq!(document, serde_json::from_str::<serde_json::Value>(&latest["d1"]).unwrap());
    assert!(print(Some("d1")).unwrap().contains("\"y\": {},"));
    let error = print(Some("d3")).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.exit_code()), ("driver_scores has no key d3", 1));
}

#[test]
fn an_unknown_topic_names_the_nearest() {
    let error = topic("driver_score").unwrap_err();
    assert!(error.to_string().starts_with("there is no topic driver_score; did you mean driver_scores?\ntopics: "));
    assert_eq!(error.exit_code(), 2);
    assert_eq!(topic("vehicle_state").unwrap(), Topic::VehicleState);
}

/// A data directory whose local log holds these lines of `driver_scores`, committed up to epoch 5.
fn directory(lines: &str) -> tempfile::TempDir {
    use drivetrain_sinks::message::Ticket;
    use drivetrain_sinks::progress::local::LocalLog;
    use drivetrain_sinks::progress::{ProgressLog, ProgressRecord};
    let dir = tempfile::tempdir().unwrap();
    let ticket = Ticket { epoch: 5, ..Ticket::default() };
    let mut log = LocalLog::open(dir.path()).unwrap();
    log.append(&ProgressRecord { committed_epoch: 5, epochs: vec![ticket], ..ProgressRecord::default() }).unwrap();
    log.sync().unwrap();
    std::fs::create_dir_all(dir.path().join("live/driver_scores")).unwrap();
    std::fs::write(dir.path().join("live/driver_scores/0000000001.jsonl"), lines).unwrap();
    dir
}

#[test]
fn the_newest_committed_values_are_read() {
    let dir = directory(concat!(
        "{\"epoch\":1,\"key\":\"a\",\"value\":{\"n\":1}}\n",
        "{\"epoch\":2,\"key\":\"b\",\"value\":{\"n\":2}}\n",
        "{\"epoch\":4,\"key\":\"a\",\"value\":{\"n\":4}}\n",
        "{\"epoch\":5,\"key\":\"b\",\"value\":null}\n",
        "{\"epoch\":6,\"key\":\"a\",\"value\":{\"n\":6}}\n",
    ));
    assert_eq!(latest(dir.path(), "driver_scores").unwrap(), map(&[("a", r#"{"n":4}"#)]));
    assert_eq!(latest(dir.path(), "trip_scores").unwrap(), map(&[]));
}

#[test]
fn changes_are_printed_as_they_come() {
    let mut out = Vec::new();
    for (key, value) in [("b", None), ("c", Some("{\"n\":4}"))] {
        change(None, key.into(), value.map(str::to_string), &mut out).unwrap();
        change(Some("c"), key.into(), value.map(str::to_string), &mut out).unwrap();
    }
    assert_eq!(String::from_utf8(out).unwrap(), "b\t\nc\t{\"n\":4}\n{\n  \"n\": 4\n}\n");
}
