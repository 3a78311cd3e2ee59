//! The transactional producer. See [`crate::kafka`].

use super::partitioner::partition;
use super::topics::partitions;
use super::trim::Trimmer;
use super::{KafkaConfig, KafkaError, dead_letter_topic, progress_topic, read_progress, topic_name};
use crate::failpoint;
use crate::outlet::{DeadLetter, LiveOutput, Outlet, OutletError};
use crate::progress::local::to_json;
use crate::progress::{Claim, ProgressEntry, ProgressError, ProgressLog, ProgressRecord, first_needed};
use drivetrain_schemas::table::Topic;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// A dead letter's payload is cut here, so that it fits a record; the table `rejects` has it whole.
const MOST_PAYLOAD: usize = 900_000;
/// Largest record: a progress record of many epochs or files. The progress topic is created with room for it.
pub(super) const MOST_RECORD: &str = "16000000";
/// How long to wait before it is asked again whether deliveries have come: a part of what one takes.
const NAP: Duration = Duration::from_micros(200);
/// How long a broker may be away before a commit fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keeps the first delivery that failed, and where the newest progress entry stands. rdkafka calls it from `poll` and
/// `flush`.
#[derive(Debug, Default)]
struct Deliveries {
    failed: Mutex<Option<ClientError>>,
    /// The progress topic.
    progress: String,
    offset: AtomicI64,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info => tracing::debug!(facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
            _ => tracing::error!(facility, "{message}"),
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        tracing::warn!("Kafka client: {error}: {reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) if message.topic() == self.progress => self.offset.store(message.offset(), Ordering::Relaxed),
            Ok(_) => {}
            Err((error, _)) => {
                if let Ok(mut failed) = self.failed.lock() {
                    failed.get_or_insert(error.clone());
                }
            }
        }
    }
}

/// The outlet with Kafka.
pub struct TransactionalSink {
    config: KafkaConfig,
    job: String,
    producer: BaseProducer<Deliveries>,
    /// Each topic's name and number of partitions.
    topics: BTreeMap<Topic, (String, usize)>,
    dead_letter: (String, usize),
    progress: String,
    /// Our own commits that are still in the log: newest epoch and offset of each.
    commits: VecDeque<(Option<i64>, i64)>,
    /// The newest epoch of the record that was appended last.
    appended: Option<i64>,
    /// What earlier instances have committed; their records' offsets are not known here.
    resumed: i64,
    trimmer: Option<Trimmer>,
}

impl TransactionalSink {
    /// Connects as the job's only writer: from here on an earlier producer of the job is fenced. The topics must exist
    /// ([`super::ensure_topics`]).
    ///
    /// # Errors
    /// When a property is not known or wrong, no broker answers within a minute, or one does not know the topics.
    pub fn connect(config: &KafkaConfig, job: &str) -> Result<Self, KafkaError> {
        let defaults = [
            ("compression.type", "lz4"),
            ("linger.ms", "1"),
            ("retry.backoff.ms", "5"),
            ("retry.backoff.max.ms", "100"),
            ("message.max.bytes", MOST_RECORD),
            ("queue.buffering.max.messages", "1000000"),
        ];
        let fixed = [("transactional.id", job), ("enable.idempotence", "true"), ("acks", "all")];
        let client = config.client(&defaults, &fixed);
        let progress = progress_topic(config, job);
        let producer: BaseProducer<Deliveries> = client
            .create_with_context(Deliveries { progress: progress.clone(), ..Deliveries::default() })
            .map_err(|e| config.error("cannot create the Kafka producer", &e))?;
        let partitions = partitions(config, job, &producer)?;
        let counted = |name: String| {
            let count = partitions.get(&name).copied().unwrap_or(1);
            (name, count)
        };
        let topics = Topic::ALL.into_iter().map(|t| (t, counted(topic_name(config, t)))).collect();
        let dead_letter = counted(dead_letter_topic(config));
        let sink = Self {
            config: config.clone(),
            job: job.to_string(),
            producer,
            topics,
            dead_letter,
            progress,
            commits: VecDeque::new(),
            appended: None,
            resumed: -1,
            trimmer: None,
        };
        sink.retry("cannot initialise transactions", |p| p.init_transactions(PATIENCE))?;
        Ok(sink)
    }

    /// Repeats a transactional call while the client says that it may be repeated.
    fn retry(
        &self,
        action: &str,
        call: impl Fn(&BaseProducer<Deliveries>) -> Result<(), ClientError>,
    ) -> Result<(), KafkaError> {
        let start = Instant::now();
        loop {
            match call(&self.producer) {
                Ok(()) => return Ok(()),
                Err(ClientError::Transaction(e)) if e.is_retriable() && start.elapsed() < PATIENCE => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err(e) => return Err(self.error(action, &e)),
            }
        }
    }

    fn error(&self, action: &str, error: &ClientError) -> KafkaError {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| code);
        let code = fatal.or(error.rdkafka_error_code());
        match code {
            Some(
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => KafkaError::Fenced { job: self.job.clone() },
            _ => self.config.error(action, error),
        }
    }

    /// Sends a record; waits while the client's queue is full.
    fn send(
        &self,
        topic: &str,
        partition: Option<usize>,
        key: Option<&str>,
        payload: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Result<(), KafkaError> {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic);
        record.partition = partition.map(|p| p as i32);
        record.key = key;
        record.payload = payload;
        record.headers = headers;
        // The clock is asked only where there is something to wait for: this is once a change.
        let mut since = None;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((ClientError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if since.get_or_insert_with(Instant::now).elapsed() < PATIENCE =>
                {
                    self.producer.poll(Duration::from_millis(5));
                    record = back;
                }
                Err((e, _)) => return Err(self.error(&format!("cannot write to topic {topic}"), &e)),
            }
        }
    }

    fn dead_letter(&self, letter: &DeadLetter) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &letter.headers() {
            headers = headers.insert(Header { key, value: Some(value.as_str()) });
        }
        let mut payload = letter.reject.payload.as_deref();
        if let Some(bytes) = payload.filter(|p| p.len() > MOST_PAYLOAD) {
            payload = Some(&bytes[..MOST_PAYLOAD]);
            headers = headers.insert(Header { key: "truncated_from", value: Some(&bytes.len().to_string()) });
        }
        let partition = self.dead_letter_partition(letter);
        self.send(&self.dead_letter.0, Some(partition), None, payload, Some(headers))
    }

    /// Waits until the broker has everything. librdkafka's own flush is not used: with a timeout it polls for 100 ms at a
    /// time, and without one each call makes its threads look at every message that waits, so that a large transaction
    /// takes time with the square of its messages. `linger.ms` sends them by itself. (A poll with a timeout goes on to its
    /// end, whatever comes meanwhile, and spins through the last millisecond of it.)
    #[allow(clippy::disallowed_methods, reason = "librdkafka wakes nobody who does not poll with a timeout")]
    fn flush(&self) -> Result<(), KafkaError> {
        let (mut left, mut since) = (i32::MAX, Instant::now());
        loop {
            self.producer.poll(Duration::ZERO);
            let waiting = self.producer.in_flight_count();
            if waiting == 0 {
                break;
            }
            if waiting < left {
                (left, since) = (waiting, Instant::now());
            } else if since.elapsed() >= PATIENCE {
                let error = ClientError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(self.error("cannot write to Kafka", &error));
            } else {
                std::thread::sleep(NAP);
            }
        }
        let failed = self.producer.context().failed.lock().ok().and_then(|mut f| f.take());
        failed.map_or(Ok(()), |e| Err(self.error("cannot write to Kafka", &e)))
    }

    fn entry(&self, entry: &ProgressEntry) -> Result<(), ProgressError> {
        let json = to_json(entry)?;
        Ok(self.send(&self.progress, None, None, Some(json.as_bytes()), None)?)
    }
}

impl ProgressLog for TransactionalSink {
    fn claim(&mut self, claim: &Claim) -> Result<(), ProgressError> {
        self.retry("cannot begin a transaction", Producer::begin_transaction)?;
        self.entry(&ProgressEntry::Claim(claim.clone()))?;
        self.flush()?;
        Ok(self.retry("cannot commit the claim", |p| p.commit_transaction(PATIENCE))?)
    }

    fn append(&mut self, record: &ProgressRecord) -> Result<(), ProgressError> {
        self.appended = record.last_epoch();
        self.entry(&ProgressEntry::Commit(record.clone()))
    }

    fn read_all(&self) -> Result<Vec<ProgressEntry>, ProgressError> {
        Ok(read_progress(&self.config, &self.job)?)
    }

    /// An instance that was overtaken may do this too: what it deletes, its successor has not needed.
    fn trim(&mut self, checkpoint: i64) -> Result<(), ProgressError> {
        if checkpoint < self.resumed || self.commits.is_empty() {
            return Ok(());
        }
        let first = first_needed(self.commits.iter().map(|c| c.0), checkpoint);
        self.commits.drain(..first);
        let Some((_, offset)) = self.commits.front() else { return Ok(()) };
        failpoint::hit("trim.between")?;
        let trimmer = match &mut self.trimmer {
            Some(trimmer) => trimmer,
            none => none.insert(Trimmer::new(&self.config)?),
        };
        trimmer.trim(&self.progress, *offset);
        Ok(())
    }
}

impl Outlet for TransactionalSink {
    /// The broker has taken back what was not committed.
    fn resume(&mut self, committed: i64) -> Result<(), OutletError> {
        self.resumed = committed;
        Ok(())
    }

    fn partition(&self, topic: Topic, key: &str) -> usize {
        self.topics.get(&topic).map_or(0, |(_, count)| partition(key.as_bytes(), *count))
    }

    /// In turn; those of a file's or partition's neighbourhood need not stand together.
    fn dead_letter_partition(&self, letter: &DeadLetter) -> usize {
        letter.reject.position.unsigned_abs() as usize % self.dead_letter.1.max(1)
    }

    fn begin(&mut self) -> Result<(), OutletError> {
        Ok(self.retry("cannot begin a transaction", Producer::begin_transaction)?)
    }

    fn produce(&mut self, output: &LiveOutput) -> Result<(), OutletError> {
        for change in &output.changes {
            let topic = self.topics.get(&change.topic).map_or("", |(name, _)| name);
            let partition = Some(self.partition(change.topic, &change.key));
            self.send(topic, partition, Some(&change.key), change.value.as_ref().map(String::as_bytes), None)?;
            failpoint::hit("produce.between")?;
        }
        output.dead_letters.iter().try_for_each(|letter| self.dead_letter(letter))?;
        Ok(())
    }

    /// Never called without a progress record before it: librdkafka cannot commit an empty transaction.
    fn commit(&mut self) -> Result<(), OutletError> {
        self.flush()?;
        self.retry("cannot commit the transaction", |p| p.commit_transaction(PATIENCE))?;
        let offset = self.producer.context().offset.load(Ordering::Relaxed);
        self.commits.push_back((self.appended, offset));
        Ok(())
    }
}
