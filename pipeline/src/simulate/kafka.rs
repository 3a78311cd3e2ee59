//! Sends the simulated records to a Kafka topic: key = vehicle id, timestamp = event time, partitioned as Java does.

use super::Simulator;
use super::command::{Counts, SimulateError};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Partitions of a topic that has to be created.
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
/// Room for the records that are too large on purpose.
const MAX_BYTES: &str = "4194304";

/// Counts what the broker did not take.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
    first: Arc<Mutex<Option<String>>>,
}

impl rdkafka::ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((e, _)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.to_string());
        }
    }
}

/// Sends all records, `rate` a second where given, and waits until the broker has them.
///
/// # Errors
/// A broker that can't be reached, a topic that can't be created, records that were not taken.
pub fn produce(
    simulator: &mut Simulator,
    brokers: &str,
    topic: &str,
    rate: Option<u64>,
) -> Result<Counts, SimulateError> {
    let failed = |problem: String| SimulateError::Kafka { brokers: brokers.into(), topic: topic.into(), problem };
    create_topic(brokers, topic).map_err(failed)?;
    let deliveries = Deliveries::default();
    let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("message.max.bytes", MAX_BYTES)
        .set("queue.buffering.max.messages", "500000")
        .create_with_context(deliveries.clone())
        .map_err(|e| failed(e.to_string()))?;
    let counts = send_all(simulator, &producer, topic, rate).map_err(|e| failed(e.to_string()))?;
    producer.flush(PATIENCE).map_err(|e| failed(e.to_string()))?;
    match deliveries.failed.load(Ordering::Relaxed) {
        0 => Ok(counts),
        lost => {
            let first = deliveries.first.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
            Err(failed(format!("{lost} records were not taken; the first: {first}")))
        }
    }
}

fn send_all(
    simulator: &mut Simulator,
    producer: &ThreadedProducer<Deliveries>,
    topic: &str,
    rate: Option<u64>,
) -> Result<Counts, KafkaError> {
    let (mut counts, mut bytes) = (Counts::default(), Vec::with_capacity(512));
    let pace = rate.map(Pace::new);
    while let Some(head) = simulator.next_into(&mut bytes) {
        if let Some(pace) = &pace {
            pace.wait(counts.records);
        }
        counts.add(&head);
        let key = Simulator::key(head.vehicle);
        let mut record = BaseRecord::to(topic).key(&key).timestamp(head.at / 1_000);
        if !head.broken.is_some_and(|b| b.is_tombstone()) {
            record = record.payload(&bytes);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                    record = same;
                    producer.poll(Duration::from_millis(10));
                }
                Err((e, _)) => return Err(e),
            }
        }
    }
    Ok(counts)
}

/// Keeps a number of records a second.
struct Pace {
    rate: u64,
    begin: Instant,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { rate, begin: Instant::now() }
    }

    /// Waits until record number `n` is due.
    #[allow(clippy::disallowed_methods, reason = "what is waited for is the time itself")]
    fn wait(&self, n: u64) {
        let due = Duration::from_nanos((u128::from(n) * 1_000_000_000 / u128::from(self.rate)) as u64);
        if let Some(rest) = due.checked_sub(self.begin.elapsed()).filter(|rest| *rest > Duration::from_millis(1)) {
            std::thread::sleep(rest);
        }
    }
}

/// Creates the topic unless it is there.
fn create_topic(brokers: &str, topic: &str) -> Result<(), String> {
    let client: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().map_err(|e| e.to_string())?;
    // Of all topics: asking for one by its name would make it, with the broker's defaults.
    let metadata = client.inner().fetch_metadata(None, PATIENCE).map_err(|e| e.to_string())?;
    if metadata.topics().iter().any(|t| t.name() == topic && t.error().is_none() && !t.partitions().is_empty()) {
        return Ok(());
    }
    // The records are of 2026, whenever that was: a retention by time would delete them.
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(-1))
        .set("retention.ms", "-1")
        .set("max.message.bytes", MAX_BYTES);
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| e.to_string())?;
    let results = runtime.block_on(client.create_topics([&new], &options)).map_err(|e| e.to_string())?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(format!("the topic can't be created: {code}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::SimulateOptions;
    use drivetrain_query::live::kafka::{Reader, latest};
    use rdkafka::mocking::MockCluster;
    use std::collections::BTreeMap;

    #[test]
    fn every_record_arrives_under_its_vehicles_key() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("readings", 4, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let options = SimulateOptions { vehicles: 20, broken: 0.1, ..SimulateOptions::default() };
        let counts = produce(&mut Simulator::new(options.clone()), &brokers, "readings", Some(50_000)).unwrap();
        let mut expected: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
        for record in Simulator::new(options) {
            let text = record.bytes.map(|b| String::from_utf8_lossy(&b).into_owned());
            expected.entry(record.partition_key).or_default().push(text);
        }
        let (mut found, mut records) = (BTreeMap::<String, Vec<Option<String>>>::new(), 0);
        let mut reader = Reader::open(&brokers, "readings").unwrap();
        reader
            .read_to_end(|key, value| {
                records += 1;
                found.entry(key).or_default().push(value);
                Ok(())
            })
            .unwrap();
        assert_eq!(records, counts.records);
        assert!(counts.broken.contains_key("tombstone"));
        assert!(found == expected, "each vehicle's records in their order");
        assert!(latest(&brokers, "readings").unwrap().len() <= 20);
        assert!(Reader::open(&brokers, "nothing_here").is_err());
    }
}
