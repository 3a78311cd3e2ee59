//! The bare drain: `rd_kafka_consume_batch_queue`, 4,096 messages at once, each looked at (its length) and dropped.

use rdkafka::bindings as c;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const BATCH: usize = 4_096;
const PATIENCE: Duration = Duration::from_secs(30);

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// Reads every partition of the topic from its first record to the end that it had at the start.
///
/// Prints `{"first": …, "last": …, "records": …, "bytes": …}`: the wall times (s since 1970) of the first and the last
/// batch, and what came.
pub fn drain(brokers: &str, topic: &str) -> Result<(), String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "drain")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "false")
        .set("fetch.message.max.bytes", "10485760")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", "262144")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .map_err(|e| e.to_string())?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|e| e.to_string())?;
    let (mut all, mut expected) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics().first().ok_or("no such topic")?.partitions() {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).map_err(|e| e.to_string())?;
        expected += high - low;
        all.add_partition_offset(topic, partition.id(), Offset::Offset(low)).map_err(|e| e.to_string())?;
    }
    consumer.assign(&all).map_err(|e| e.to_string())?;
    let (mut records, mut bytes, mut first, mut last) = (0_i64, 0_usize, 0.0, seconds());
    let mut messages = vec![std::ptr::null_mut(); BATCH];
    // SAFETY: the client outlives the queue, and each message is destroyed once, after its last use.
    unsafe {
        let queue = c::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        while records < expected {
            let count = c::rd_kafka_consume_batch_queue(queue, 1_000, messages.as_mut_ptr(), BATCH);
            if count > 0 && first == 0.0 {
                first = seconds();
            }
            for message in messages.iter().take(usize::try_from(count).unwrap_or(0)) {
                if (**message).err == c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    records += 1;
                    bytes += (**message).len;
                }
                c::rd_kafka_message_destroy(*message);
            }
            match count {
                ..=0 if seconds() - last > PATIENCE.as_secs_f64() => {
                    return Err(format!("{records} of {expected}, then nothing for 30 s"));
                }
                ..=0 => {}
                _ => last = seconds(),
            }
        }
        c::rd_kafka_queue_destroy(queue);
    }
    println!("{{\"first\": {first:.6}, \"last\": {last:.6}, \"records\": {records}, \"bytes\": {bytes}}}");
    Ok(())
}
