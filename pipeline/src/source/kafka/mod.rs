//! Kafka topics as input: every partition assigned by hand at a known offset, each with a queue of its own.
//!
//! ```text
//!  broker ─► librdkafka's threads ─► queue of partition 0 ─► batches of ≤ chunk_records messages, not copied
//!         or [`direct`]           └► queue of partition 1 ─► (left alone while alignment holds it back)
//! ```
//!
//! No consumer group is joined; the group's name only serves to commit offsets on the side, for lag monitors.

mod client;
mod direct;
mod messages;
mod topics;

pub(crate) use client::{Client, Opened, Role, Unbound, Wanted};
pub use direct::Fetched;
pub use messages::MessageBatch;

use std::collections::BTreeMap;
use std::time::Duration;

/// Where a topic that has not been read yet is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    /// The first record whose timestamp is not before this, µs since 1970 UTC.
    Time(i64),
}

impl StartAt {
    /// Reads `earliest`, `latest` or an RFC 3339 time.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            _ => drivetrain_schemas::time::parse_rfc3339(text)
                .map(Self::Time)
                .map_err(|_| format!("{text:?} is not `earliest`, `latest` or a time such as 2026-05-01T12:00:00Z")),
        }
    }
}

/// How the cluster is reached and read.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port,host:port`.
    pub brokers: String,
    /// The job's name: the group under which offsets are committed for lag monitors.
    pub group: String,
    pub start: StartAt,
    /// How often new partitions are looked for.
    pub discover: Duration,
    /// How long a broker may take to answer at the start.
    pub connect_timeout: Duration,
    /// Whether offsets are committed for lag monitors.
    pub commit_offsets: bool,
    /// Whether sources may be read without librdkafka (`kafka.reader`).
    pub direct: bool,
    /// Passed through to librdkafka (TLS, SASL, …); they win over what is set here, but for what correctness needs.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    pub fn new(brokers: &str, group: &str) -> Self {
        Self {
            brokers: brokers.to_string(),
            group: group.to_string(),
            start: StartAt::Earliest,
            discover: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            commit_offsets: true,
            direct: true,
            properties: BTreeMap::new(),
        }
    }
}
