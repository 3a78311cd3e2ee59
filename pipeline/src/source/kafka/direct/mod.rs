//! Reading without librdkafka in between: a broker's answers are unpacked into blocks, and workers decode them where they
//! stand. librdkafka makes an operation of each message, which costs as much as decoding it (docs/adr/0011).
//!
//! ```text
//!  broker 1 ◄─Fetch 13─► link thread ─► queue of partition 0 ─► DirectFeed ─► chunks: ranges of a block, not copied
//!  broker 2 ◄──────────► link thread ─► queue of partition 1 ─► …
//!                            │ not the leader any more, or gone
//!                            ▼
//!                        leaders: asks librdkafka who leads, and starts links
//! ```
//!
//! Topics are named by their ids, so that nothing is ever read of a topic that was deleted and created again under its
//! name. Everything else (metadata, offsets for times, commits for lag monitors, control topics, and clusters that are
//! reached by TLS or SASL) stays librdkafka's.

mod batch;
mod block;
mod codec;
mod feed;
mod leaders;
mod link;
mod wire;

pub use block::Fetched;
pub(crate) use feed::DirectFeed;

use super::KafkaSettings;
use super::client::Consumer;
use crate::source::error::SourceError;
use block::{Block, Pool};
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::reading::Origin;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// How often somebody without work looks around.
const IDLE: Duration = Duration::from_secs(1);

/// No broker is known to lead the partition.
const NOBODY: i32 = -1;

/// Properties that say how brokers are reached or which of them is read, in ways that only librdkafka knows.
const FOREIGN: [&str; 4] = ["client.rack", "broker.address.family", "client.dns.lookup", "plugin.library.paths"];

/// What is read ahead, and how it is looked at.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Compressed bytes of one partition in an answer.
    partition_bytes: i32,
    /// Unpacked bytes of a partition from which on nothing more is fetched.
    queue_bytes: usize,
    /// How long a broker may wait for something to answer with.
    wait_ms: i32,
    /// Whether checksums are compared.
    check: bool,
}

impl Options {
    /// From the properties of librdkafka; those that it would refuse were refused before.
    fn new(properties: &BTreeMap<String, String>) -> Self {
        let number = |names: &[&str], usual: i64| {
            let text = names.iter().find_map(|name| properties.get(*name));
            text.and_then(|text| text.parse().ok()).unwrap_or(usual)
        };
        let check = properties.get("check.crcs").is_none_or(|text| text != "false");
        Self {
            partition_bytes: number(&["fetch.message.max.bytes", "max.partition.fetch.bytes"], 512 << 10) as i32,
            queue_bytes: number(&["queued.max.messages.kbytes"], 2 << 10) as usize * 1024,
            wait_ms: number(&["fetch.wait.max.ms"], 100) as i32,
            check,
        }
    }
}

/// A partition that is read, and what is at hand of it.
struct Partition {
    origin: Arc<Origin>,
    topic: wire::TopicId,
    /// Offset of the next record to fetch.
    next: AtomicI64,
    /// The broker, or [`NOBODY`].
    leader: AtomicI32,
    /// Behind the last record that may be read, as of the last answer; -1 before the first.
    stable: AtomicI64,
    queue: Mutex<Queue>,
    /// The source thread.
    wake: Thread,
}

#[derive(Default)]
struct Queue {
    blocks: VecDeque<Block>,
    /// Unpacked, of all blocks.
    bytes: usize,
    /// The last answer had all there is.
    caught_up: bool,
    failed: Option<SourceError>,
    has_failed: bool,
}

impl Partition {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leader(&self) -> i32 {
        self.leader.load(Ordering::Acquire)
    }

    /// Nothing more is read of it; the source thread is told why.
    fn fail(&self, error: SourceError) {
        let mut queue = self.queue();
        queue.has_failed = true;
        queue.failed.get_or_insert(error);
        drop(queue);
        self.wake.unpark();
    }

    fn has_room(&self, options: &Options) -> bool {
        let queue = self.queue();
        queue.bytes < options.queue_bytes && !queue.has_failed
    }
}

/// What all threads have in common.
struct Shared {
    consumer: Arc<Consumer>,
    options: Options,
    pool: Arc<Pool>,
    partitions: Mutex<Vec<Arc<Partition>>>,
    /// Of the brokers that lead any of them.
    addresses: Mutex<BTreeMap<i32, link::Address>>,
    /// Told when a partition has room, has lost its leader or has got one, is new, or all is over.
    changed: Condvar,
    /// Somebody waits for room.
    hungry: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn partitions(&self) -> MutexGuard<'_, Vec<Arc<Partition>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Those that a broker leads; with [`NOBODY`] those without one.
    fn led_by(&self, broker: i32) -> Vec<Arc<Partition>> {
        self.partitions().iter().filter(|p| p.leader() == broker).cloned().collect()
    }

    /// Waits until a partition may be ready to be asked for, unless one is.
    fn wait_for_room(&self, ready: impl Fn(&Partition) -> bool) {
        let partitions = self.partitions();
        self.hungry.store(true, Ordering::SeqCst);
        if !self.has_stopped() && !partitions.iter().any(|p| ready(p)) {
            drop(self.changed.wait_timeout(partitions, IDLE));
        }
    }

    /// Waits until a partition may be without a leader, unless one is.
    fn wait_for_the_lost(&self) {
        let partitions = self.partitions();
        if !self.has_stopped() && !partitions.iter().any(|p| p.leader() == NOBODY) {
            drop(self.changed.wait_timeout(partitions, IDLE));
        }
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeMap<i32, link::Address>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let _held = self.partitions();
        self.changed.notify_all();
    }

    /// There is room again.
    fn feed(&self) {
        if self.hungry.swap(false, Ordering::SeqCst) {
            self.tell();
        }
    }

    /// The broker is not to be asked for these any more, until it is known who leads them.
    fn lost<'a>(&self, partitions: impl IntoIterator<Item = &'a Arc<Partition>>) {
        partitions.into_iter().for_each(|p| p.leader.store(NOBODY, Ordering::Release));
        self.tell();
    }
}

/// The links to all brokers; dropping it ends them.
pub(super) struct Direct {
    shared: Arc<Shared>,
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.tell();
    }
}

impl Direct {
    /// None: librdkafka is to read, because it was asked for, or alone knows how to reach these brokers, or because they do
    /// not know topics by their ids (before Kafka 3.1). `topic`: one that is to be read.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub(super) fn new(
        consumer: &Arc<Consumer>,
        settings: &KafkaSettings,
        topic: &str,
    ) -> Result<Option<Self>, SourceError> {
        if !suits(settings) || !leaders::know_topic_ids(consumer, topic, settings.connect_timeout) {
            return Ok(None);
        }
        let shared = Arc::new(Shared {
            consumer: consumer.clone(),
            options: Options::new(&settings.properties),
            pool: Arc::default(),
            partitions: Mutex::default(),
            addresses: Mutex::default(),
            changed: Condvar::new(),
            hungry: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        leaders::start(&shared).map_err(SourceError::Thread)?;
        tracing::info!("sources are read without librdkafka");
        Ok(Some(Self { shared }))
    }

    /// Reads a partition from `start` on. None: its topic has no id.
    pub(super) fn open(
        &self,
        source: u16,
        (origin, topic_id, start): (Arc<Origin>, Option<&str>, i64),
        (header, wants_headers): (Option<Arc<CsvHeader>>, bool),
        wake: Thread,
    ) -> Option<DirectFeed> {
        let partition = Arc::new(Partition {
            origin,
            topic: wire::topic_id(topic_id?)?,
            next: AtomicI64::new(start),
            leader: AtomicI32::new(NOBODY),
            stable: AtomicI64::new(-1),
            queue: Mutex::default(),
            wake,
        });
        self.shared.partitions().push(partition.clone());
        self.shared.tell();
        Some(DirectFeed::new(self.shared.clone(), partition, source, header, wants_headers))
    }
}

/// Whether all that is said of the brokers is something that is known here.
fn suits(settings: &KafkaSettings) -> bool {
    let plain = settings.properties.get("security.protocol").is_none_or(|p| p.eq_ignore_ascii_case("plaintext"));
    settings.direct && plain && !FOREIGN.iter().any(|name| settings.properties.contains_key(*name))
}
