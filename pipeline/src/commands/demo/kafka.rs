//! The demo's broker (librdkafka's in-process mock: no durability, no transactions, enough to look into with kcat) and
//! the fleet that sends to it.

use crate::simulate::command::write_reference;
use crate::simulate::{SimulateOptions, Simulator};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The topic of the demo's configuration.
const TOPIC: &str = "telemetry";
const PARTITIONS: i32 = 4;
/// Longer than anybody watches.
const DAY: i64 = 24 * 3_600_000_000;
const SEED: u64 = 7;

/// A broker inside this process.
pub(super) struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    pub(super) fn start() -> Result<Self, String> {
        let failed = |e| format!("the embedded broker can't be started: {e}");
        let cluster = MockCluster::new(1).map_err(failed)?;
        cluster.create_topic(TOPIC, PARTITIONS, 1).map_err(failed)?;
        Ok(Self { cluster })
    }

    pub(super) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }
}

/// The fleet's thread.
pub(super) struct Fleet {
    thread: JoinHandle<()>,
}

fn options(vehicles: usize) -> SimulateOptions {
    SimulateOptions {
        vehicles,
        duration: DAY,
        seed: SEED,
        late: 0.01,
        duplicates: 0.005,
        faults: true,
        ..Default::default()
    }
}

/// Writes the fleet's vehicles, drivers and fleets.
pub(super) fn reference(vehicles: usize, directory: &Path) -> Result<(), String> {
    write_reference(&Simulator::new(options(vehicles)), directory).map_err(|e| e.to_string())
}

impl Fleet {
    /// Sends readings, `speed` times faster than they are taken, until `stop`.
    pub(super) fn start(broker: &Broker, vehicles: usize, speed: u32, stop: Arc<AtomicBool>) -> Result<Self, String> {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .create()
            .map_err(|e| format!("the fleet can't reach the embedded broker: {e}"))?;
        let mut simulator = Simulator::new(options(vehicles));
        let send = move || {
            let began = Instant::now();
            let mut bytes = Vec::new();
            let mut first = None;
            while let Some(head) = simulator.next_into(&mut bytes) {
                let first = *first.get_or_insert(head.sent);
                let due = Duration::from_micros((head.sent - first).unsigned_abs() / u64::from(speed));
                while began.elapsed() < due && !stop.load(Ordering::Relaxed) {
                    producer.poll(Duration::ZERO);
                    std::thread::park_timeout((due - began.elapsed().min(due)).min(Duration::from_millis(20)));
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = Simulator::key(head.vehicle);
                let record = BaseRecord::to(TOPIC).key(&key).payload(&bytes).timestamp(head.at / 1000);
                // A full queue of a demo loses a record of nobody.
                drop(producer.send(record));
            }
            drop(producer.flush(Duration::from_secs(2)));
        };
        let thread = std::thread::Builder::new().name("fleet".into()).spawn(send);
        Ok(Self { thread: thread.map_err(|e| format!("a thread can't be started: {e}"))? })
    }

    pub(super) fn finish(self) {
        drop(self.thread.join());
    }
}
