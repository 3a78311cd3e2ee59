//! Reads a compacted topic from its beginning, committed records only.

use super::LiveError;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reader of all partitions of one topic.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Partitions whose end has not been reached yet.
    open: BTreeSet<i32>,
}

impl Reader {
    /// Connects and starts at the beginning of each partition.
    ///
    /// # Errors
    /// A broker that does not answer, or a topic that isn't there.
    pub fn open(brokers: &str, topic: &str) -> Result<Reader, LiveError> {
        let failed = |e: KafkaError| LiveError::Read { place: format!("{topic} at {brokers}"), problem: e.to_string() };
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "drivetrain-live")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("allow.auto.create.topics", "false")
            .create()
            .map_err(failed)?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(failed)?;
        let partitions = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
        let open: BTreeSet<i32> = partitions.iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        if open.is_empty() {
            return Err(LiveError::NoTopic { brokers: brokers.into(), topic: topic.into() });
        }
        let mut assignment = TopicPartitionList::new();
        for partition in &open {
            assignment.add_partition_offset(topic, *partition, Offset::Beginning).map_err(failed)?;
        }
        consumer.assign(&assignment).map_err(failed)?;
        Ok(Reader { consumer, topic: topic.into(), open })
    }

    /// Hands each record to `each` (no value: a tombstone) until every partition's end has been reached once.
    ///
    /// # Errors
    /// The broker's, or that of `each`.
    pub fn read_to_end(
        &mut self,
        mut each: impl FnMut(String, Option<String>) -> Result<(), LiveError>,
    ) -> Result<(), LiveError> {
        while !self.open.is_empty() {
            if !self.poll(PATIENCE, &mut each)? {
                let problem = format!("no answer within {} s", PATIENCE.as_secs());
                return Err(LiveError::Read { place: self.topic.clone(), problem });
            }
        }
        Ok(())
    }

    /// Waits a second for a record and hands it over.
    ///
    /// # Errors
    /// As [`Reader::read_to_end`].
    pub fn wait(
        &mut self,
        mut each: impl FnMut(String, Option<String>) -> Result<(), LiveError>,
    ) -> Result<(), LiveError> {
        self.poll(Duration::from_secs(1), &mut each).map(|_| ())
    }

    /// False when nothing came.
    fn poll(
        &mut self,
        patience: Duration,
        each: &mut impl FnMut(String, Option<String>) -> Result<(), LiveError>,
    ) -> Result<bool, LiveError> {
        match self.consumer.poll(patience) {
            None => return Ok(false),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.open.remove(&partition);
            }
            Some(Err(e)) => return Err(LiveError::Read { place: self.topic.clone(), problem: e.to_string() }),
            Some(Ok(message)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                each(text(message.key().unwrap_or_default()), message.payload().map(text))?;
            }
        }
        Ok(true)
    }
}

/// The newest value of each key, up to the topic's end.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::read_to_end`].
pub fn latest(brokers: &str, topic: &str) -> Result<BTreeMap<String, String>, LiveError> {
    let mut latest = BTreeMap::new();
    Reader::open(brokers, topic)?.read_to_end(|key, value| super::keep(&mut latest, key, value))?;
    Ok(latest)
}
