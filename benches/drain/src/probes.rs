//! Probes: harsh samples at fixed instants, whatever comes back, and when their scores are readable.
//!
//! Probe `k` is due `k / rate` s after the start. It is one of `VEHICLES` vehicles in turn, and the n-th harsh sample of
//! one of its trips, whose score becomes 100 - 5 n with it; a trip has `SAMPLES` of them. A score that is read answers
//! this sample and those before it.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const VEHICLES: usize = 50;
/// Of a trip; a score ends at 0 after 20.
const SAMPLES: usize = 15;
const PATIENCE: Duration = Duration::from_secs(30);
const HELLO: &str = "probehello";

/// What the threads of a run share.
pub struct Probes {
    /// µs from the start to each probe's result being readable; 0: not yet.
    pub readable: Vec<AtomicU64>,
    /// The event time that the load has reached.
    pub at: Mutex<String>,
    /// The start, once it is known.
    pub began: Mutex<Option<Instant>>,
    /// A first result was read: the job runs.
    pub hello: AtomicBool,
    /// No more probes are to be sent.
    pub over: AtomicBool,
    /// The run is done.
    pub stop: AtomicBool,
}

impl Probes {
    pub fn new(count: usize, at: String) -> Self {
        Self {
            readable: (0..count).map(|_| AtomicU64::new(0)).collect(),
            at: Mutex::new(at),
            began: Mutex::new(None),
            hello: AtomicBool::new(false),
            over: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        }
    }

    pub fn reached(&self, at: String) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    pub fn begin(&self, began: Instant) {
        *self.began.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
    }

    /// The vehicle, the number of its trip, and how many harsh samples that has with probe `k`.
    fn place(k: usize) -> (usize, usize, usize) {
        (k % VEHICLES, k / VEHICLES / SAMPLES, k / VEHICLES % SAMPLES + 1)
    }

    /// A score of a probe's trip was read now.
    fn answer(&self, vehicle: usize, trip: usize, reached: usize) {
        let Some(began) = *self.began.lock().unwrap_or_else(PoisonError::into_inner) else { return };
        let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        for n in (0..reached.min(SAMPLES)).rev() {
            let k = (trip * SAMPLES + n) * VEHICLES + vehicle;
            let Some(readable) = self.readable.get(k) else { continue };
            if readable.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                return;
            }
        }
    }
}

/// Sends probes, one at a time.
pub struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Sender {
    pub fn new(brokers: &str, topic: &str) -> Result<Self, String> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "0")
            .set("socket.nagle.disable", "true")
            .create()
            .map_err(|e| e.to_string())?;
        Ok(Self { producer, topic: topic.into() })
    }

    /// A harsh sample that says whether the job runs.
    pub fn hello(&self, at: &str) -> Result<(), String> {
        self.sample(HELLO, HELLO, at)
    }

    fn sample(&self, vehicle: &str, trip: &str, at: &str) -> Result<(), String> {
        let reading = format!(
            "{{\"vehicle_id\":\"{vehicle}\",\"trip_id\":\"{trip}\",\"at\":\"{at}\",\"speed_kmh\":50.00,\"g_force_long\":-0.900}}"
        );
        let record = BaseRecord::to(&self.topic).key(vehicle).payload(&reading);
        self.producer.send(record).map_err(|(problem, _)| problem.to_string())
    }

    /// Sends each probe when it is due, until there are no more or the load is over; by how much they were late, µs.
    pub fn run(&self, probes: &Probes, began: Instant, rate: f64) -> Result<Vec<u64>, String> {
        let mut late = Vec::new();
        for k in 0..probes.readable.len() {
            let due = began + Duration::from_secs_f64(k as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if probes.over.load(Ordering::Relaxed) {
                break;
            }
            late.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
            let (vehicle, trip, _) = Probes::place(k);
            let at = probes.at.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.sample(&format!("probe{vehicle}"), &format!("probe{vehicle}-{trip}"), &at)?;
        }
        Ok(late)
    }
}

/// Reads scores, read committed, until told to stop. A record's key is the trip.
pub fn read(brokers: &str, scores: &str, probes: &Probes) -> Result<(), String> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "probes")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "10")
        .create()
        .map_err(|e| e.to_string())?;
    let metadata = consumer.fetch_metadata(Some(scores), PATIENCE).map_err(|e| e.to_string())?;
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics().first().ok_or("no such topic")?.partitions() {
        all.add_partition_offset(scores, partition.id(), Offset::Beginning).map_err(|e| e.to_string())?;
    }
    consumer.assign(&all).map_err(|e| e.to_string())?;
    while !probes.stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message.map_err(|e| format!("reading scores: {e}"))?;
        let Some(rest) = message.key().and_then(|key| key.strip_prefix(b"probe")) else { continue };
        if rest == b"hello" {
            probes.hello.store(true, Ordering::Relaxed);
        } else if let Some((vehicle, trip, reached)) = message.payload().and_then(|document| result(rest, document)) {
            probes.answer(vehicle, trip, reached);
        }
    }
    Ok(())
}

/// The vehicle, the trip and the number of harsh samples of a score: `17-3`, `{…"score":85…}`.
fn result(place: &[u8], document: &[u8]) -> Option<(usize, usize, usize)> {
    let (vehicle, trip) = std::str::from_utf8(place).ok()?.split_once('-')?;
    let document = std::str::from_utf8(document).ok()?;
    let after = document.split("\"safety_score\":").nth(1).or_else(|| document.split("\"score\":").nth(1))?;
    let score: usize = after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some((vehicle.parse().ok()?, trip.parse().ok()?, 100_usize.saturating_sub(score) / 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A score answers its sample and those before it, of its trip alone.
    #[test]
    fn a_score_answers_all_samples_up_to_it() {
        let probes = Probes::new(2 * SAMPLES * VEHICLES, String::new());
        probes.begin(Instant::now());
        let document = b"{\"trip_id\":\"probe3-1\",\"safety_score\":90.0,\"policy\":{\"score\":1}}";
        assert_eq!(result(b"3-1", document), Some((3, 1, 2)));
        assert_eq!(result(b"3-1", b"{\"harsh\":2,\"score\":90}"), Some((3, 1, 2)));
        probes.answer(3, 1, 2);
        let answered = |k: &usize| probes.readable.get(*k).is_some_and(|at| at.load(Ordering::Relaxed) > 0);
        let answered: Vec<usize> = (0..probes.readable.len()).filter(answered).collect();
        let places: Vec<_> = answered.into_iter().map(Probes::place).collect();
        assert_eq!(places, [(3, 1, 1), (3, 1, 2)]);
    }
}
