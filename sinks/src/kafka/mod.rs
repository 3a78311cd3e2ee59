//! Kafka: live topics, dead letters and the progress log, written in transactions.
//!
//! ```text
//!  begin ─► upserts, tombstones ─► dead letters ─► progress record ─► flush ─► commit
//!           <prefix><topic>        <prefix>dead_letter  <prefix><job>.progress
//! ```
//!
//! Keys are plain strings, partitioned as Java's producer does (murmur2). The transactional id is the job's name, so a
//! second producer of the job fences the first: of two processes only the newer can commit. Nothing is ever aborted and
//! staged anew in one process; after an error the process ends, and the broker or the next start ends the transaction.
//!
//! A start connects first, which ends an earlier instance's open transaction and fences it, and reads the progress topic
//! then ([`crate::recovery`]): so nothing can be committed behind what it has read, but by its own successor.

mod config;
mod outlet;
mod partitioner;
mod progress;
mod topics;
mod trim;

pub use config::{KafkaConfig, Reader};
pub use outlet::TransactionalSink;
pub use progress::read_progress;
pub use topics::{ensure_topics, fresh};

use drivetrain_schemas::table::{DEAD_LETTER, Topic};
use rdkafka::types::RDKafkaErrorCode;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum KafkaError {
    #[error("{action}: {problem}")]
    Client { action: String, problem: String, retryable: bool },
    #[error(
        "{}. (If no other runs, this one was held up for longer than transaction.timeout.ms: start it again)",
        crate::progress::overtaken_text(.job)
    )]
    Fenced { job: String },
    #[error("these topics are missing and kafka.create_topics is false; create them with\n{commands}")]
    Missing { commands: String },
    #[error(
        "topic {topic} has cleanup.policy={found}, but {expected} is needed; change it with\n  kafka-configs.sh \
         --bootstrap-server {brokers} --alter --entity-type topics --entity-name {topic} --add-config \
         cleanup.policy={expected}"
    )]
    Policy { topic: String, found: String, expected: String, brokers: String },
    #[error("{topic}, offset {offset}: {problem}. The progress log is damaged; start over with --fresh")]
    Damaged { topic: String, offset: i64, problem: String },
    #[error(
        "topic {topic}: the broker did not know it within {seconds} s; let the client describe it, and start again"
    )]
    Unknown { topic: String, seconds: u64 },
    #[error("{action}: the broker did not answer within {seconds} s")]
    Timeout { action: String, seconds: u64 },
}

impl KafkaError {
    /// Whether starting again may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, KafkaError::Client { retryable: true, .. } | KafkaError::Timeout { .. })
    }
}

/// Errors that pass by themselves.
pub(crate) fn is_transient(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::BrokerTransportFailure
            | C::AllBrokersDown
            | C::OperationTimedOut
            | C::MessageTimedOut
            | C::RequestTimedOut
            | C::NotEnoughReplicas
            | C::NotEnoughReplicasAfterAppend
            | C::LeaderNotAvailable
            | C::NotLeaderForPartition
            | C::CoordinatorLoadInProgress
            | C::CoordinatorNotAvailable
            | C::NotCoordinator
            | C::ConcurrentTransactions
            | C::NetworkException
            | C::PurgeQueue
            | C::PurgeInflight
    )
}

/// The full name of a live topic.
pub fn topic_name(config: &KafkaConfig, topic: Topic) -> String {
    format!("{}{}", config.topic_prefix, topic.name())
}

/// The full name of the dead-letter topic.
pub fn dead_letter_topic(config: &KafkaConfig) -> String {
    format!("{}{DEAD_LETTER}", config.topic_prefix)
}

/// The full name of a job's progress topic.
pub fn progress_topic(config: &KafkaConfig, job: &str) -> String {
    format!("{}{job}.progress", config.topic_prefix)
}

#[cfg(test)]
mod tests;
