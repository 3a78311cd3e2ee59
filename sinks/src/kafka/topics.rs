//! The topics that we write: created when missing, refused when they would lose data.

use super::outlet::MOST_RECORD;
use super::{KafkaConfig, KafkaError, dead_letter_topic, progress_topic, topic_name};
use drivetrain_schemas::table::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// A topic as it must be.
struct Wanted {
    name: String,
    policy: &'static str,
    partitions: i32,
    settings: Vec<(&'static str, &'static str)>,
}

fn wanted(config: &KafkaConfig, job: &str) -> Vec<Wanted> {
    let partitions = config.partitions;
    let live = Topic::ALL.map(|topic| Wanted {
        name: topic_name(config, topic),
        policy: "compact",
        partitions,
        settings: vec![],
    });
    let mut all: Vec<Wanted> = live.into();
    all.push(Wanted { name: dead_letter_topic(config), policy: "delete", partitions, settings: vec![] });
    all.push(Wanted {
        name: progress_topic(config, job),
        policy: "delete",
        partitions: 1,
        settings: vec![("retention.ms", "-1"), ("max.message.bytes", MOST_RECORD)],
    });
    all
}

/// Makes sure that all topics of the job exist and have the right `cleanup.policy`. Returns those that it created.
///
/// # Errors
/// [`KafkaError::Missing`] with the commands to run when topics are missing and `create_topics` is false;
/// [`KafkaError::Policy`] when one has a wrong policy; else when no broker answers.
pub fn ensure_topics(config: &KafkaConfig, job: &str) -> Result<Vec<String>, KafkaError> {
    let admin = admin(config)?;
    let existing = existing(config, &admin)?;
    let wanted = wanted(config, job);
    let (there, missing): (Vec<&Wanted>, Vec<&Wanted>) = wanted.iter().partition(|w| existing.contains(&w.name));
    check_policies(config, &admin, &there)?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !config.create_topics {
        let commands: Vec<String> = missing.iter().map(|w| command(config, w)).collect();
        return Err(KafkaError::Missing { commands: commands.join("\n") });
    }
    create(config, &admin, &missing)
}

/// Deletes the topics of the job, for `--fresh`, and returns those that were there. [`ensure_topics`] makes them again.
///
/// # Errors
/// When the broker refuses, or `create_topics` is false and there is something to delete: then nothing is done, and
/// the commands to run are told.
pub fn fresh(config: &KafkaConfig, job: &str) -> Result<Vec<String>, KafkaError> {
    let admin = admin(config)?;
    let existing = existing(config, &admin)?;
    let names: Vec<String> = wanted(config, job).into_iter().map(|w| w.name).filter(|n| existing.contains(n)).collect();
    if names.is_empty() {
        return Ok(names);
    }
    if !config.create_topics {
        let commands: Vec<String> = names
            .iter()
            .map(|n| format!("  kafka-topics.sh --bootstrap-server {} --delete --topic {n}", config.brokers))
            .collect();
        let problem = format!("kafka.create_topics is false; delete and create them yourself\n{}", commands.join("\n"));
        return Err(KafkaError::Client { action: "cannot start over".into(), problem, retryable: false });
    }
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    let results =
        block_on(admin.delete_topics(&list, &options())).map_err(|e| config.error("cannot delete topics", &e))?;
    check_results(config, "cannot delete topic", results, RDKafkaErrorCode::UnknownTopicOrPartition)?;
    wait_until_gone(config, &admin, &names)?;
    Ok(names)
}

/// How many partitions each of the job's topics has. A broker may not know yet of a topic that was just created, and a
/// guess would put a key where its later values do not come: so it is asked until it knows all of them.
///
/// # Errors
/// [`KafkaError::Unknown`] when it does not within [`PATIENCE`].
pub(super) fn partitions<C: rdkafka::producer::ProducerContext<NoCustomPartitioner>>(
    config: &KafkaConfig,
    job: &str,
    producer: &BaseProducer<C>,
) -> Result<BTreeMap<String, usize>, KafkaError> {
    let start = std::time::Instant::now();
    loop {
        let metadata = producer.client().fetch_metadata(None, PATIENCE);
        let metadata = metadata.map_err(|e| config.error("cannot list topics", &e))?;
        let known = metadata.topics().iter().filter(|t| t.error().is_none() && !t.partitions().is_empty());
        let known: BTreeMap<_, _> = known.map(|t| (t.name().to_string(), t.partitions().len())).collect();
        match wanted(config, job).into_iter().find(|w| !known.contains_key(&w.name)) {
            None => return Ok(known),
            Some(Wanted { name: topic, .. }) if start.elapsed() >= PATIENCE => {
                return Err(KafkaError::Unknown { topic, seconds: PATIENCE.as_secs() });
            }
            // The broker tells nobody when it does.
            Some(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

pub(super) fn admin(config: &KafkaConfig) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    config.client(&[], &[]).create().map_err(|e| config.error("cannot create the Kafka client", &e))
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn existing(config: &KafkaConfig, admin: &AdminClient<DefaultClientContext>) -> Result<BTreeSet<String>, KafkaError> {
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).map_err(|e| config.error("cannot list topics", &e))?;
    Ok(metadata.topics().iter().filter(|t| t.error().is_none()).map(|t| t.name().to_string()).collect())
}

fn check_policies(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&Wanted],
) -> Result<(), KafkaError> {
    let resources: Vec<ResourceSpecifier<'_>> = topics.iter().map(|w| ResourceSpecifier::Topic(&w.name)).collect();
    if resources.is_empty() {
        return Ok(());
    }
    let action = "cannot read the configuration of topics";
    let results = block_on(admin.describe_configs(&resources, &options())).map_err(|e| config.error(action, &e))?;
    for (wanted, result) in topics.iter().zip(results) {
        let resource = result.map_err(|code| config.error(action, &ClientError::AdminOp(code)))?;
        let found = resource.get("cleanup.policy").and_then(|e| e.value.clone()).unwrap_or_default();
        if found != wanted.policy {
            return Err(KafkaError::Policy {
                topic: wanted.name.clone(),
                found,
                expected: wanted.policy.to_string(),
                brokers: config.brokers.clone(),
            });
        }
    }
    Ok(())
}

fn create(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&Wanted],
) -> Result<Vec<String>, KafkaError> {
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|w| {
            let replication = TopicReplication::Fixed(config.replication);
            let topic = NewTopic::new(&w.name, w.partitions, replication).set("cleanup.policy", w.policy);
            w.settings.iter().fold(topic, |t, (key, value)| t.set(key, value))
        })
        .collect();
    let results =
        block_on(admin.create_topics(&new, &options())).map_err(|e| config.error("cannot create topics", &e))?;
    check_results(config, "cannot create topic", results, RDKafkaErrorCode::TopicAlreadyExists)?;
    Ok(topics.iter().map(|w| w.name.clone()).collect())
}

/// Fails on the first topic that failed with another code than the harmless one.
fn check_results(
    config: &KafkaConfig,
    action: &str,
    results: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    harmless: RDKafkaErrorCode,
) -> Result<(), KafkaError> {
    for result in results {
        match result {
            Err((topic, code)) if code != harmless => {
                return Err(config.error(&format!("{action} {topic}"), &ClientError::AdminOp(code)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Deletion is answered before it is done; a topic made too early would be the old one.
fn wait_until_gone(
    config: &KafkaConfig,
    admin: &AdminClient<DefaultClientContext>,
    names: &[String],
) -> Result<(), KafkaError> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        let existing = existing(config, admin)?;
        if !names.iter().any(|n| existing.contains(n)) {
            return Ok(());
        }
        // The broker tells nobody when it is done.
        std::thread::park_timeout(Duration::from_millis(100));
    }
    Err(KafkaError::Timeout { action: "cannot delete topics".into(), seconds: PATIENCE.as_secs() })
}

/// The command that creates a topic.
fn command(config: &KafkaConfig, wanted: &Wanted) -> String {
    let mut text = format!(
        "  kafka-topics.sh --bootstrap-server {} --create --topic {} --partitions {} --config cleanup.policy={}",
        config.brokers, wanted.name, wanted.partitions, wanted.policy
    );
    if config.replication > 0 {
        text.push_str(&format!(" --replication-factor {}", config.replication));
    }
    for (key, value) in &wanted.settings {
        text.push_str(&format!(" --config {key}={value}"));
    }
    text
}

/// Wakes the thread that waits for a future of the admin client, which is driven by a thread of its own.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_make_what_is_wanted() {
        let config = KafkaConfig { brokers: "b:9092".into(), topic_prefix: "p.".into(), ..KafkaConfig::default() };
        let commands: Vec<String> = wanted(&config, "job").iter().map(|w| command(&config, w)).collect();
        assert_eq!(commands.len(), 7);
        assert!(commands[0].contains("--topic p.driver_scores --partitions 4 --config cleanup.policy=compact"));
        assert!(commands[6].contains("--topic p.job.progress --partitions 1"));
        assert!(commands[6].ends_with("--config retention.ms=-1 --config max.message.bytes=16000000"));
    }
}
