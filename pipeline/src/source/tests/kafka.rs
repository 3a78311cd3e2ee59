use super::*;
use drivetrain_schemas::control::ControlKind;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, TopicPartitionList};
use std::collections::BTreeMap;

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
}

impl Cluster {
    fn new(topics: &[(&str, i32)]) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions, 1).unwrap();
        }
        let producer = ClientConfig::new()
            .set("bootstrap.servers", mock.bootstrap_servers())
            .set("queue.buffering.max.messages", "1000000")
            .create()
            .unwrap();
        Self { mock, producer }
    }

    /// Sends to `partition` what has the event time `t`, in s; the Kafka timestamp is a second later (0 means now).
    fn send(&self, topic: &str, partition: i32, t: i64) {
        let headers = OwnedHeaders::new().insert(Header { key: "h", value: Some(&format!("h{t}")) });
        let (key, payload) = (format!("k{t}"), format!("{{\"t\":{t}}}"));
        let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&payload);
        self.producer.send(record.headers(headers).timestamp((t + 1) * 1000)).unwrap();
    }

    fn document(&self, topic: &str, key: &str, payload: Option<&str>) {
        let mut record = BaseRecord::<str, str>::to(topic).partition(0).key(key);
        record.payload = payload;
        self.producer.send(record).unwrap();
    }

    fn flush(&self) {
        self.producer.flush(Duration::from_secs(10)).unwrap();
    }

    fn job(&self, topics: &str) -> Job {
        let mut job = job(vec![source("s", &format!("topics = [{topics}]\nfields.vehicle = '$header.h'"))], &[]);
        let mut settings = KafkaSettings::new(&self.mock.bootstrap_servers(), "job");
        settings.discover = Duration::from_millis(200);
        job.input.kafka = Some(settings);
        job.mode = Mode::Run;
        job.epochs.chunk_records = 64;
        job.epochs.max_records = 500;
        job.epochs.idle_after = Duration::from_millis(300);
        job
    }
}

fn bound(tickets: &[Ticket]) -> i64 {
    let mut ends = BTreeMap::new();
    for b in tickets.iter().flat_map(|t| &t.bindings) {
        ends.insert(b.origin.clone(), b.end);
    }
    ends.values().sum()
}

#[test]
fn all_records_of_all_partitions_with_key_header_and_time() {
    let cluster = Cluster::new(&[("t", 4)]);
    (0..4000).for_each(|t| cluster.send("t", (t % 4) as i32, t));
    cluster.flush();
    let running = launch(cluster.job("'t'"));
    let workers = running.workers.clone();
    let (outcome, result) = running.finish(|tickets| bound(tickets) >= 4000);
    assert_eq!(result.unwrap().records, 4000);
    assert!(workers.iter().all(|w| w.is_empty()));
    let mut times: Vec<i64> = Vec::new();
    let mut next = BTreeMap::<i32, i64>::new();
    for ticket in &outcome.tickets[1..] {
        for b in &ticket.bindings {
            assert!(b.end > next.insert(b.origin.partition, b.end).unwrap_or(0));
        }
    }
    assert_eq!(next.into_values().collect::<Vec<_>>(), [1000; 4]);
    times.extend(outcome.records().iter().map(|(_, _, body)| body[5..body.len() - 1].parse::<i64>().unwrap()));
    times.sort();
    assert_eq!(times, (0..4000).collect::<Vec<_>>());
    assert_eq!(outcome.tickets[0].bindings.iter().map(|b| b.end).collect::<Vec<_>>(), [0; 4]);
    assert!(outcome.stopped && !outcome.tickets.last().unwrap().end, "a stop is not the end of the input");
}

#[test]
fn offsets_that_were_not_committed_are_committed_again() {
    let cluster = Cluster::new(&[("t", 1)]);
    (0..100).for_each(|t| cluster.send("t", 0, t));
    cluster.flush();
    // The first try is refused, and nothing more comes that could be the occasion of another.
    let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED];
    cluster.mock.request_errors(RDKafkaApiKey::OffsetCommit, &refusal);
    let job = cluster.job("'t'");
    let settings = job.input.kafka.clone().unwrap();
    let monitor =
        ClientConfig::new().set("bootstrap.servers", settings.brokers).set("group.id", settings.group).clone();
    let monitor: BaseConsumer = monitor.create().unwrap();
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        let list = monitor.committed_offsets(list, Duration::from_secs(5)).ok()?;
        list.find_partition("t", 0)?.offset().to_raw()
    };
    let (_, result) = launch(job).finish(|tickets| bound(tickets) >= 100 && committed() == Some(100));
    assert_eq!(result.unwrap().records, 100);
}

#[test]
fn a_backlog_is_read_in_large_epochs() {
    let cluster = Cluster::new(&[("t", 2)]);
    (0..20_000).for_each(|t| cluster.send("t", (t % 2) as i32, t));
    cluster.flush();
    let mut job = cluster.job("'t'");
    job.epochs.max_records = 8_000;
    // By time each chunk of 64 would be an epoch.
    job.epochs.interval = Duration::ZERO;
    let (outcome, result) = launch(job).finish(|tickets| bound(tickets) >= 20_000);
    assert_eq!(result.unwrap().records, 20_000);
    let ends = outcome.tickets.iter().enumerate().map(|(i, _)| bound(&outcome.tickets[..=i]));
    let ends: Vec<i64> = ends.collect();
    let largest = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!((2_000..=8_000).contains(&largest), "{ends:?}");
}

#[test]
fn positions_are_continuous_and_a_message_outlives_the_source_thread() {
    let cluster = Cluster::new(&[("t", 2)]);
    (0..600).for_each(|t| cluster.send("t", (t % 2) as i32, t));
    cluster.flush();
    let running = launch(cluster.job("'t'"));
    let mut tickets = Vec::new();
    while bound(&tickets) < 600 {
        let Ok(Message::Ticket(ticket)) = running.tickets.recv_timeout(Duration::from_secs(20)) else {
            panic!("stuck")
        };
        running.committed.store(ticket.epoch, Ordering::Release);
        tickets.push(ticket);
    }
    running.stop.store(true, Ordering::Relaxed);
    running.thread.join().unwrap().unwrap();
    let mut seen = BTreeMap::<i32, Vec<i64>>::new();
    for message in running.workers.iter().flat_map(|w| w.try_iter()) {
        let ToWorker::Chunk { chunk, .. } = message else { continue };
        chunk.for_each(|r| {
            let t = r.position * 2 + i64::from(chunk.origin.partition);
            assert_eq!(body(&r), format!("{{\"t\":{t}}}"));
            assert_eq!(r.key, Some(format!("k{t}").as_bytes()));
            assert_eq!(r.headers, [("h", Some(format!("h{t}").as_bytes()))]);
            assert_eq!(r.timestamp, Some((t + 1) * 1_000_000));
            seen.entry(chunk.origin.partition).or_default().push(r.position);
        });
    }
    for positions in seen.values_mut() {
        positions.sort();
        assert_eq!(*positions, (0..300).collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn bindings_repeat_a_run_over_topics() {
    let cluster = Cluster::new(&[("t", 3)]);
    (0..900).for_each(|t| cluster.send("t", (t % 3) as i32, t));
    cluster.flush();
    let (recorded, _) = launch(cluster.job("'t'")).finish(|tickets| bound(tickets) >= 900);
    (900..1200).for_each(|t| cluster.send("t", (t % 3) as i32, t));
    cluster.flush();
    let mut again = cluster.job("'t'");
    again.epochs.chunk_records = 7;
    again.plan = Plan { tickets: recorded.tickets.clone(), go_on: false };
    let (again, result) = launch(again).finish(|_| false);
    result.unwrap();
    assert_eq!(again.epochs, recorded.epochs);
    assert_eq!(again.tickets, recorded.tickets);

    // A restart in its midst goes on behind the recorded epochs.
    let mut rest = cluster.job("'t'");
    rest.resume = Some(Resume {
        next_epoch: recorded.tickets.len() as i64,
        bindings: recorded.tickets.iter().flat_map(|t| t.bindings.clone()).collect(),
        ..Resume::default()
    });
    rest.committed.store(recorded.tickets.len() as i64 - 1, Ordering::Relaxed);
    let (rest, _) = launch(rest).finish(|tickets| bound(tickets) >= 1200);
    let times: Vec<_> = rest.records();
    assert_eq!(times.len(), 300);
    assert!(times.iter().all(|(_, position, _)| *position >= 300));
}

#[test]
fn a_partition_far_ahead_is_held_back_and_an_empty_one_holds_nobody() {
    let cluster = Cluster::new(&[("a", 1), ("b", 2)]);
    (0..3000).for_each(|t| cluster.send("a", 0, t));
    (0..3000).for_each(|t| cluster.send("b", 0, t));
    cluster.flush();
    let mut job = cluster.job("'a', 'b'");
    job.epochs.max_records = 64;
    let (outcome, _) = launch(job).finish(|tickets| bound(tickets) >= 6000);
    let mut ends = BTreeMap::<String, i64>::new();
    for ticket in &outcome.tickets[1..] {
        for b in &ticket.bindings {
            ends.insert(b.origin.name.to_string(), b.end);
        }
        let (a, b) = (ends.get("a").copied().unwrap_or(0), ends.get("b").copied().unwrap_or(0));
        assert!((a - b).abs() <= 61, "{a} and {b}");
    }
    let empty = |t: &Ticket| t.idle.iter().any(|o| &*o.name == "b" && o.partition == 1);
    assert!(outcome.tickets.iter().any(empty), "the empty partition is idle");
}

#[test]
fn idle_partitions_are_told_and_wake_up_again() {
    let cluster = Cluster::new(&[("t", 1)]);
    cluster.send("t", 0, 1);
    cluster.flush();
    let stage = std::sync::atomic::AtomicUsize::new(0);
    let (outcome, _) = launch(cluster.job("'t'")).finish(|tickets| {
        let last = tickets.last().unwrap();
        match stage.load(Ordering::Relaxed) {
            0 if bound(tickets) == 1 && last.idle.len() == 1 => {
                stage.store(1, Ordering::Relaxed);
                cluster.send("t", 0, 2);
                cluster.flush();
            }
            1 if bound(tickets) == 2 => stage.store(2, Ordering::Relaxed),
            _ => {}
        }
        stage.load(Ordering::Relaxed) == 2
    });
    let with_data = |end| outcome.tickets.iter().find(|t| t.epoch > 0 && t.bindings.iter().any(|b| b.end == end));
    assert!(with_data(1).unwrap().idle.is_empty());
    assert!(with_data(2).unwrap().idle.is_empty());
}

#[test]
fn control_topics_are_read_first_and_followed() {
    let cluster = Cluster::new(&[("t", 1), ("fleets", 1)]);
    cluster.document("fleets", "x", Some("{\"fleet_id\":\"a\"}"));
    cluster.document("fleets", "y", Some("{\"fleet_id\":\"b\"}"));
    cluster.document("fleets", "z", Some("not json"));
    cluster.document("fleets", "y", None);
    cluster.flush();
    let mut job = cluster.job("'t'");
    job.reference.topics = vec![(ControlKind::Fleets, "fleets".into())];
    let (outcome, _) = launch(job).finish(|tickets| {
        if tickets.len() == 1 {
            cluster.document("fleets", "x", Some("{\"fleet_id\":\"c\"}"));
            cluster.flush();
        }
        tickets.iter().any(|t| t.epoch > 0 && !t.control.is_empty())
    });
    let keys = |t: &Ticket| t.control.iter().map(|c| (c.key.to_string(), c.document.is_some())).collect::<Vec<_>>();
    assert_eq!(keys(&outcome.tickets[0]), [("a".to_string(), true)]);
    let later: Vec<_> = outcome.tickets[1..].iter().flat_map(keys).collect();
    assert_eq!(later, [("a".to_string(), false), ("c".to_string(), true)]);
    assert_eq!(outcome.rejects.len(), 1);
    assert_eq!(outcome.rejects[0].position, 2);
}

#[test]
fn start_at_the_latest_or_at_a_time() {
    let cluster = Cluster::new(&[("t", 1)]);
    (0..10).for_each(|t| cluster.send("t", 0, t));
    cluster.flush();
    let mut job = cluster.job("'t'");
    if let Some(kafka) = &mut job.input.kafka {
        kafka.start = StartAt::Latest;
    }
    let (outcome, _) = launch(job).finish(|tickets| {
        if tickets.len() == 1 {
            cluster.send("t", 0, 10);
            cluster.flush();
        }
        bound(tickets) == 11
    });
    assert_eq!(outcome.tickets[0].bindings[0].end, 10);
    assert_eq!(outcome.records().len(), 1);
    assert_eq!(StartAt::parse("1970-01-01T00:00:01Z"), Ok(StartAt::Time(1_000_000)));
    assert!(StartAt::parse("newest").is_err());
}

#[test]
fn an_unknown_topic_and_an_absent_broker_are_named() {
    let cluster = Cluster::new(&[("t", 1)]);
    let (outcome, result) = launch(cluster.job("'t', 'nope'")).finish(|_| false);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("nope") && outcome.failed == Some(error));
    let mut job = cluster.job("'t'");
    let mut settings = KafkaSettings::new("127.0.0.1:1", "job");
    settings.connect_timeout = Duration::from_secs(1);
    job.input.kafka = Some(settings);
    let (_, result) = launch(job).finish(|_| false);
    let error = result.unwrap_err();
    assert!(matches!(&error, SourceError::Brokers { brokers, .. } if brokers == "127.0.0.1:1"), "{error}");
}
