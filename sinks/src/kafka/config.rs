//! The section `[kafka]` of the configuration, and clients made from it without letting a secret out.

use super::KafkaError;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError as ClientError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How to reach Kafka.
///
/// ```toml
/// [kafka]
/// brokers = "broker-1:9092,broker-2:9092"
/// topic_prefix = "fleet."
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// Stands before the name of each topic that we write; empty by default.
    pub topic_prefix: String,
    /// Create topics that are missing (default true); else the job refuses to start and prints the commands.
    pub create_topics: bool,
    /// Where a source without progress begins: `earliest` (default), `latest`, or a time such as
    /// `2026-05-01T00:00:00Z`.
    pub start: String,
    /// Partitions of topics that we create; 4 by default.
    pub partitions: i32,
    /// Their replication factor; -1 (default): the broker's own default.
    pub replication: i32,
    /// Who reads the sources' topics: `auto` (default) or `librdkafka`. With `auto` we do it ourselves, which is faster,
    /// where the brokers are reached without TLS and SASL and know topic ids (Kafka 3.1); else librdkafka does.
    pub reader: Reader,
    /// Passed through to librdkafka, such as `security.protocol`. Secrets come from the environment:
    /// `DRIVETRAIN_KAFKA__PROPERTIES__SASL_PASSWORD` sets `sasl.password`.
    pub properties: BTreeMap<String, String>,
}

/// `kafka.reader`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// We, where we know how.
    #[default]
    Auto,
    Librdkafka,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic_prefix: String::new(),
            create_topics: true,
            start: "earliest".to_string(),
            partitions: 4,
            replication: -1,
            reader: Reader::Auto,
            properties: BTreeMap::new(),
        }
    }
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("create_topics", &self.create_topics)
            .field("start", &self.start)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("reader", &self.reader)
            .field("properties", &self.masked_properties())
            .finish()
    }
}

/// Properties whose values may be shown; all others might be secret.
const PUBLIC: [&str; 13] = [
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "client.id",
    "compression.type",
    "linger.ms",
    "batch.size",
    "message.max.bytes",
    "message.timeout.ms",
    "transaction.timeout.ms",
    "socket.timeout.ms",
    "retry.backoff.ms",
    "ssl.ca.location",
];

impl KafkaConfig {
    /// The properties as they may be shown: those that may be secret are `***`.
    pub fn masked_properties(&self) -> BTreeMap<&str, &str> {
        let show = |k: &str| PUBLIC.contains(&k);
        self.properties.iter().map(|(k, v)| (k.as_str(), if show(k) { v.as_str() } else { "***" })).collect()
    }

    /// Whether librdkafka knows each property and can use its value. Connects to nothing.
    ///
    /// # Errors
    /// `kafka.properties.<name>: …`, without a value that might be secret.
    pub fn check_properties(&self) -> Result<(), String> {
        match self.client(&[], &[]).create_native_config() {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("{}; librdkafka's CONFIGURATION.md lists what there is", self.problem(&e))),
        }
    }

    /// A client's configuration: `ours` first, then what the user passes through, then what must be as it is.
    pub(crate) fn client(&self, ours: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        let passed = self.properties.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        for (key, value) in ours.iter().copied().chain(passed).chain(fixed.iter().copied()) {
            config.set(key, value);
        }
        config
    }

    /// An error of the client with every value that might be secret masked.
    pub(crate) fn error(&self, action: &str, error: &ClientError) -> KafkaError {
        let code = error.rdkafka_error_code();
        KafkaError::Client {
            action: action.to_string(),
            problem: self.problem(error),
            retryable: code.is_some_and(super::is_transient),
        }
    }

    fn problem(&self, error: &ClientError) -> String {
        let mut text = match error {
            // Its own text has the property's value.
            ClientError::ClientConfig(_, problem, key, _) => format!("kafka.properties.{key}: {problem}"),
            other => other.to_string(),
        };
        let secret = self.properties.iter().filter(|(k, v)| !PUBLIC.contains(&k.as_str()) && v.len() > 3);
        for (_, value) in secret {
            text = text.replace(value.as_str(), "***");
        }
        text
    }
}
