//! Against a real Apache Kafka: exactly what went in comes out, and other tools read it.

mod support;

use rdkafka::consumer::Consumer;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use support::job::Job;
use support::kafka::Kafka;
use support::topics::{TIMEOUT, consumer, delete_group, latest, read_all, wait_until_read};
use support::world::{drain, hurried, state};
use support::{TABLES, assert_same, drivetrain, every_row, one, peers, repository, run, sql};

/// Counts of the simulator's report: (records, broken by kind).
fn report(stderr: &[u8]) -> (i64, BTreeMap<String, i64>) {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().skip_while(|line| !line.contains(" records: "));
    let records = lines.next().expect("a report").split(' ').next().unwrap().parse().unwrap();
    let kinds = lines.filter_map(|line| {
        let (count, kind) = line.trim().split_once("  ")?;
        Some((kind.trim().to_string(), count.parse().ok()?))
    });
    (records, kinds.collect())
}

#[test]
fn broken_records_are_found_again_and_no_good_one_is_missing() {
    let Some(kafka) = Kafka::start() else { return };
    let brokers = kafka.brokers.as_str();
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let log = scratch.path().join("log");
    // 1,000 vehicles at 1 Hz: about a million records, a thousand of them broken, over four partitions.
    let simulated = run(
        drivetrain()
            .args(["simulate", "--vehicles", "1000", "--for", "24m", "--seed", "5", "--broken", "0.001"])
            .args(["--brokers", brokers, "--topic", "telemetry"]),
        0,
    );
    let (records, broken) = report(&simulated.stderr);
    assert!(records > 900_000 && broken.len() >= 20, "{records} records, {broken:?}");
    let total: i64 = broken.values().sum();
    assert!((900..1_500).contains(&total), "{broken:?}");

    let job = Job::start(&repository("configs/fleet.toml"), &data, brokers, &log);
    wait_until_read(brokers, "telemetry", "fleet", &log);
    assert_eq!(job.stop(), Some(0), "{}", std::fs::read_to_string(&log).unwrap());

    // intake adds up, and accounts for every record.
    let sums = "select sum(records), sum(decoded) + sum(rejected), sum(readings), sum(used) + sum(duplicates) + sum(late), \
                sum(rejected) from intake";
    let intake: Vec<i64> = one(&data, sums).split(',').map(|n| n.parse().unwrap()).collect();
    assert_eq!(intake[0], records);
    assert_eq!(intake[0], intake[1]);
    assert_eq!(intake[2], intake[3]);
    let invalid: i64 = one(&data, "select sum(invalid_values) from intake").parse().unwrap();
    assert!(invalid > 0);
    // Each broken record is rejected or has exactly one broken value; nothing else is.
    assert_eq!(intake[4] + invalid, total, "{broken:?}");

    // Rejects and dead letters are the same records, each with a reason.
    let rejects = sql(&data, "select reason from rejects");
    assert_eq!(rejects.len() as i64, intake[4]);
    assert!(rejects.iter().all(|reason| !reason.is_empty()));
    assert_eq!(read_all(brokers, "dead_letter").len() as i64, intake[4]);

    the_topic_is_what_sql_says(brokers, &data);
    other_tools_agree(brokers, &data);

    // A second start goes on where the first has stopped: nothing is read twice, nothing is left out.
    let more = run(
        drivetrain().args(["simulate", "--vehicles", "100", "--for", "2m", "--seed", "6"]).args([
            "--brokers",
            brokers,
            "--topic",
            "telemetry",
        ]),
        0,
    );
    let (more, _) = report(&more.stderr);
    let job = Job::start(&repository("configs/fleet.toml"), &data, brokers, &log);
    wait_until_read(brokers, "telemetry", "fleet", &log);
    assert_eq!(job.stop(), Some(0), "{}", std::fs::read_to_string(&log).unwrap());
    let intake: Vec<i64> = one(&data, sums).split(',').map(|n| n.parse().unwrap()).collect();
    assert_eq!((intake[0], intake[2]), (records + more, intake[3]));
    the_topic_is_what_sql_says(brokers, &data);
}

/// A read-committed consumer of the driver scores has what SQL on the history gives.
fn the_topic_is_what_sql_says(brokers: &str, data: &Path) {
    let live = latest(brokers, "driver_scores");
    let scores = sql(data, "select driver_id, score, trips from driver_scores where status = 'active' order by 1");
    assert!(scores.len() > 100, "{} drivers", scores.len());
    assert_eq!(scores.len(), live.len());
    for row in scores {
        let cells: Vec<&str> = row.split(',').collect();
        let value = &live[cells[0]];
        assert_eq!(value["score"].as_f64().map(|s| format!("{s:?}")).unwrap_or_default(), cells[1], "{row}");
        assert_eq!(value["trips"].as_i64().unwrap().to_string(), cells[2], "{row}");
        assert!(value["why"]["policy_version"].is_i64() && value["schema"] == 1, "{value}");
    }
}

/// DuckDB, pyarrow, confluent-kafka (by scripts in `tests/support`) and kcat.
fn other_tools_agree(brokers: &str, data: &Path) {
    let ours = |table: &str, measure: &str| {
        one(data, &format!("select count(*), sum(diff), sum(diff * {measure}) from {table}_log"))
    };
    let Some(said) = peers::script("peers.py", &[data.as_os_str(), brokers.as_ref()]) else { return };
    for (table, ours) in [("trips", ours("trips", "duration_s")), ("windows", ours("windows", "count"))] {
        let ours: Vec<f64> = ours.split(',').map(|n| n.parse().unwrap()).collect();
        for peer in ["duckdb", "pyarrow"] {
            let theirs: Vec<f64> = said[peer][table].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
            assert_eq!(ours[..2], theirs[..2], "{peer} {table}");
            assert!(
                (ours[2] - theirs[2]).abs() <= 1e-9 * ours[2].abs().max(1.0),
                "{peer} {table}: {ours:?} {theirs:?}"
            );
        }
    }
    let live = latest(brokers, "driver_scores").len();
    assert_eq!(said["confluent"].as_u64().unwrap() as usize, live);
    let kcat =
        run(Command::new("kcat").args(["-b", brokers, "-C", "-e", "-q", "-t", "driver_scores", "-f", "%k\\n"]), 0);
    let mut keys: Vec<&str> = std::str::from_utf8(&kcat.stdout).unwrap().lines().collect();
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() >= live);

    let filled = peers::views_agree(data).expect("as above");
    // No control documents, nobody is late, and no hour ends in these 24 minutes.
    let may_be_empty = ["reference_problems", "late", "quality"];
    let empty = |table: &&str| !filled.iter().any(|f| f == table) && !may_be_empty.contains(table);
    assert_eq!(TABLES.iter().copied().find(empty), None, "a view without rows shows nothing");
}

#[test]
fn a_broker_that_is_down_and_a_topic_that_is_not_there_end_with_one_message() {
    let scratch = tempfile::tempdir().unwrap();
    let attempt = |brokers: &str| {
        drivetrain()
            .args(["run", "--config"])
            .arg(repository("configs/fleet.toml"))
            .arg("--data")
            .arg(scratch.path().join("d"))
            .env("DRIVETRAIN_KAFKA__BROKERS", brokers)
            .output()
            .unwrap()
    };
    let down = attempt("127.0.0.1:9");
    let message = String::from_utf8_lossy(&down.stderr).to_string();
    assert_eq!(down.status.code(), Some(1), "{message}");
    assert!(message.contains("127.0.0.1:9") && !message.contains("panicked"), "{message}");

    let Some(kafka) = Kafka::start() else { return };
    let missing = attempt(&kafka.brokers);
    let message = String::from_utf8_lossy(&missing.stderr).to_string();
    assert_eq!(missing.status.code(), Some(1), "{message}");
    assert!(message.contains("telemetry") && message.contains("does not exist"), "{message}");
}

#[test]
fn a_new_partition_is_picked_up_while_the_job_runs() {
    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    let Some(kafka) = Kafka::start() else { return };
    let brokers = kafka.brokers.as_str();
    let scratch = tempfile::tempdir().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let client = || ClientConfig::new().set("bootstrap.servers", brokers).clone();
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topic = NewTopic::new("telemetry", 1, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();

    // Producers learn of new partitions only after a while, so that each send has one of its own.
    let send = |partition: i32, second: u32| {
        let producer: BaseProducer = client().create().unwrap();
        let at = format!("2026-05-01T08:00:{second:02}Z");
        let reading = format!(r#"{{"vehicle_id":"v1","trip_id":"t1","driver_id":"d1","at":"{at}","speed_kmh":50}}"#);
        let record = BaseRecord::to("telemetry").partition(partition).key("v1").payload(&reading);
        producer.send(record.timestamp(1_777_622_400_000)).unwrap();
        producer.flush(TIMEOUT).unwrap();
    };
    send(0, 1);
    let job = Job::start(&repository("configs/fleet.toml"), &data, brokers, &log);
    wait_until_read(brokers, "telemetry", "fleet", &log);
    runtime.block_on(admin.create_partitions([&NewPartitions::new("telemetry", 3)], &AdminOptions::new())).unwrap();
    send(2, 2);
    wait_until_read_partition(brokers, 2, 1, &log);
    assert_eq!(job.stop(), Some(0), "{}", std::fs::read_to_string(&log).unwrap());
    let rows = sql(&data, "select partition, records, used from intake order by partition");
    assert_eq!(rows, ["0,1,1", "2,1,1"]);
    // A clean stop closes no trip.
    assert_eq!(one(&data, "select status, count(*) from trips group by status"), "PROCESSING,1");

    // A run of its bindings begins the new partition where it was begun then, or not at all.
    let repeat = |again: &Path, code: i32| {
        let mut command = drivetrain();
        command.args(["replay", "--config"]).arg(repository("configs/fleet.toml")).arg("--data").arg(again);
        command.arg("--bindings").arg(data.join("bindings")).env("DRIVETRAIN_KAFKA__BROKERS", brokers);
        String::from_utf8(run(&mut command, code).stderr).unwrap()
    };
    let again = scratch.path().join("again");
    repeat(&again, 0);
    assert_eq!(every_row(&data), every_row(&again));
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset("telemetry", 2, Offset::Offset(1)).unwrap();
    runtime.block_on(admin.delete_records(&gone, &AdminOptions::new())).unwrap();
    let said = repeat(&scratch.path().join("gone"), 1);
    assert!(said.contains("telemetry/2: the records from offset 0 on are no longer there"), "{said}");
}

/// The offsets of the group that are for lag monitors are what the job has counted, when it was stopped and when it goes
/// on: also where nothing more is to be read, and where they were not taken before.
#[test]
fn monitors_see_no_lag_where_there_is_none() {
    let Some(kafka) = Kafka::start() else { return };
    let brokers = kafka.brokers.as_str();
    let scratch = tempfile::tempdir().unwrap();
    let (data, log) = (scratch.path().join("data"), scratch.path().join("log"));
    let config = repository("configs/fleet.toml");
    let simulate = |seed: &str| {
        let mut simulate = drivetrain();
        simulate.args(["simulate", "--vehicles", "20", "--for", "1m", "--seed", seed]);
        run(simulate.args(["--brokers", brokers, "--topic", "telemetry"]), 0);
    };
    let said = || {
        let consumer = consumer(brokers, "fleet");
        let mut list = TopicPartitionList::new();
        for partition in 0..4 {
            list.add_partition("telemetry", partition);
        }
        let committed = consumer.committed_offsets(list, TIMEOUT).unwrap();
        committed.elements().iter().filter_map(|e| e.offset().to_raw().filter(|offset| *offset >= 0)).sum::<i64>()
    };
    let counted = || one(&data, "select sum(records) from intake").parse::<i64>().unwrap();

    let start = || {
        let job = Job::start(&config, &data, brokers, &log);
        wait_until_read(brokers, "telemetry", "fleet", &log);
        job
    };
    let stop = |job: Job| assert_eq!(job.stop(), Some(0), "{}", std::fs::read_to_string(&log).unwrap());

    simulate("1");
    let job = start();
    // Offsets are committed every 5 s, and have just been.
    let before = said();
    simulate("2");
    std::thread::park_timeout(Duration::from_secs(1));
    stop(job);
    assert_eq!(said(), counted());
    assert!(said() > before, "this would show nothing");

    stop(start());
    let all = counted();
    delete_group(brokers, "fleet");
    assert_eq!(said(), 0);
    stop(start());
    assert_eq!((said(), counted()), (all, all));
}

/// Waits until the job has committed offset `end` of a partition of `telemetry`.
fn wait_until_read_partition(brokers: &str, partition: i32, end: i64, log: &Path) {
    let consumer = consumer(brokers, "fleet");
    let mut list = TopicPartitionList::new();
    list.add_partition("telemetry", partition);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let committed = consumer.committed_offsets(list.clone(), TIMEOUT);
        let done = |p: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            p.offset().to_raw().is_some_and(|offset| offset >= end)
        };
        if committed.as_ref().is_ok_and(|list| list.elements().iter().all(done)) {
            return;
        }
        assert!(Instant::now() < deadline, "{committed:?}\n{}", std::fs::read_to_string(log).unwrap_or_default());
        std::thread::park_timeout(Duration::from_millis(200));
    }
}

/// Whatever producers may have packed, and with transactions that were aborted in between: our own reader and librdkafka
/// give the same readings, rejects and counts.
#[test]
fn both_readers_read_the_same() {
    let Some(kafka) = Kafka::start() else { return };
    let brokers = kafka.brokers.as_str();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("readings.jsonl");
    run(
        drivetrain().args(["simulate", "--vehicles", "100", "--for", "10m", "--broken", "0.01", "--out"]).arg(&file),
        0,
    );
    // Some are no UTF-8, and some are larger than a message may be.
    let lines = std::fs::read(&file).unwrap();
    let seen = produce_in_all_ways(
        brokers,
        &lines.split(|byte| *byte == b'\n').filter(|line| line.len() < 500_000).collect::<Vec<_>>(),
    );
    let read = |reader: &str| {
        let quoted = format!("{reader:?}");
        // On a machine with much else to do a fetch may take long; no partition is to go on without the others.
        let config = hurried(scratch.path(), reader, &[("reader", &quoted), ("idle_after", "\"60s\"")]);
        let (data, log) = (scratch.path().join(reader), scratch.path().join(format!("{reader}.log")));
        drain(brokers, &config, reader, &data, &log, seen);
        let directly = std::fs::read_to_string(&log).unwrap().contains("without librdkafka");
        assert_eq!(directly, reader == "auto");
        assert!(one(&data, "select count(*) from readings").parse::<i64>().unwrap() > 40_000);
        state(&data, brokers, &format!("{reader}."))
    };
    assert_same("auto and librdkafka", &read("librdkafka"), &read("auto"));
}

/// Sends these lines with each codec, some in transactions, of which others are aborted, some without a value. How many
/// records a reader of committed ones sees.
fn produce_in_all_ways(brokers: &str, lines: &[&[u8]]) -> i64 {
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let client = |codec: &str| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("compression.type", codec).set("linger.ms", "20").clone()
    };
    let send = |producer: &BaseProducer, i: usize, line: Option<&[u8]>| {
        let key = format!("k{i}");
        let mut record = BaseRecord::<str, [u8]>::to("telemetry").partition((i / 700 % 4) as i32);
        record.payload = line;
        record.key = (!i.is_multiple_of(3)).then_some(&key);
        if i.is_multiple_of(5) {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "h", value: Some("v") }));
        }
        while let Err((error, again)) = producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull));
            record = again;
            producer.poll(Duration::from_millis(10));
        }
    };
    let mut seen = 0;
    let aborting: BaseProducer = client("lz4").set("transactional.id", "aborting").create().unwrap();
    aborting.init_transactions(TIMEOUT).unwrap();
    for (n, part) in lines.chunks(lines.len().div_ceil(10)).enumerate() {
        let mut config = client(codecs[n % 5]);
        let transactional = n % 2 == 1;
        if transactional {
            config.set("transactional.id", format!("committing-{n}"));
        }
        let producer: BaseProducer = config.create().unwrap();
        aborting.begin_transaction().unwrap();
        if transactional {
            producer.init_transactions(TIMEOUT).unwrap();
            producer.begin_transaction().unwrap();
        }
        for (i, line) in part.iter().enumerate() {
            send(&producer, n * 10_000 + i, (!i.is_multiple_of(97)).then_some(line));
            if i.is_multiple_of(50) {
                send(&aborting, n * 10_000 + i, Some(b"{\"never\": \"seen\"}"));
            }
            // So that they come in between.
            if i.is_multiple_of(2_000) {
                aborting.flush(TIMEOUT).unwrap();
                producer.flush(TIMEOUT).unwrap();
            }
        }
        producer.flush(TIMEOUT).unwrap();
        if transactional {
            producer.commit_transaction(TIMEOUT).unwrap();
        }
        aborting.flush(TIMEOUT).unwrap();
        aborting.abort_transaction(TIMEOUT).unwrap();
        seen += part.len() as i64;
    }
    // A marker is not a record: the last of each partition must be one.
    let last: BaseProducer = client("zstd").create().unwrap();
    (0..4).for_each(|partition| send(&last, partition * 700, lines.first().copied()));
    last.flush(TIMEOUT).unwrap();
    seen + 4
}
