//! Who leads which partition, as librdkafka's metadata has it.

use super::link::{self, Connection};
use super::wire::FETCH_VERSION;
use super::{NOBODY, Shared};
use crate::source::kafka::client::Consumer;
use rdkafka::consumer::Consumer as _;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the cluster may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often those without a leader are looked for at most.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a broker of the cluster can be reached as it is, and knows topics by their ids.
pub(super) fn know_topic_ids(consumer: &Consumer, topic: &str, timeout: Duration) -> bool {
    let Ok(metadata) = consumer.base().fetch_metadata(Some(topic), timeout) else { return false };
    let connected = metadata.brokers().iter().find_map(|broker| {
        let address = (broker.host().to_string(), u16::try_from(broker.port()).ok()?);
        Connection::open(&address, timeout).ok()
    });
    match connected {
        Some(connection) if connection.fetch_version >= FETCH_VERSION => true,
        Some(connection) => {
            tracing::info!(fetch = connection.fetch_version, "the brokers do not know topic ids; librdkafka reads");
            false
        }
        None => {
            tracing::info!("no broker can be reached without librdkafka; it reads");
            false
        }
    }
}

/// Starts the thread that finds leaders and starts a link to each.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = shared.clone();
    let thread = move || {
        let mut linked = BTreeSet::new();
        while !shared.has_stopped() {
            let without = shared.led_by(NOBODY);
            if without.is_empty() {
                shared.wait_for_the_lost();
                continue;
            }
            let topics: BTreeSet<_> = without.iter().map(|p| p.origin.name.clone()).collect();
            for topic in topics {
                find(&shared, &topic, &mut linked);
            }
            std::thread::park_timeout(PAUSE);
        }
    };
    std::thread::Builder::new().name("kafka-leaders".into()).spawn(thread).map(drop)
}

/// Finds the leaders of a topic's partitions, as far as there are some.
fn find(shared: &Arc<Shared>, topic: &str, linked: &mut BTreeSet<i32>) {
    let metadata = match shared.consumer.base().fetch_metadata(Some(topic), TIMEOUT) {
        Ok(metadata) => metadata,
        Err(error) => return tracing::debug!(topic, %error, "no leaders are known"),
    };
    let brokers: BTreeMap<i32, _> = metadata.brokers().iter().map(|b| (b.id(), b)).collect();
    let found = metadata.topics().iter().filter(|t| t.name() == topic).flat_map(|t| t.partitions());
    let leaders: BTreeMap<i32, i32> = found.map(|p| (p.id(), p.leader())).collect();
    for partition in shared.led_by(NOBODY).iter().filter(|p| *p.origin.name == *topic) {
        let leader = leaders.get(&partition.origin.partition).copied().unwrap_or(NOBODY);
        let Some(broker) = brokers.get(&leader) else { continue };
        let address = (broker.host().to_string(), broker.port() as u16);
        if linked.insert(leader)
            && let Err(error) = link::start(shared, leader)
        {
            linked.remove(&leader);
            tracing::warn!(%error, "a thread can't be started");
            continue;
        }
        shared.addresses().insert(leader, address);
        partition.leader.store(leader, Ordering::Release);
    }
    shared.tell();
}
