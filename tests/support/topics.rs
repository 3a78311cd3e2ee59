//! Reading topics as somebody outside does: read committed.

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub fn consumer(brokers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

pub const TIMEOUT: Duration = Duration::from_secs(10);

fn partitions(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
    metadata.topics()[0].partitions().iter().map(|p| p.id()).collect()
}

/// All records of a topic, read committed: (key, value), in each partition's order.
pub fn read_all(brokers: &str, topic: &str) -> Vec<(Option<String>, Option<Vec<u8>>)> {
    records(brokers, topic).into_iter().map(|(_, key, value)| (key, value)).collect()
}

/// With their partitions.
fn records(brokers: &str, topic: &str) -> Vec<(i32, Option<String>, Option<Vec<u8>>)> {
    let consumer = consumer(brokers, "reader");
    let mut list = TopicPartitionList::new();
    let mut open = 0;
    for partition in partitions(&consumer, topic) {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        open += 1;
    }
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    while open > 0 {
        match consumer.poll(TIMEOUT).expect("the broker answers") {
            Ok(message) => {
                let key = message.key().map(|k| String::from_utf8(k.to_vec()).unwrap());
                records.push((message.partition(), key, message.payload().map(<[u8]>::to_vec)));
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => open -= 1,
            Err(e) => panic!("{topic}: {e}"),
        }
    }
    records
}

/// The newest value of each key of a compacted topic. Of no key there are values in two partitions.
#[track_caller]
pub fn latest(brokers: &str, topic: &str) -> BTreeMap<String, serde_json::Value> {
    let mut latest = BTreeMap::new();
    let mut partitions = BTreeMap::new();
    for (partition, key, value) in records(brokers, topic) {
        let key = key.expect("a key");
        let first = *partitions.entry(key.clone()).or_insert(partition);
        assert_eq!(first, partition, "{topic}: {key} is in two partitions: which value is the newest?");
        match value {
            Some(value) => drop(latest.insert(key, serde_json::from_slice(&value).unwrap())),
            None => drop(latest.remove(&key)),
        }
    }
    latest
}

/// Waits until the job has committed (on the side, for lag monitors) all of a topic.
pub fn wait_until_read(brokers: &str, topic: &str, group: &str, log: &Path) {
    let consumer = consumer(brokers, group);
    let mut list = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in partitions(&consumer, topic) {
        list.add_partition(topic, partition);
        ends.insert(partition, consumer.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1);
    }
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        // A broker that has just started has no coordinator for a moment.
        let committed = consumer.committed_offsets(list.clone(), TIMEOUT);
        let done = |p: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            p.offset().to_raw().is_some_and(|offset| offset >= ends[&p.partition()])
        };
        if committed.as_ref().is_ok_and(|list| list.elements().iter().all(done)) {
            return;
        }
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "not read to the end: {committed:?} of {ends:?}\n{}", log());
        std::thread::park_timeout(Duration::from_millis(500));
    }
}

/// The end of each partition.
pub fn end_offsets(consumer: &BaseConsumer, topic: &str) -> Vec<i64> {
    let ids = partitions(consumer, topic);
    ids.into_iter().map(|id| consumer.fetch_watermarks(topic, id, TIMEOUT).unwrap().1).collect()
}

/// Deletes a topic and creates it again, with as many partitions.
pub fn recreate(brokers: &str, topic: &str) {
    let count = partitions(&consumer(brokers, "recreate"), topic).len() as i32;
    let (admin, options) = (admin(brokers), AdminOptions::new());
    on(admin.delete_topics(&[topic], &options)).remove(0).unwrap();
    let new = NewTopic::new(topic, count, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let until = Instant::now() + TIMEOUT;
    // It goes in the background.
    while let Err(error) = on(admin.create_topics([&new], &options)).remove(0) {
        assert!(Instant::now() < until, "{topic}: {error:?}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Deletes all records that a topic has now.
pub fn truncate(brokers: &str, topic: &str) {
    let consumer = consumer(brokers, "truncate");
    let mut list = TopicPartitionList::new();
    for (partition, end) in end_offsets(&consumer, topic).into_iter().enumerate() {
        list.add_partition_offset(topic, partition as i32, Offset::Offset(end)).unwrap();
    }
    let deleted = on(admin(brokers).delete_records(&list, &AdminOptions::new()));
    deleted.elements().iter().for_each(|e| e.error().unwrap());
}

/// Deletes a consumer group with its offsets.
pub fn delete_group(brokers: &str, group: &str) {
    on(admin(brokers).delete_groups(&[group], &AdminOptions::new())).remove(0).unwrap();
}

/// Waits until a topic exists.
pub fn wait_for_topic(brokers: &str, topic: &str) {
    let consumer = consumer(brokers, "looker");
    let until = Instant::now() + Duration::from_secs(30);
    let there = || consumer.fetch_metadata(None, TIMEOUT).is_ok_and(|m| m.topics().iter().any(|t| t.name() == topic));
    while !there() {
        assert!(Instant::now() < until, "{topic} was not created");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

fn on<T, E: std::fmt::Debug>(future: impl Future<Output = Result<T, E>>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future).unwrap()
}
