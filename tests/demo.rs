//! `drivetrain demo`: its broker carries the input and copies of the live topics, so that kcat shows them while it runs.

mod support;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use support::{drivetrain, live, run, signal};

/// A demo that does not outlive its test.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A reader of all of a topic's partitions from their beginning.
fn reader(brokers: &str, topic: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "demo-test").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..4 {
        partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    consumer
}

/// When a live value became true, to the second.
fn updated(document: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(document).unwrap();
    value["updated_at"].as_str().unwrap()[..19].to_string()
}

#[test]
fn the_broker_has_the_live_topics_copies() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    // What an earlier demo has left is not copied.
    run(drivetrain().args(["demo", "--for", "8s", "--vehicles", "100", "--data"]).arg(&data), 0);
    let output = run(drivetrain().args(["live", "driver_scores", "--data"]).arg(&data), 0);
    let earlier = String::from_utf8(output.stdout).unwrap();
    let earlier = earlier.lines().map(|line| updated(line.split_once('\t').unwrap().1)).max().expect("a score in 8 s");

    let mut demo = drivetrain();
    demo.args(["demo", "--for", "5m", "--vehicles", "100", "--data"]).arg(&data);
    let mut demo = Demo(demo.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let hint = lines.find(|line| line.contains("kcat -b ")).expect("how to look into it");
    let words: Vec<&str> = hint.split_whitespace().skip_while(|word| *word != "kcat").collect();
    assert_eq!([words[1], words[3], words[4]], ["-b", "-t", "driver_scores"], "{hint}");
    // Nobody reads on: let it say what it likes.
    std::thread::spawn(move || lines.for_each(drop));

    let (scores, began) = (reader(words[2], "driver_scores"), Instant::now());
    let (key, document) = loop {
        assert!(began.elapsed() < Duration::from_secs(60), "no score has come to the demo's broker");
        let Some(record) = scores.poll(Duration::from_millis(200)) else { continue };
        let record = record.unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap().to_vec()).unwrap();
        break (text(record.key()), text(record.payload()));
    };
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(value["driver_id"], *key, "{document}");
    assert!(value["score"].is_number() && value["epoch"].is_number(), "{document}");
    assert!(updated(&document) > earlier, "of the demo before, which ended at {earlier}: {document}");

    signal(demo.0.id(), "-TERM");
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    let kept = live(&data, "driver_scores");
    assert!(kept.iter().any(|line| line.starts_with(&format!("{key}\t"))), "the files have no {key}: {kept:?}");
}
