//! Fills the topic: the lines of `drivetrain simulate --out -` without the fields that the job has no use for (317 B
//! become about 227), keyed by vehicle, partitioned as Java does, so that the peers need no repartition.

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::io::BufRead;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Fields left out.
const DROPPED: [&str; 4] = ["\"driver_id\":", "\"fleet_id\":", "\"engine_rpm\":", "\"odometer_km\":"];

static LOST: AtomicU64 = AtomicU64::new(0);

struct Losses;

impl rdkafka::ClientContext for Losses {}

impl ProducerContext for Losses {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        LOST.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
    }
}

/// Sends the first `limit` lines of standard input, and prints `{"records": …, "bytes": …}`.
pub fn load(brokers: &str, topic: &str, limit: u64) -> Result<(), String> {
    let producer: ThreadedProducer<Losses> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("queue.buffering.max.messages", "500000")
        .create_with_context(Losses)
        .map_err(|e| e.to_string())?;
    let (mut records, mut bytes, mut line, mut short) = (0, 0, String::new(), String::new());
    let mut input = std::io::stdin().lock();
    while records < limit {
        line.clear();
        if input.read_line(&mut line).map_err(|e| e.to_string())? == 0 {
            return Err(format!("the input ended after {records} of {limit} records"));
        }
        shorten(line.trim_end(), &mut short);
        send(&producer, topic, vehicle(&short)?, &short)?;
        records += 1;
        bytes += short.len();
    }
    producer.flush(Duration::from_secs(120)).map_err(|e| e.to_string())?;
    match LOST.load(Ordering::Relaxed) {
        0 => println!("{{\"records\": {records}, \"bytes\": {bytes}}}"),
        lost => return Err(format!("{lost} records were not taken")),
    }
    Ok(())
}

/// A flat object as the simulator writes it (no comma, brace or quote inside of a text) without the fields dropped.
pub fn shorten(line: &str, short: &mut String) {
    short.clear();
    short.push('{');
    let fields = line.trim_start_matches('{').trim_end_matches('}').split(',');
    for field in fields.filter(|field| !DROPPED.iter().any(|name| field.starts_with(name))) {
        if short.len() > 1 {
            short.push(',');
        }
        short.push_str(field);
    }
    short.push('}');
}

/// The id of the reading's vehicle, which comes first.
pub fn vehicle(line: &str) -> Result<&str, String> {
    let value = line.strip_prefix("{\"vehicle_id\":\"").and_then(|rest| rest.split('"').next());
    value.ok_or_else(|| format!("not a record of the simulator: {line}"))
}

fn send(producer: &ThreadedProducer<Losses>, topic: &str, key: &str, value: &str) -> Result<(), String> {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), same)) => {
                record = same;
                producer.poll(Duration::from_millis(10));
            }
            Err((problem, _)) => return Err(problem.to_string()),
        }
    }
}
