//! The client: finds the topics' partitions, opens each where it is to be begun, and looks for new ones.

use super::direct::Direct;
use super::messages::PartitionFeed;
use super::topics::{Topics, look_up};
use super::{KafkaSettings, StartAt};
use crate::source::error::SourceError;
use crate::source::feed::Feed;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use drivetrain_schemas::control::ControlKind;
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::reading::Origin;
use drivetrain_sinks::message::Binding;
use rdkafka::bindings as rd;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// librdkafka's log goes to ours.
#[derive(Default)]
pub(crate) struct Context {
    /// Offsets were not committed: a broker that has just come back, say, has no coordinator of the group yet.
    commit_failed: AtomicBool,
    /// How many commits of offsets the broker has answered.
    commits_answered: AtomicU64,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::debug!(facility, "kafka: {message}");
            }
            _ => tracing::warn!(facility, "kafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, "kafka: {reason}");
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets for lag monitors were not committed");
            self.commit_failed.store(true, Ordering::Relaxed);
        }
        self.commits_answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The consumer, shared by everything that points into it: it is closed when the last message is gone.
pub(crate) struct Consumer {
    base: BaseConsumer<Context>,
}

impl Consumer {
    pub(crate) fn base(&self) -> &BaseConsumer<Context> {
        &self.base
    }

    pub(crate) fn native(&self) -> *mut rd::rd_kafka_t {
        self.base.client().native_ptr()
    }
}

/// What a topic's records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Records of the source with this index.
    Source(u16),
    Control(ControlKind),
}

/// Where a partition is begun of which nothing is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbound {
    /// Where the configuration says: the job is new.
    Configured,
    /// At its beginning: it is new.
    Earliest,
    /// It is not read: only what is recorded is repeated.
    Left,
}

/// A topic to read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) topic: String,
    pub(crate) role: Role,
    /// Name of the source (or `reference`).
    pub(crate) source: Arc<str>,
    pub(crate) header: Option<Arc<CsvHeader>>,
    pub(crate) wants_headers: bool,
}

/// A partition that is being read now.
pub(crate) struct Opened {
    pub(crate) role: Role,
    pub(crate) topic_id: Option<String>,
    pub(crate) origin: Arc<Origin>,
    /// Offset of the first record that is wanted.
    pub(crate) start: i64,
    pub(crate) feed: Box<dyn Feed>,
}

pub(crate) struct Client {
    consumer: Arc<Consumer>,
    settings: KafkaSettings,
    wanted: Vec<Wanted>,
    topics: Topics,
    unbound: Unbound,
    wake: Thread,
    /// None: librdkafka reads the sources, too.
    direct: Option<Direct>,
    found: Receiver<Result<Topics, SourceError>>,
    /// Dropping it ends the thread that looks for partitions.
    _looking: Sender<()>,
}

impl Client {
    /// Connects, checks the topics, and opens all their partitions: where `bindings` say, else as `unbound` says. Control
    /// topics are always read from the beginning.
    pub(crate) fn open(
        settings: KafkaSettings,
        wanted: Vec<Wanted>,
        bindings: &BTreeMap<Arc<Origin>, Binding>,
        unbound: Unbound,
        wake: Thread,
    ) -> Result<(Self, Vec<Opened>), SourceError> {
        let base: BaseConsumer<Context> = configure(&settings)
            .create_with_context(Context::default())
            .map_err(|e| SourceError::Client(format!("the client can't be made: {e}; check kafka.properties")))?;
        let consumer = Arc::new(Consumer { base });
        let names: Vec<String> = wanted.iter().map(|w| w.topic.clone()).collect();
        if let Some((i, name)) = names.iter().enumerate().find(|(i, n)| names.iter().take(*i).any(|m| m == *n)) {
            let from = wanted.get(i).map(|w| w.source.to_string()).unwrap_or_default();
            let reason = format!("topic {name:?} is read already; name each topic once");
            return Err(SourceError::Config { from, field: "topics", reason });
        }
        let mut topics = look_up(&consumer, &names, &settings.brokers, settings.connect_timeout)?;
        // A broker with much to do may answer with the topics, and too late with their ids.
        let lacks_ids = |topics: &Topics| {
            let mut known = bindings.iter().filter(|(_, b)| b.topic_id.is_some());
            known.any(|(origin, _)| topics.get(&*origin.name).is_some_and(|(_, id)| id.is_none()))
        };
        let until = Instant::now() + 3 * settings.connect_timeout;
        while lacks_ids(&topics) && Instant::now() < until {
            topics = look_up(&consumer, &names, &settings.brokers, settings.connect_timeout)?;
        }
        for (origin, binding) in bindings {
            let (Some((_, now)), Some(was)) = (topics.get(&*origin.name), &binding.topic_id) else { continue };
            let topic = origin.name.to_string();
            match now {
                Some(is) if is == was => {}
                Some(is) => return Err(SourceError::Recreated { topic, was: was.clone(), is: is.clone() }),
                // It may be another one: to read on would be a guess.
                None => return Err(SourceError::NoId { topic, was: was.clone() }),
            }
        }
        let (found, looking) = look_out(&consumer, &settings, names)?;
        let source = wanted.iter().find(|w| matches!(w.role, Role::Source(_)));
        let direct = source.map(|w| Direct::new(&consumer, &settings, &w.topic)).transpose()?.flatten();
        let none = Topics::new();
        let mut client =
            Self { consumer, settings, wanted, topics: none, unbound, wake, direct, found, _looking: looking };
        let opened = client.open_new(topics, |client, topic, partition, origin| match bindings.get(origin) {
            Some(binding) => Ok(Some(binding.end)),
            None => client.unbound_offset(client.settings.start, topic, partition),
        })?;
        Ok((client, opened))
    }

    /// Partitions that have appeared since; they are read from their beginning.
    pub(crate) fn discovered(&mut self) -> Result<Vec<Opened>, SourceError> {
        let Ok(found) = self.found.try_recv() else { return Ok(Vec::new()) };
        let mut topics = match found {
            Ok(topics) => topics,
            Err(error @ SourceError::UnknownTopic { .. }) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "new partitions can't be looked for; trying again");
                return Ok(Vec::new());
            }
        };
        for (name, (_, id)) in &mut topics {
            let Some((_, Some(was))) = self.topics.get(name) else { continue };
            match id {
                Some(is) if is != was => {
                    return Err(SourceError::Recreated { topic: name.clone(), was: was.clone(), is: is.clone() });
                }
                // When the broker does not tell this time, the next answer is compared with what is known.
                id => *id = Some(was.clone()),
            }
        }
        self.open_new(topics, |client, topic, partition, _| client.unbound_offset(StartAt::Earliest, topic, partition))
    }

    /// Serves librdkafka's callbacks: errors, results of commits.
    pub(crate) fn serve(&self) {
        while let Some(event) = self.consumer.base.poll(Duration::ZERO) {
            if let Err(error) = event {
                tracing::debug!(%error, "kafka");
            }
        }
    }

    /// Whether offsets were not committed since this was asked last.
    pub(crate) fn commit_failed(&self) -> bool {
        self.consumer.base.context().commit_failed.swap(false, Ordering::Relaxed)
    }

    /// Commits offsets for lag monitors, without waiting; [`Self::commit_failed`] tells later. Whether the broker was asked.
    pub(crate) fn commit(&self, ends: &BTreeMap<Arc<Origin>, i64>) -> bool {
        if !self.settings.commit_offsets || ends.is_empty() {
            return false;
        }
        let mut list = TopicPartitionList::new();
        for (origin, end) in ends {
            // An offset that the list does not take is no loss: monitors see the next one.
            let _ = list.add_partition_offset(&origin.name, origin.partition, Offset::Offset(*end));
        }
        let asked = self.consumer.base.commit(&list, CommitMode::Async);
        if let Err(error) = &asked {
            tracing::debug!(%error, "offsets for lag monitors were not committed");
            self.consumer.base.context().commit_failed.store(true, Ordering::Relaxed);
        }
        asked.is_ok()
    }

    /// As [`Self::commit`], and waits for the broker's answer, but not for long.
    pub(crate) fn commit_and_wait(&self, ends: &BTreeMap<Arc<Origin>, i64>, patience: Duration) {
        let context = self.consumer.base.context();
        let (before, until) = (context.commits_answered.load(Ordering::Relaxed), Instant::now() + patience);
        let asked = self.commit(ends);
        while asked && context.commits_answered.load(Ordering::Relaxed) == before && Instant::now() < until {
            self.serve();
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Opens every partition that is in `topics`, but not yet in `self.topics`, at its `start`; without one it is not read.
    fn open_new(
        &mut self,
        topics: Topics,
        start: impl Fn(&Self, &str, i32, &Arc<Origin>) -> Result<Option<i64>, SourceError>,
    ) -> Result<Vec<Opened>, SourceError> {
        let mut opened = Vec::new();
        let mut list = TopicPartitionList::new();
        for wanted in &self.wanted {
            let known = self.topics.get(&wanted.topic).map_or(0, |(n, _)| *n);
            let Some((count, id)) = topics.get(&wanted.topic) else { continue };
            for partition in known..*count {
                let name = wanted.topic.as_str().into();
                let origin = Arc::new(Origin { source: wanted.source.clone(), name, partition });
                let (source, start) = match wanted.role {
                    Role::Source(source) => (source, start(self, &wanted.topic, partition, &origin)?),
                    Role::Control(_) => (u16::MAX, Some(self.offset(StartAt::Earliest, &wanted.topic, partition)?)),
                };
                let Some(start) = start else { continue };
                let feed = match self.open_direct(wanted, source, &origin, id.as_deref(), start) {
                    Some(feed) => feed,
                    None => {
                        list.add_partition_offset(&wanted.topic, partition, Offset::Offset(start))
                            .map_err(|e| SourceError::Client(e.to_string()))?;
                        self.open_split(wanted, source, &origin)?
                    }
                };
                opened.push(Opened { role: wanted.role, topic_id: id.clone(), origin, start, feed });
            }
        }
        if list.count() > 0 {
            self.consumer
                .base
                .incremental_assign(&list)
                .map_err(|e| SourceError::Client(format!("partitions can't be assigned: {e}")))?;
        }
        self.topics = topics;
        Ok(opened)
    }

    fn open_direct(
        &self,
        wanted: &Wanted,
        source: u16,
        origin: &Arc<Origin>,
        topic_id: Option<&str>,
        start: i64,
    ) -> Option<Box<dyn Feed>> {
        let direct = self.direct.as_ref().filter(|_| matches!(wanted.role, Role::Source(_)))?;
        let form = (wanted.header.clone(), wanted.wants_headers);
        let feed = direct.open(source, (origin.clone(), topic_id, start), form, self.wake.clone())?;
        Some(Box::new(feed))
    }

    fn open_split(&self, wanted: &Wanted, source: u16, origin: &Arc<Origin>) -> Result<Box<dyn Feed>, SourceError> {
        let (header, wake) = (wanted.header.clone(), self.wake.clone());
        let feed = PartitionFeed::split(&self.consumer, source, origin.clone(), header, wanted.wants_headers, wake)?;
        Ok(Box::new(feed))
    }

    /// Where a partition is begun of which nothing is recorded; `configured` where the job is new.
    fn unbound_offset(&self, configured: StartAt, topic: &str, partition: i32) -> Result<Option<i64>, SourceError> {
        match self.unbound {
            Unbound::Configured => self.offset(configured, topic, partition).map(Some),
            Unbound::Earliest => self.offset(StartAt::Earliest, topic, partition).map(Some),
            Unbound::Left => Ok(None),
        }
    }

    fn offset(&self, start: StartAt, topic: &str, partition: i32) -> Result<i64, SourceError> {
        let failed = |e: KafkaError| SourceError::Client(format!("{topic}/{partition}: no offsets: {e}"));
        let timeout = self.settings.connect_timeout;
        let base = &self.consumer.base;
        let (low, high) = base.fetch_watermarks(topic, partition, timeout).map_err(failed)?;
        match start {
            StartAt::Earliest => Ok(low),
            StartAt::Latest => Ok(high),
            StartAt::Time(micros) => {
                let mut list = TopicPartitionList::new();
                // Kafka counts in ms: the first that is not before a time between two is the next one.
                let millis = Offset::Offset(micros.div_euclid(1000) + i64::from(micros.rem_euclid(1000) > 0));
                list.add_partition_offset(topic, partition, millis).map_err(failed)?;
                let answer = base.offsets_for_times(list, timeout).map_err(failed)?;
                Ok(match answer.find_partition(topic, partition).map(|e| e.offset()) {
                    Some(Offset::Offset(offset)) => offset,
                    _ => high,
                })
            }
        }
    }
}

fn configure(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in [
        // A client whose queue is full sleeps for a second otherwise.
        ("fetch.queue.backoff.ms", "2"),
        ("fetch.wait.max.ms", "100"),
        // What is fetched ahead is memory, a partition's for itself, and most of it in a recovery: 2 MB are some 9,000
        // readings. One answer of the broker may go beyond that, by so much compressed.
        ("fetch.message.max.bytes", "524288"),
        ("queued.min.messages", "50000"),
        ("queued.max.messages.kbytes", "2048"),
        ("topic.metadata.refresh.interval.ms", "60000"),
    ] {
        config.set(key, value);
    }
    for (key, value) in &settings.properties {
        config.set(key, value);
    }
    for (key, value) in [
        ("bootstrap.servers", settings.brokers.as_str()),
        ("group.id", settings.group.as_str()),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("isolation.level", "read_committed"),
        ("allow.auto.create.topics", "false"),
        // An offset that is gone must not be passed over in silence.
        ("auto.offset.reset", "error"),
    ] {
        config.set(key, value);
    }
    config
}

type Lookout = (Receiver<Result<Topics, SourceError>>, Sender<()>);

/// Starts the thread that looks for new partitions, so that asking never holds up the source thread.
fn look_out(consumer: &Arc<Consumer>, settings: &KafkaSettings, names: Vec<String>) -> Result<Lookout, SourceError> {
    let (report, found) = bounded(1);
    let (looking, stopped) = bounded::<()>(0);
    let (consumer, settings) = (consumer.clone(), settings.clone());
    let thread = move || {
        while stopped.recv_timeout(settings.discover) == Err(RecvTimeoutError::Timeout) {
            let topics = look_up(&consumer, &names, &settings.brokers, settings.connect_timeout);
            if report.send(topics).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("kafka-discover".into()).spawn(thread).map_err(SourceError::Thread)?;
    Ok((found, looking))
}
