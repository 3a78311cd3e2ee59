//! The demo's broker (librdkafka's in-process mock: no durability, no transactions, enough to look into with kcat), the
//! fleet that sends to it, and the copies of the live topics.

use crate::simulate::command::write_reference;
use crate::simulate::{SimulateOptions, Simulator};
use drivetrain_schemas::table::Topic;
use drivetrain_sinks::live::{Follower, LiveRecord};
use drivetrain_sinks::progress::data::LOCK;
use drivetrain_sinks::progress::local;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The topic of the demo's configuration.
const TOPIC: &str = "telemetry";
const PARTITIONS: i32 = 4;
/// How often the live topics are looked after.
const COPY_EVERY: Duration = Duration::from_millis(100);
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
        for topic in topics() {
            cluster.create_topic(topic, PARTITIONS, 1).map_err(failed)?;
        }
        Ok(Self { cluster })
    }

    pub(super) fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    fn producer(&self) -> Result<BaseProducer, String> {
        ClientConfig::new()
            .set("bootstrap.servers", self.address())
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .create()
            .map_err(|e| format!("the embedded broker can't be reached: {e}"))
    }
}

/// The topics that the broker has: the input, and the copies of the live topics.
pub(super) fn topics() -> impl Iterator<Item = &'static str> {
    std::iter::once(TOPIC).chain(Topic::ALL.map(Topic::name))
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
        let producer = broker.producer()?;
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

/// The thread that copies what the live topics say to the broker, for kcat. Best effort: a copy comes up to
/// [`COPY_EVERY`] after its commit, outside any transaction, and the files stay the truth.
pub(super) struct Copies {
    thread: JoinHandle<()>,
}

impl Copies {
    /// Copies until `stop`, from the moment on at which the job has begun anew in `data`: what an earlier demo has left
    /// there is not copied. To be started before the job.
    pub(super) fn start(broker: &Broker, data: &Path, stop: Arc<AtomicBool>) -> Result<Self, String> {
        let producer = broker.producer()?;
        let start = Start { data: data.to_path_buf(), earlier: written(data, LOCK) };
        let copy = move || {
            while !start.begun() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::park_timeout(COPY_EVERY);
            }
            let mut followers = Topic::ALL.map(|topic| (topic.name(), Follower::new(&start.data, topic.name())));
            while !stop.load(Ordering::Relaxed) {
                for (topic, follower) in &mut followers {
                    // What can't be read now is read the next time, or told by the job.
                    follower.poll().unwrap_or_default().iter().for_each(|record| send(&producer, topic, record));
                }
                producer.poll(Duration::ZERO);
                std::thread::park_timeout(COPY_EVERY);
            }
            drop(producer.flush(Duration::from_secs(2)));
        };
        let thread = std::thread::Builder::new().name("copies".into()).spawn(copy);
        Ok(Self { thread: thread.map_err(|e| format!("a thread can't be started: {e}"))? })
    }

    pub(super) fn finish(self) {
        drop(self.thread.join());
    }
}

/// A change of a key, or its tombstone.
fn send(producer: &BaseProducer, topic: &str, record: &LiveRecord) {
    let mut copy = BaseRecord::to(topic).key(record.key.as_str());
    copy.payload = record.value.as_deref();
    // A full queue loses a copy.
    drop(producer.send::<str, str>(copy));
}

/// Tells when the job has begun: it takes the lock, deletes what there was, and only then begins the progress log.
struct Start {
    data: PathBuf,
    /// When the lock was taken last before this demo.
    earlier: Option<SystemTime>,
}

impl Start {
    fn begun(&self) -> bool {
        let (lock, log) = (written(&self.data, LOCK), written(&self.data, local::LOG));
        lock.is_some() && lock != self.earlier && log >= lock
    }
}

/// When a file of the data directory was written last.
fn written(data: &Path, name: &str) -> Option<SystemTime> {
    std::fs::metadata(data.join(name)).and_then(|file| file.modified()).ok()
}
