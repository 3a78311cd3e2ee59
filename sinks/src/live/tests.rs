use super::*;
use crate::message::Ticket;
use crate::outlet::{DeadLetter, LiveChange, LiveOutput, Outlet};
use crate::progress::data::{DataDir, Held};
use crate::progress::{Claim, ProgressLog, ProgressRecord};
use drivetrain_schemas::document::from_base64;
use drivetrain_schemas::reading::{NULL, Origin, Reject};
use drivetrain_schemas::table::Topic;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const TOPIC: &str = "driver_scores";

fn change(key: &str, value: Option<&str>, epoch: i64) -> LiveChange {
    LiveChange { topic: Topic::DriverScores, key: key.into(), value: value.map(str::to_string), epoch }
}

fn produce(outlet: &mut LocalOutlet, changes: Vec<LiveChange>) {
    outlet.begin().unwrap();
    outlet.produce(&LiveOutput { changes, dead_letters: Vec::new() }).unwrap();
}

fn commit(outlet: &mut LocalOutlet, epoch: i64) {
    commit_as(outlet, 1, epoch);
}

fn commit_as(outlet: &mut LocalOutlet, generation: u64, epoch: i64) {
    let ticket = Ticket { epoch, ..Ticket::default() };
    outlet
        .append(&ProgressRecord {
            generation,
            committed_epoch: epoch,
            epochs: vec![ticket],
            ..ProgressRecord::default()
        })
        .unwrap();
    outlet.commit().unwrap();
    outlet.settle().unwrap();
}

#[test]
fn only_what_is_committed_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap();
    let mut outlet = LocalOutlet::open(&data).unwrap();
    let mut follower = Follower::new(dir.path(), TOPIC);
    assert!(follower.poll().unwrap().is_empty() && read_latest(dir.path(), TOPIC).unwrap().is_empty());
    produce(&mut outlet, vec![change("a", Some("{\"n\":1}"), 1), change("b", Some("{\"n\":2}"), 1)]);
    assert!(follower.poll().unwrap().is_empty() && read_latest(dir.path(), TOPIC).unwrap().is_empty());
    commit(&mut outlet, 1);
    assert_eq!(follower.poll().unwrap().len(), 2);
    produce(&mut outlet, vec![change("a", None, 2), change("b", Some("{\"n\":3}"), 2)]);
    assert_eq!(read_latest(dir.path(), TOPIC).unwrap()["b"], "{\"n\":2}");
    assert!(follower.poll().unwrap().is_empty());
    commit(&mut outlet, 2);
    assert_eq!(read_latest(dir.path(), TOPIC).unwrap(), [("b".to_string(), "{\"n\":3}".to_string())].into());
    let seen: Vec<(String, Option<String>)> = follower.poll().unwrap().into_iter().map(|r| (r.key, r.value)).collect();
    assert_eq!(seen, [("a".to_string(), None), ("b".to_string(), Some("{\"n\":3}".to_string()))]);
}

fn letter(epoch: i64) -> DeadLetter {
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 2 });
    let (reason, detail) = ("not_json".into(), String::new());
    DeadLetter { epoch, reject: Reject { origin, position: epoch, record_time: NULL, reason, detail, payload: None } }
}

#[test]
fn a_restart_takes_back_what_was_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap();
    let claim = |generation| Claim { generation, job: "j".into(), config_hash: "c".into(), version: "v".into() };
    let mut outlet = LocalOutlet::open(&data).unwrap();
    outlet.claim(&claim(1)).unwrap();
    let mut follower = Follower::new(dir.path(), TOPIC);
    let say = |outlet: &mut LocalOutlet, value: &str, epoch| {
        let changes = vec![change("a", Some(value), epoch), change(&format!("k{epoch}"), None, epoch)];
        outlet.produce(&LiveOutput { changes, dead_letters: vec![letter(epoch)] }).unwrap();
    };
    say(&mut outlet, "{\"n\":1}", 1);
    commit(&mut outlet, 1);
    assert_eq!(follower.poll().unwrap().len(), 1);
    say(&mut outlet, "{\"n\":666}", 2);
    drop(outlet);
    // Torn, and what a compaction leaves.
    let segment = dir.path().join("live").join(TOPIC).join("0000000001.jsonl");
    let mut text = std::fs::read(&segment).unwrap();
    text.extend(b"\0\0\0\n{\"epoch\":2,\"key");
    std::fs::write(&segment, &text).unwrap();
    std::fs::write(segment.with_file_name("0000000002.tmp"), "x").unwrap();

    let mut outlet = LocalOutlet::open(&data).unwrap().with_small(0);
    assert!(follower.poll().unwrap().is_empty());
    outlet.claim(&claim(2)).unwrap();
    outlet.resume(1).unwrap();
    say(&mut outlet, "{\"n\":2}", 2);
    commit_as(&mut outlet, 2, 2);
    assert_eq!(read_latest(dir.path(), TOPIC).unwrap(), [("a".to_string(), "{\"n\":2}".to_string())].into());
    let seen: Vec<Option<String>> = follower.poll().unwrap().into_iter().map(|r| r.value).collect();
    assert_eq!(seen, [Some("{\"n\":2}".to_string())]);
    let letters = read_dead_letters(dir.path()).unwrap();
    assert_eq!(letters.len(), 2);
    let names: Vec<_> = std::fs::read_dir(segment.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["0000000002.jsonl"], "compacted: the places of the lines before the restart were known");
    assert_eq!(std::fs::read_to_string(segment.with_file_name("0000000002.jsonl")).unwrap().lines().count(), 1);
}

#[test]
fn damage_among_committed_lines_stops_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let topic = dir.path().join("live").join(TOPIC);
    let mut log = TopicLog::create(&topic).unwrap();
    (1..5).for_each(|epoch| log.put(&"a".into(), Some("{}"), epoch));
    log.flush().unwrap();
    let segment = topic.join("0000000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("\"key\":", "\"kex\":", 1)).unwrap();
    let error = TopicLog::open(&topic, 4, true).unwrap_err().to_string();
    assert!(error.contains("0000000001.jsonl, line 1:") && error.contains("--fresh"), "{error}");
    // Behind the last committed line anything may stand.
    TopicLog::open(&topic, 0, true).unwrap();
    assert_eq!(segment.metadata().unwrap().len(), 0);
}

#[test]
fn dead_letters_keep_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap();
    let mut outlet = LocalOutlet::open(&data).unwrap();
    let origin = Arc::new(Origin { source: "s".into(), name: "t\"x".into(), partition: 2 });
    let payload: Vec<u8> = (0..=255).collect();
    let reject = Reject {
        origin,
        position: 9,
        record_time: NULL,
        reason: "not_json".into(),
        detail: "line\nbreak".into(),
        payload: Some(payload.clone()),
    };
    let output = LiveOutput { changes: vec![], dead_letters: vec![DeadLetter { epoch: 1, reject }] };
    outlet.produce(&output).unwrap();
    assert!(read_dead_letters(dir.path()).unwrap().is_empty());
    commit(&mut outlet, 1);
    let letters = read_dead_letters(dir.path()).unwrap();
    let letter: serde_json::Value = serde_json::from_str(&letters[0]).unwrap();
    assert_eq!(from_base64(letter["payload_base64"].as_str().unwrap()), Some(payload));
    let headers = &letter["headers"];
    assert_eq!(
        (&headers["origin"], &headers["position"], &headers["detail"]),
        (&"t\"x".into(), &"9".into(), &"line\nbreak".into())
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is written and compacted, reading gives each key's last value, and following comes to the same.
    #[test]
    fn compaction_loses_nothing(
        commits in proptest::collection::vec(
            proptest::collection::vec((0u8..6, proptest::option::of(0u32..1000)), 1..12), 1..30),
        poll_every in 1usize..5,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::lock(dir.path(), "j", 0, Held::Refuse).unwrap();
        let mut progress = LocalOutlet::open(&data).unwrap();
        let topic = dir.path().join("live").join(TOPIC);
        let mut log = TopicLog::create(&topic).unwrap().with_small(200);
        let mut follower = Follower::new(dir.path(), TOPIC);
        let (mut expected, mut followed) = (BTreeMap::new(), BTreeMap::new());
        let mut apply = |follower: &mut Follower| {
            for record in follower.poll().unwrap() {
                match record.value {
                    Some(value) => followed.insert(record.key, value),
                    None => followed.remove(&record.key),
                };
            }
            followed.clone()
        };
        let mut compactions = 0;
        for (epoch, changes) in commits.iter().enumerate() {
            for (key, value) in changes {
                let key: Arc<str> = format!("key\"{key}").into();
                let value = value.map(|v| format!("{{\"v\":{v}}}"));
                log.put(&key, value.as_deref(), epoch as i64);
                match value {
                    Some(value) => expected.insert(key.to_string(), value),
                    None => expected.remove(key.as_ref()),
                };
            }
            log.flush().unwrap();
            commit(&mut progress, epoch as i64);
            compactions += u32::from(log.compact().unwrap());
            prop_assert_eq!(&read_latest(dir.path(), TOPIC).unwrap(), &expected);
            if epoch % poll_every == 0 {
                prop_assert_eq!(&apply(&mut follower), &expected);
            }
        }
        prop_assert_eq!(&apply(&mut follower), &expected);
        let bytes: u64 = segments(&topic).unwrap().iter().map(|n| segment(&topic, *n).metadata().unwrap().len()).sum();
        prop_assert!(bytes < 1500, "{} bytes of 6 keys after {} compactions", bytes, compactions);
    }
}
