//! The mock cluster accepts transactions without isolating them, and has no admin calls: only producing is tested here,
//! the rest with a real broker.

use super::*;
use crate::message::Ticket;
use crate::outlet::{DeadLetter, LiveChange, LiveOutput, Outlet};
use crate::progress::{Claim, ProgressEntry, ProgressLog, ProgressRecord};
use drivetrain_schemas::reading::{NULL, Origin, Reject};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn config(brokers: &str) -> KafkaConfig {
    KafkaConfig { brokers: brokers.to_string(), topic_prefix: "p.".into(), ..KafkaConfig::default() }
}

/// Key, value, partition and headers of all records of a topic.
type Seen = (Option<String>, Option<Vec<u8>>, i32, Vec<(String, String)>);

fn consume(config: &KafkaConfig, topic: &str, count: usize) -> Vec<Seen> {
    let fixed = [("group.id", "test"), ("auto.offset.reset", "earliest"), ("fetch.wait.max.ms", "10")];
    let consumer: BaseConsumer = config.client(&[], &fixed).create().unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    (0..4).for_each(|p| list.add_partition_offset(topic, p, rdkafka::Offset::Beginning).unwrap());
    consumer.assign(&list).unwrap();
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(30);
    while seen.len() < count && Instant::now() < deadline {
        if let Some(Ok(m)) = consumer.poll(Duration::from_millis(100)) {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            let headers = m.headers().into_iter().flat_map(|h| h.iter());
            let headers = headers.map(|h| (h.key.to_string(), text(h.value.unwrap()))).collect();
            seen.push((m.key().map(text), m.payload().map(<[u8]>::to_vec), m.partition(), headers));
        }
    }
    seen
}

fn live_topics(config: &KafkaConfig) -> Vec<String> {
    Topic::ALL.map(|topic| topic_name(config, topic)).into_iter().chain([dead_letter_topic(config)]).collect()
}

/// Else the first values of its keys would go where their later ones do not.
#[test]
fn a_topic_that_the_broker_does_not_know_yet_is_waited_for() {
    let cluster = MockCluster::new(1).unwrap();
    let config = config(&cluster.bootstrap_servers());
    cluster.create_topic(&progress_topic(&config, "job"), 1, 1).unwrap();
    let topics = live_topics(&config);
    let late = topic_name(&config, Topic::DriverScores);
    topics.iter().filter(|topic| **topic != late).for_each(|topic| cluster.create_topic(topic, 4, 1).unwrap());
    let connecting = std::thread::spawn(move || TransactionalSink::connect(&config, "job"));
    std::thread::park_timeout(Duration::from_millis(500));
    assert!(!connecting.is_finished(), "it has guessed");
    cluster.create_topic(&late, 4, 1).unwrap();
    let sink = connecting.join().unwrap().unwrap();
    let partitions: std::collections::BTreeSet<usize> =
        (0..100).map(|i| sink.partition(Topic::DriverScores, &i.to_string())).collect();
    assert_eq!(partitions.len(), 4);
}

#[test]
fn produces_values_tombstones_dead_letters_and_progress() {
    let cluster = MockCluster::new(1).unwrap();
    let config = config(&cluster.bootstrap_servers());
    live_topics(&config).iter().for_each(|topic| cluster.create_topic(topic, 4, 1).unwrap());
    cluster.create_topic(&progress_topic(&config, "job"), 1, 1).unwrap();
    assert_eq!(read_progress(&config, "job").unwrap(), []);
    let mut sink = TransactionalSink::connect(&config, "job").unwrap();
    let claim = Claim { generation: 1, job: "job".into(), config_hash: "c".into(), version: "v".into() };
    sink.claim(&claim).unwrap();
    let change = |key: &str, value: Option<&str>| LiveChange {
        topic: Topic::DriverScores,
        key: key.into(),
        value: value.map(str::to_string),
        epoch: 1,
    };
    let origin = Arc::new(Origin { source: "s".into(), name: "in".into(), partition: 3 });
    let reject = Reject {
        origin,
        position: 12,
        record_time: NULL,
        reason: "not_json".into(),
        detail: "a byte".into(),
        payload: Some(vec![0xff; MOST + 1]),
    };
    let output = LiveOutput {
        changes: vec![change("driver-1", Some("{\"score\":1.0}")), change("driver-2", None)],
        dead_letters: vec![DeadLetter { epoch: 1, reject }],
    };
    let ticket = Ticket { epoch: 1, wall: 5, ..Ticket::default() };
    let record = ProgressRecord { generation: 1, epochs: vec![ticket], ..ProgressRecord::default() };
    sink.begin().unwrap();
    sink.produce(&output).unwrap();
    sink.append(&record).unwrap();
    sink.commit().unwrap();

    let mut values = consume(&config, "p.driver_scores", 2);
    values.sort();
    assert_eq!(values[0].0.as_deref(), Some("driver-1"));
    assert_eq!(values[0].1.as_deref(), Some(&b"{\"score\":1.0}"[..]));
    assert_eq!((values[1].0.as_deref(), &values[1].1), (Some("driver-2"), &None));
    // As Java's default partitioner: (murmur2(key) & 0x7fffffff) % 4.
    for value in &values {
        let hash = murmur2(value.0.as_ref().unwrap().as_bytes());
        assert_eq!(value.2, ((hash & 0x7fff_ffff) % 4) as i32, "{:?}", value.0);
    }
    let letters = consume(&config, "p.dead_letter", 1);
    assert_eq!(letters[0].1.as_ref().unwrap().len(), MOST);
    let header = |name: &str| letters[0].3.iter().find(|h| h.0 == name).map(|h| h.1.as_str());
    assert_eq!((header("reason"), header("origin"), header("position")), (Some("not_json"), Some("in"), Some("12")));
    assert_eq!(header("truncated_from"), Some("900001"));
    assert_eq!(sink.read_all().unwrap(), [ProgressEntry::Claim(claim), ProgressEntry::Commit(record)]);
}

const MOST: usize = 900_000;

/// Java's `Utils.murmur2`, written anew from its description as the reference.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let chunks = data.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    for (i, byte) in rest.iter().enumerate().rev() {
        h ^= u32::from(*byte) << (8 * i);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h = (h ^ (h >> 13)).wrapping_mul(M);
    h ^ (h >> 15)
}

/// What the mock cluster cannot show: `DRIVETRAIN_TEST_KAFKA=host:port cargo test --lib -- --ignored with_a_broker`.
#[test]
#[ignore = "needs a broker, named by DRIVETRAIN_TEST_KAFKA"]
fn restarts_with_a_broker() {
    let brokers = std::env::var("DRIVETRAIN_TEST_KAFKA").expect("DRIVETRAIN_TEST_KAFKA names a broker");
    let prefix = format!("restarts-{}.", std::process::id());
    let config = KafkaConfig { brokers, topic_prefix: prefix, ..KafkaConfig::default() };
    let job = "restarts";
    ensure_topics(&config, job).unwrap();
    let claim = |generation| Claim { generation, job: job.into(), config_hash: "c".into(), version: "v".into() };
    let commit = |sink: &mut TransactionalSink, epoch: i64| -> Result<(), crate::outlet::OutletError> {
        let ticket = Ticket { epoch, ..Ticket::default() };
        sink.begin()?;
        let key = "driver-1".into();
        let change = LiveChange { topic: Topic::DriverScores, key, value: Some(format!("{{\"n\":{epoch}}}")), epoch };
        sink.produce(&LiveOutput { changes: vec![change], dead_letters: vec![] })?;
        sink.append(&ProgressRecord { committed_epoch: epoch, epochs: vec![ticket], ..ProgressRecord::default() })?;
        sink.commit()
    };
    let epochs = |entries: Vec<ProgressEntry>| -> Vec<i64> {
        let epoch = |e| if let ProgressEntry::Commit(r) = e { r.committed_epoch } else { -1 };
        entries.into_iter().map(epoch).collect()
    };
    let mut first = TransactionalSink::connect(&config, job).unwrap();
    assert_eq!(first.read_all().unwrap(), []);
    first.claim(&claim(1)).unwrap();
    first.resume(-1).unwrap();
    (0..5).for_each(|e| commit(&mut first, e).unwrap());
    // One that hangs in the midst of a commit: everything is with the broker but the last word.
    first.begin().unwrap();
    let ticket = Ticket { epoch: 5, ..Ticket::default() };
    first.append(&ProgressRecord { committed_epoch: 5, epochs: vec![ticket], ..ProgressRecord::default() }).unwrap();

    let mut second = TransactionalSink::connect(&config, job).unwrap();
    assert_eq!(epochs(second.read_all().unwrap()), [-1, 0, 1, 2, 3, 4], "what hangs is taken back");
    second.claim(&claim(2)).unwrap();
    second.resume(4).unwrap();
    let error = first.commit().unwrap_err();
    assert!(error.to_string().starts_with("another instance (a later generation) has taken over job"), "{error}");
    assert!(!error.is_retryable());
    let error = commit(&mut first, 6).unwrap_err();
    assert!(error.to_string().contains("has taken over"), "{error}");
    (5..10).for_each(|e| commit(&mut second, e).unwrap());
    second.trim(3).unwrap();
    assert_eq!(epochs(second.read_all().unwrap()).len(), 12, "offsets of an earlier instance's records are not known");
    second.trim(7).unwrap();
    assert_eq!(epochs(second.read_all().unwrap()), [8, 9]);
    second.trim(9).unwrap();
    assert_eq!(epochs(second.read_all().unwrap()), [9], "the record that names the checkpoint stays");
    // And what the first one would still trim is gone, or before what is needed.
    first.trim(2).unwrap();
    assert_eq!(epochs(read_progress(&config, job).unwrap()), [9]);
    fresh(&config, job).unwrap();
}

#[test]
fn secrets_stay_inside() {
    let mut config = config("localhost:1");
    let properties = [("sasl.password", "hunter22"), ("no.such.property", "hunter33"), ("client.id", "me")];
    config.properties = properties.map(|(k, v)| (k.to_string(), v.to_string())).into();
    let debug = format!("{config:?}");
    assert!(!debug.contains("hunter") && debug.contains("sasl.password") && debug.contains("\"me\""), "{debug}");
    let Err(error) = TransactionalSink::connect(&config, "job") else { panic!("the property does not exist") };
    let text = format!("{error} {error:?}");
    assert!(text.contains("no.such.property") && !text.contains("hunter"), "{text}");
    assert!(!error.is_retryable());
}

#[test]
fn unknown_fields_are_refused() {
    let error = serde_json::from_str::<KafkaConfig>(r#"{"broker":"x"}"#).unwrap_err().to_string();
    assert!(error.contains("unknown field `broker`"), "{error}");
}
