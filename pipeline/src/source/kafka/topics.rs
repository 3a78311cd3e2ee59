//! What the cluster says of topics: how many partitions, and the ids that tell a topic from its namesake.

use super::client::Consumer;
use crate::source::error::SourceError;
use rdkafka::bindings as rd;
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::Duration;

/// Number of partitions and id (where the broker has ids) by topic.
pub(crate) type Topics = BTreeMap<String, (i32, Option<String>)>;

/// Asks for all of `names`.
///
/// # Errors
/// [`SourceError::Brokers`] when nobody answers in time, [`SourceError::UnknownTopic`].
pub(crate) fn look_up(
    consumer: &Consumer,
    names: &[String],
    brokers: &str,
    timeout: Duration,
) -> Result<Topics, SourceError> {
    let mut topics = Topics::new();
    for name in names {
        let metadata = consumer
            .base()
            .fetch_metadata(Some(name), timeout)
            .map_err(|e| SourceError::Brokers { brokers: brokers.to_string(), reason: e.to_string() })?;
        let found = metadata.topics().iter().find(|t| t.name() == name);
        let unknown = || SourceError::UnknownTopic { topic: name.clone() };
        let topic = found.ok_or_else(unknown)?;
        if let Some(error) = topic.error() {
            return Err(match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => unknown(),
                code => SourceError::Client(format!("topic {name:?}: {code}")),
            });
        }
        if topic.partitions().is_empty() {
            return Err(unknown());
        }
        topics.insert(name.clone(), (topic.partitions().len() as i32, None));
    }
    for (name, id) in ids(consumer, names, timeout) {
        if let Some((_, known)) = topics.get_mut(&name) {
            *known = Some(id);
        }
    }
    Ok(topics)
}

/// Topic ids; empty where the broker does not give them (before Kafka 3.1, or without the right to describe).
fn ids(consumer: &Consumer, names: &[String], timeout: Duration) -> Vec<(String, String)> {
    let names: Vec<CString> = names.iter().filter_map(|n| CString::new(n.as_str()).ok()).collect();
    let mut pointers: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
    // Ids are a safeguard; a broker that does not answer (librdkafka's mock does not) must not hold up the start.
    let millis = timeout.as_millis().min(5000) as i32;
    // SAFETY: the client is alive during the call, `pointers` hold as many zero-terminated names as is said, and
    // librdkafka copies them. What is made here (collection, queue, event) is destroyed here, once, also when it is null.
    unsafe {
        let client = consumer.native();
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        let queue = rd::rd_kafka_queue_new(client);
        rd::rd_kafka_DescribeTopics(client, collection, std::ptr::null(), queue);
        let event = rd::rd_kafka_queue_poll(queue, millis);
        let ids = NonNull::new(event).map(|e| read_ids(e)).unwrap_or_default();
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        rd::rd_kafka_TopicCollection_destroy(collection);
        ids
    }
}

/// # Safety
/// `event` is valid.
unsafe fn read_ids(event: NonNull<rd::rd_kafka_event_t>) -> Vec<(String, String)> {
    let mut ids = Vec::new();
    // SAFETY: every pointer read here belongs to the event, which is valid; each is looked at before it is used, and
    // the array has as many entries as is said.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        if result.is_null() {
            return ids;
        }
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        for i in 0..if topics.is_null() { 0 } else { count } {
            let topic = *topics.add(i);
            let error = rd::rd_kafka_TopicDescription_error(topic);
            if !error.is_null() && rd::rd_kafka_error_code(error) != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                continue;
            }
            let (name, id) = (rd::rd_kafka_TopicDescription_name(topic), rd::rd_kafka_TopicDescription_topic_id(topic));
            if name.is_null() || id.is_null() {
                continue;
            }
            // The zero id means that the broker has none.
            let zero =
                rd::rd_kafka_Uuid_most_significant_bits(id) == 0 && rd::rd_kafka_Uuid_least_significant_bits(id) == 0;
            let text = rd::rd_kafka_Uuid_base64str(id);
            if !zero && !text.is_null() {
                let own = |t| CStr::from_ptr(t).to_string_lossy().into_owned();
                ids.push((own(name), own(text)));
            }
        }
    }
    ids
}
