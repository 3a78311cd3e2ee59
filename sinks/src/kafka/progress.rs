//! Reads the progress topic to its end, committed records only.

use super::{KafkaConfig, KafkaError, progress_topic};
use crate::progress::ProgressEntry;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the client says of itself; what it says of the topic comes with the records.
struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: ClientError, reason: &str) {
        if !matches!(error, ClientError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::warn!("Kafka client: {error}: {reason}");
        }
    }
}

impl ConsumerContext for Quiet {}

/// The end of the topic's one partition; None where it does not exist. A topic that was just created may have no leader
/// for a moment.
fn end(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<Option<i64>, ClientError> {
    let began = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, 0, PATIENCE) {
            Ok((_, high)) => return Ok(Some(high)),
            Err(ClientError::MetadataFetch(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnknownTopic,
            )) => return Ok(None),
            Err(e) if e.rdkafka_error_code().is_some_and(super::is_transient) && began.elapsed() < PATIENCE => {
                std::thread::park_timeout(Duration::from_millis(50));
            }
            Err(e) => return Err(e),
        }
    }
}

/// All committed entries of a job's progress topic that are still there; none when it does not exist.
///
/// # Errors
/// When no broker answers, or a record is not one of ours.
pub fn read_progress(config: &KafkaConfig, job: &str) -> Result<Vec<ProgressEntry>, KafkaError> {
    let topic = progress_topic(config, job);
    let action = format!("cannot read topic {topic}");
    let error = |e: &ClientError| config.error(&action, e);
    let fixed = [
        ("group.id", job),
        ("enable.auto.commit", "false"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
        // A start waits for the end of the topic, which the broker tells only after that long.
        ("fetch.wait.max.ms", "10"),
        ("auto.offset.reset", "earliest"),
        ("allow.auto.create.topics", "false"),
    ];
    let client = config.client(&[], &fixed);
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(|e| error(&e))?;
    let Some(high) = end(&consumer, &topic).map_err(|e| error(&e))? else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    if high == 0 {
        return Ok(entries);
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Beginning).map_err(|e| error(&e))?;
    consumer.assign(&list).map_err(|e| error(&e))?;
    let mut heard = Instant::now();
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            None if heard.elapsed() >= PATIENCE => {
                return Err(KafkaError::Timeout { action, seconds: PATIENCE.as_secs() });
            }
            None => {}
            // A transaction that hangs holds the end back; init_transactions, which came before, has ended ours.
            Some(Err(ClientError::PartitionEOF(_))) => return Ok(entries),
            Some(Err(e)) if e.rdkafka_error_code().is_some_and(super::is_transient) && heard.elapsed() < PATIENCE => {}
            Some(Err(e)) => return Err(error(&e)),
            Some(Ok(message)) => {
                heard = Instant::now();
                let entry = serde_json::from_slice(message.payload().unwrap_or_default());
                entries.push(entry.map_err(|e| KafkaError::Damaged {
                    topic: topic.clone(),
                    offset: message.offset(),
                    problem: e.to_string(),
                })?);
            }
        }
    }
}
