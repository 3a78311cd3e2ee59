//! A run on a real Kafka that is killed at each named step of the commit protocol, by 1 worker, 2 workers and 2 processes:
//! (a) it ends as a run that was never disturbed, and (b) every row of every log, epoch included, and every newest value of
//! every topic is that of a run of the recorded bindings (`replay --bindings`), which leaves no trace in Kafka.
//!
//! ```text
//!  producer ─► telemetry, fleets ─┬─► killed, 1 worker  ──┐          ┌─ (a) ─ undisturbed
//!  (until the last kill)          ├─► killed, 2 workers ──┼─ drain ──┤
//!                                 ├─► killed, 2 processes ┘          └─ (b) ─ replay --bindings
//!                                 └─► undisturbed ──────────
//! ```

mod support;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use support::job::{Simulation, complaint};
use support::kafka::Kafka;
use support::steps::{OFTEN, STEPS_ON_KAFKA};
use support::topics::{TIMEOUT, consumer, end_offsets, latest, recreate, truncate, wait_until_read};
use support::world::{hurried, state};
use support::{TOPICS, assert_same, drivetrain, every_row, one, run, signal};

/// Far more than it takes, also on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(120);
/// Within that time of the leader's end the others have ended.
const TEN_SECONDS: Duration = Duration::from_secs(10);
/// Readings a second, and of how many vehicles: 50 times as fast as life, so that trips end.
const RATE: &str = "1000";
const VEHICLES: &str = "20";

/// A job, and in which shape it is started each time.
#[derive(Clone, Copy)]
struct Shape {
    job: &'static str,
    processes: usize,
    /// Of each process.
    workers: usize,
}

const KILLED: [Shape; 3] = [
    Shape { job: "one-worker", processes: 1, workers: 1 },
    Shape { job: "two-workers", processes: 1, workers: 2 },
    Shape { job: "two-processes", processes: 2, workers: 1 },
];
const UNDISTURBED: Shape = Shape { job: "undisturbed", processes: 1, workers: 1 };

/// A broker, a scratch directory, readings that arrive all the while, and fleets on a control topic.
struct World {
    /// Stopped first.
    producer: Option<Simulation>,
    kafka: Kafka,
    scratch: tempfile::TempDir,
}

fn simulate(time: &str) -> Command {
    let mut command = drivetrain();
    command.args(["simulate", "--vehicles", VEHICLES, "--for", time, "--seed", "11"]);
    command.args(["--duplicates", "0.01", "--broken", "0.002", "--faults"]);
    command
}

impl World {
    fn new() -> Option<World> {
        let world = World { kafka: Kafka::start()?, scratch: tempfile::tempdir().unwrap(), producer: None };
        run(simulate("1s").arg("--reference").arg(world.scratch.path()).arg("--out").arg(world.path("one.jsonl")), 0);
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn brokers(&self) -> &str {
        &self.kafka.brokers
    }

    /// The simulator's nested fleets and a document that is none go to a topic; readings go on as long as the test needs
    /// them.
    fn produce(&mut self) {
        let client: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap();
        let topic = NewTopic::new("fleets", 1, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.create_topics([&topic], &AdminOptions::new())).unwrap();
        let fleets = fs::read_to_string(self.path("fleets.jsonl")).unwrap();
        let documents: Vec<&str> = fleets.lines().chain(["{\"fleet_id\":7}"]).collect();
        self.documents(&documents);
        let mut simulate = simulate("48h");
        simulate.args(["--rate", RATE]);
        self.producer = Some(Simulation::start(simulate, self.brokers()));
    }

    fn documents(&self, documents: &[&str]) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", self.brokers()).create().unwrap();
        for (i, document) in documents.iter().enumerate() {
            let key = format!("{}-{i}", documents.len());
            producer.send(BaseRecord::to("fleets").key(&key).payload(*document)).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
    }

    fn data(&self, shape: Shape) -> PathBuf {
        self.path(&format!("d-{}", shape.job))
    }

    fn config(&self, shape: Shape) -> PathBuf {
        self.path(&format!("{}.toml", shape.job))
    }

    fn write_config(&self, shape: Shape) {
        let file = |kind: &str| format!("{{ files = [{:?}] }}", self.path(&format!("{kind}.jsonl")));
        let (vehicles, drivers) = (file("vehicles"), file("drivers"));
        let more = [("vehicles", vehicles.as_str()), ("drivers", &drivers), ("fleets", "{ topic = \"fleets\" }")];
        assert_eq!(hurried(self.scratch.path(), shape.job, &more), self.config(shape));
    }

    /// The followers first: they wait for the leader.
    fn start(&self, shape: Shape, variables: &[(&str, &str)]) -> Running {
        let hosts = hosts(shape.processes).join(",");
        let mut running = Running { processes: Vec::new(), logs: Vec::new() };
        for process in (0..shape.processes).rev() {
            let leads = process == 0;
            let mut command = drivetrain();
            command.args(["run", "--workers", &shape.workers.to_string(), "--config"]).arg(self.config(shape));
            command.arg("--data").arg(if leads { self.data(shape) } else { self.path("nowhere") });
            if shape.processes > 1 {
                let (processes, process) = (shape.processes.to_string(), process.to_string());
                command.args(["--processes", &processes, "--process", &process, "--hosts", &hosts]);
            }
            if leads {
                command.env("DRIVETRAIN_KAFKA__BROKERS", self.brokers()).envs(variables.iter().copied());
            }
            let log = self.path(&format!("{}-{process}.log", shape.job));
            let child = command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
            running.processes.insert(0, child);
            running.logs.insert(0, log);
        }
        running
    }

    /// Started and killed, once at each step. Returns which step was reached last before each kill.
    fn kill_at_each_step(&self, shape: Shape) -> BTreeMap<String, u64> {
        let mut fell = BTreeMap::new();
        let steps = self.path(&format!("{}-steps", shape.job));
        for (step, nth) in STEPS_ON_KAFKA {
            let point = format!("{step}:{nth}");
            let kill = [("DRIVETRAIN_FAILPOINT", point.as_str()), ("DRIVETRAIN_STEPS", steps.to_str().unwrap()), OFTEN];
            let mut running = self.start(shape, &kill);
            let code = running.wait(0, SOON);
            assert_eq!(code, None, "{}: it ended before {point}:\n{}", shape.job, running.said(0));
            for follower in 1..shape.processes {
                let code = running.wait(follower, TEN_SECONDS);
                complaint(code, &running.said(follower), &["process 0 (127.0.0.1:"]);
            }
            let reached = fs::read_to_string(&steps).unwrap().trim().to_string();
            *fell.entry(reached).or_default() += 1;
        }
        fell
    }

    /// Reads everything, until nothing is pending any more, and stops cleanly.
    fn drain(&self, shape: Shape) {
        let produced = end_offsets(&consumer(self.brokers(), "counter"), "telemetry").iter().sum::<i64>();
        let read = || one(&self.data(shape), "select sum(records) from intake").parse::<i64>().unwrap();
        for _ in 0..5 {
            let mut running = self.start(shape, &[]);
            wait_until_read(self.brokers(), "telemetry", shape.job, &running.logs[0]);
            // Idle after 1 s, quiet after 2 s; then silence has closed what it can.
            std::thread::park_timeout(Duration::from_secs(6));
            signal(running.processes[0].id(), "-TERM");
            for process in 0..shape.processes {
                assert_eq!(running.wait(process, SOON), Some(0), "{}", running.said(process));
            }
            if read() == produced {
                return;
            }
        }
        panic!("{}: {} records of {produced}", shape.job, read());
    }

    /// `replay --config … --data DATA --bindings BINDINGS`, and what else is given.
    fn repeat(&self, shape: Shape, data: &Path, bindings: &Path, more: &[&str]) -> Output {
        let mut command = drivetrain();
        command.args(["replay", "--workers", "1", "--config"]).arg(self.config(shape)).arg("--data").arg(data);
        command.arg("--bindings").arg(bindings).args(more);
        command.env("DRIVETRAIN_KAFKA__BROKERS", self.brokers()).output().unwrap()
    }

    /// The end of every partition of every topic that the broker has, its own included.
    fn ends(&self) -> BTreeMap<String, Vec<i64>> {
        let consumer = consumer(self.brokers(), "counter");
        let metadata = consumer.fetch_metadata(None, TIMEOUT).unwrap();
        let topics = metadata.topics().iter().map(|t| t.name().to_string());
        topics.map(|topic| (topic.clone(), end_offsets(&consumer, &topic))).collect()
    }
}

/// The processes of a job; killed when dropped.
struct Running {
    processes: Vec<Child>,
    logs: Vec<PathBuf>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.processes.iter_mut().for_each(|child| drop(child.kill()));
        self.processes.iter_mut().for_each(|child| drop(child.wait()));
    }
}

impl Running {
    fn said(&self, process: usize) -> String {
        fs::read_to_string(&self.logs[process]).unwrap_or_default()
    }

    /// Its exit code; none: it was killed.
    #[track_caller]
    fn wait(&mut self, process: usize, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        loop {
            if let Some(status) = self.processes[process].try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "process {process} goes on:\n{}", self.said(process));
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Addresses that nobody uses; below the ports that clients are given, which come and go all the while.
fn hosts(count: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let mut hosts = Vec::new();
    while hosts.len() < count {
        let host = format!("127.0.0.1:{}", first + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000);
        if TcpListener::bind(&host).is_ok() {
            hosts.push(host);
        }
    }
    hosts
}

/// The newest value of each key of each topic, epoch and time included: in Kafka, and as a replay has left them.
fn live_of_topics(brokers: &str, prefix: &str) -> Vec<(String, Vec<String>)> {
    let values = |topic: &str| latest(brokers, &format!("{prefix}{topic}")).into_iter();
    let lines = |topic: &str| values(topic).map(|(key, value)| format!("{key}\t{value}")).collect();
    TOPICS.iter().map(|topic| (format!("topic {topic}"), lines(topic))).collect()
}

fn live_of_files(data: &Path) -> Vec<(String, Vec<String>)> {
    let lines = |topic: &str| {
        let output = run(drivetrain().args(["live", "--data"]).arg(data).arg(topic), 0);
        let line = |line: &str| {
            let (key, value) = line.split_once('\t').unwrap();
            format!("{key}\t{}", serde_json::from_str::<serde_json::Value>(value).unwrap())
        };
        String::from_utf8(output.stdout).unwrap().lines().map(line).collect()
    };
    TOPICS.iter().map(|topic| (format!("topic {topic}"), lines(topic))).collect()
}

/// What a comparison would show nothing without.
fn assert_filled(state: &[(String, Vec<String>)]) {
    for table in
        ["trips", "windows", "events", "rejects", "fleet_aggregates", "topic driver_scores", "topic vehicle_state"]
    {
        let rows = state.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| rows.len());
        assert!(rows > 0, "{table} is empty: this test would show nothing");
    }
}

#[test]
fn a_kill_at_each_step_of_a_run_leaves_no_trace() {
    let Some(mut world) = World::new() else { return };
    world.produce();
    KILLED.into_iter().chain([UNDISTURBED]).for_each(|shape| world.write_config(shape));
    let began = Instant::now();
    let seconds = || began.elapsed().as_secs_f64();

    std::thread::scope(|scope| {
        let world = &world;
        let kills = KILLED.map(|shape| (shape, scope.spawn(move || world.kill_at_each_step(shape))));
        // Some of them see this as a change, some as it was from the beginning.
        world.documents(&["{\"fleet_id\":\"all\",\"name\":\"everything\"}", "not a document"]);
        for (shape, kills) in kills {
            let fell = kills.join().unwrap();
            println!(
                "{}: {} kills, {:.0} s; by the step that was reached last:",
                shape.job,
                fell.values().sum::<u64>(),
                seconds()
            );
            fell.iter().for_each(|(step, count)| println!("{count:6}  {step}"));
        }
    });
    world.producer = None;
    let world = &world;
    let all = || KILLED.into_iter().chain([UNDISTURBED]);
    std::thread::scope(|scope| all().for_each(|shape| drop(scope.spawn(move || world.drain(shape)))));
    println!("drained: {:.0} s", seconds());
    assert_eq!(one(&world.data(UNDISTURBED), "select sum(late) from intake"), "0");

    // (a)
    let expected = state(&world.data(UNDISTURBED), world.brokers(), "undisturbed.");
    assert_filled(&expected);
    for shape in KILLED {
        let state = state(&world.data(shape), world.brokers(), &format!("{}.", shape.job));
        assert_same(&format!("{} and undisturbed", shape.job), &expected, &state);
    }
    println!("compared with the undisturbed run: {:.0} s", seconds());

    // (b)
    let before = world.ends();
    std::thread::scope(|scope| KILLED.into_iter().for_each(|shape| drop(scope.spawn(move || repeats(world, shape)))));
    assert_eq!(before, world.ends(), "a replay has written to Kafka");
    println!("compared with runs of the recorded bindings: {:.0} s", seconds());
    a_replay_goes_on(world, KILLED[0]);
    println!("repeated in two parts: {:.0} s", seconds());
    what_cannot_be_repeated_is_said(world, KILLED[0]);
    println!("what cannot be repeated: {:.0} s", seconds());
}

fn again(world: &World, shape: Shape) -> PathBuf {
    world.path(&format!("again-{}", shape.job))
}

fn repeats(world: &World, shape: Shape) {
    let (data, again) = (world.data(shape), again(world, shape));
    let output = world.repeat(shape, &again, &data.join("bindings"), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{}: {said}", shape.job);
    let what = format!("{}: its bindings", shape.job);
    assert_same(&what, &every_row(&data), &every_row(&again));
    let prefix = format!("{}.", shape.job);
    assert_same(&what, &live_of_topics(world.brokers(), &prefix), &live_of_files(&again));
}

/// One that was cut off goes on behind what it has committed, and ends where the record does.
fn a_replay_goes_on(world: &World, shape: Shape) {
    let whole = again(world, shape).join("bindings");
    let text = fs::read_to_string(whole.join("g1.jsonl")).unwrap();
    let half = world.path("half.jsonl");
    fs::write(&half, text.split_inclusive('\n').take(text.lines().count() / 2).collect::<String>()).unwrap();
    let data = world.path("in-two-parts");
    let mut epochs = Vec::new();
    for bindings in [&half, &whole, &whole] {
        let output = world.repeat(shape, &data, bindings, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        epochs.push(one(&data, "select max(epoch) from readings_log").parse::<i64>().unwrap());
    }
    assert!(epochs[0] < epochs[1] && epochs[1] == epochs[2], "{epochs:?}");
    assert_same("in two parts", &every_row(&again(world, shape)), &every_row(&data));
}

/// Each with one message, before anything is written where it is the command line's fault. Ends without the topic.
fn what_cannot_be_repeated_is_said(world: &World, shape: Shape) {
    let data = world.data(shape);
    let bindings = data.join("bindings");
    let new = world.path("new");
    let refused = |what: &str, data: &Path, bindings: &Path, more: &[&str], code: i32, parts: &[&str]| {
        let output = world.repeat(shape, data, bindings, more);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{what}: {said}");
        let messages: Vec<&str> = said.lines().filter(|line| line.starts_with("drivetrain: ")).collect();
        assert_eq!(messages.len(), 1, "{what}: it is to say one thing: {said}");
        parts.iter().for_each(|part| assert!(messages[0].contains(part), "{what}: {part:?} is missing in: {said}"));
        assert!(code != 2 || !new.exists(), "{what}: something was written");
    };
    let own = ["it is the directory of the run", "name a new one"];
    refused("its own directory", &data, &bindings, &["--fresh"], 2, &own);
    let one = world.path("one.jsonl").display().to_string();
    refused("with files", &new, &bindings, &[&one], 2, &["topic \"telemetry\"", "leave INPUT out"]);
    refused("a time", &new, &bindings, &["--at", "2026-01-01T00:00:00Z"], 2, &["--at is for files"]);
    // A replay of files has bindings, too.
    let files = world.path("of-files");
    support::replay(&world.config(UNDISTURBED), &files, &[], &[&world.path("one.jsonl")]);
    refused("without its files", &new, &files.join("bindings"), &[], 2, &["one.jsonl", "as INPUT"]);
    // What `history.bindings` does not keep.
    let text = fs::read_to_string(again(world, shape).join("bindings/g1.jsonl")).unwrap();
    let expired = world.path("expired.jsonl");
    fs::write(&expired, text.split_inclusive('\n').skip(5).collect::<String>()).unwrap();
    refused("expired", &new, &expired, &[], 2, &["the recorded epochs are 5 (ended ", "history.bindings"]);
    let nowhere = [("DRIVETRAIN_KAFKA__BROKERS", "")];
    let mut command = drivetrain();
    command.args(["replay", "--config"]).arg(world.config(shape)).arg("--data").arg(&new);
    let output = run(command.arg("--bindings").arg(&bindings).envs(nowhere), 2);
    assert!(String::from_utf8_lossy(&output.stderr).contains("kafka.brokers is not set"));

    truncate(world.brokers(), "telemetry");
    let gone = ["telemetry/", "no longer there", "can't be repeated", "retention.ms"];
    refused("truncated", &world.path("truncated"), &bindings, &[], 1, &gone);
    recreate(world.brokers(), "telemetry");
    let another = ["\"telemetry\" was deleted and created again", "can't be repeated"];
    refused("recreated", &world.path("recreated"), &bindings, &[], 1, &another);
}
