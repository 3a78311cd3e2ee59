//! Faults around a job on a real Kafka: an instance that hangs and is overtaken, a broker that is away, a transaction that
//! times out, an input topic that is not what it was. Nothing is lost, nothing twice, and what cannot be gone on with is
//! one clear message and exit code 1.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::job::{Job, Simulation, is_stopped};
use support::kafka::Kafka;
use support::topics::{consumer, end_offsets, read_all, recreate, truncate, wait_until_read};
use support::world::{drain, fleet, hurried, state};
use support::{TOPICS, assert_same, drivetrain, one, run, signal};

/// Far more than it takes, also on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(120);

/// A broker, a scratch directory, and readings that arrive in the topic `telemetry` all the while.
struct World {
    /// Stopped first.
    producer: Option<Simulation>,
    kafka: Kafka,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Option<World> {
        let kafka = Kafka::start()?;
        Some(World { kafka, scratch: tempfile::tempdir().unwrap(), producer: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn brokers(&self) -> &str {
        &self.kafka.brokers
    }

    /// For as long as the test needs them.
    fn produce(&mut self) {
        let mut simulate = drivetrain();
        simulate.args(["simulate", "--vehicles", "60", "--seed", "11", "--for", "2h", "--rate", "1000"]);
        self.producer = Some(Simulation::start(simulate, self.brokers()));
    }

    fn start(&self, config: &Path, log: &str, variables: &[(&str, &str)]) -> Job {
        Job::start_with(config, &self.path("data"), self.brokers(), &self.path(log), 2, variables)
    }

    fn said(&self, log: &str) -> String {
        fs::read_to_string(self.path(log)).unwrap_or_default()
    }

    /// The newest generation that has begun to write.
    fn generation(&self) -> u64 {
        let names = fs::read_dir(self.path("data/bindings")).unwrap().map(|e| e.unwrap().file_name());
        let generation = |name: &str| name.strip_prefix('g')?.strip_suffix(".jsonl")?.parse().ok();
        names.filter_map(|name| generation(&name.to_string_lossy())).max().unwrap()
    }

    /// Waits until the generation after this one has committed epochs of its own.
    fn until_overtaken(&self, generation: u64) {
        let bindings = self.path(&format!("data/bindings/g{}.jsonl", generation + 1));
        let size = || fs::metadata(&bindings).map_or(0, |m| m.len());
        let until = Instant::now() + SOON;
        let mut began = 0;
        while began == 0 || size() <= began {
            began = if began == 0 { size() } else { began };
            assert!(Instant::now() < until, "nothing was committed: {}", self.said("second"));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The job that was disturbed, and one that was not, have read everything and say the same.
    fn ends_equal(&mut self, config: &Path, job: &str) {
        self.producer = None;
        let brokers = self.brokers();
        let produced = end_offsets(&consumer(brokers, "counter"), "telemetry").iter().sum::<i64>();
        let calm = hurried(self.scratch.path(), "calm", &[]);
        let (disturbed, undisturbed, log) = (self.path("data"), self.path("calm"), self.path("log"));
        drain(brokers, config, job, &disturbed, &log, produced);
        drain(brokers, &calm, "calm", &undisturbed, &log, produced);
        let sums = "select sum(records) - sum(decoded) - sum(rejected), sum(late) from intake";
        assert_eq!(one(&disturbed, sums), "0,0");
        let expected = state(&undisturbed, brokers, "calm.");
        for table in ["trips", "windows", "topic driver_scores"] {
            let rows = expected.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| rows.len());
            assert!(rows > 0, "{table} is empty: this test would show nothing");
        }
        assert_same("disturbed and undisturbed", &expected, &state(&disturbed, brokers, &format!("{job}.")));
        let sum = |data: &Path| one(data, "select sum(diff) from trips_log");
        assert_eq!(sum(&disturbed), sum(&undisturbed), "a change is in the log twice, or not at all");
    }
}

type Records = Vec<(Option<String>, Option<Vec<u8>>)>;

/// All that somebody else can read, but what only the instance of this generation has written for itself: every file, as a
/// hash, and every record of the topics.
fn readable(data: &Path, brokers: &str, job: &str, generation: u64) -> (BTreeMap<PathBuf, u64>, Vec<Records>) {
    let own = [format!("g{generation}"), format!("g{generation}.jsonl")];
    let (mut files, mut open) = (BTreeMap::new(), vec![data.to_path_buf()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if own.iter().any(|name| path.file_name().is_some_and(|n| n == name.as_str())) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let mut hasher = DefaultHasher::new();
            fs::read(&path).unwrap().hash(&mut hasher);
            files.insert(path, hasher.finish());
        }
    }
    let topics = TOPICS.into_iter().chain(["dead_letter"]);
    let records = |topic: &str| {
        let mut records = read_all(brokers, &format!("{job}.{topic}"));
        // Its partitions come in any order.
        records.sort();
        records
    };
    (files, topics.map(records).collect())
}

/// Where the first instance hangs: with a transaction open, committed and nothing published, in the midst of publishing,
/// before it trims, and with a checkpoint half written.
const HANGS: [(&str, u32); 5] =
    [("commit.before", 6), ("commit.after", 8), ("publish.between", 3), ("trim.before", 1), ("checkpoint.write", 2)];

const OVERTAKEN: &str = "another instance (a later generation) has taken over job \"zombie\"";

#[test]
fn an_instance_that_was_overtaken_changes_nothing_when_it_goes_on() {
    let Some(mut world) = World::new() else { return };
    let config = hurried(world.scratch.path(), "zombie", &[]);
    let data = world.path("data");
    world.produce();
    for (step, nth) in HANGS {
        let mut first = world.start(&config, "first", &[("DRIVETRAIN_FAILPOINT", &format!("{step}:{nth}:stop"))]);
        first.wait_until_stopped(&world.path("first"));
        let generation = world.generation();
        let second = world.start(&config, "second", &[]);
        world.until_overtaken(generation);
        assert_eq!(second.stop(), Some(0), "{step}: {}", world.said("second"));
        let seen = || readable(&data, world.brokers(), "zombie", generation);
        let progress = || read_all(world.brokers(), "zombie.zombie.progress");
        let (before, progress_before) = (seen(), progress());
        first.signal("-CONT");
        first.complains(SOON, &world.path("first"), &[OVERTAKEN, "has committed nothing more"]);
        let after = seen();
        for (path, hash) in &before.0 {
            assert_eq!(after.0.get(path), Some(hash), "{step}: {} has changed", path.display());
        }
        assert_eq!(before.0.len(), after.0.len(), "{step}: there are new files");
        assert!(before.1 == after.1, "{step}: it has said something to a topic");
        // It may delete what its own last commit has made needless, at the beginning.
        let progress_after = progress();
        assert!(progress_before.ends_with(&progress_after) && !progress_after.is_empty(), "{step}: the progress topic");
    }
    // Stopped by somebody else at any instant, while its successor works.
    let mut first = world.start(&config, "first", &[]);
    world.until_overtaken(world.generation());
    let generation = world.generation();
    first.signal("-STOP");
    let second = world.start(&config, "second", &[]);
    world.until_overtaken(generation);
    first.signal("-CONT");
    first.complains(SOON, &world.path("first"), &[OVERTAKEN]);
    assert_eq!(second.stop(), Some(0), "{}", world.said("second"));
    world.ends_equal(&config, "zombie");
}

#[test]
fn a_transaction_that_times_out_and_a_broker_that_is_away_lose_nothing() {
    let Some(mut world) = World::new() else { return };
    let config = hurried(world.scratch.path(), "away", &[]);
    world.produce();
    let log = world.path("log");
    // The broker ends a transaction that is open for too long.
    let variables = [
        ("DRIVETRAIN_FAILPOINT", "commit.before:9:stop"),
        ("DRIVETRAIN_KAFKA__PROPERTIES__TRANSACTION_TIMEOUT_MS", "2000"),
    ];
    let mut held_up = world.start(&config, "log", &variables);
    held_up.wait_until_stopped(&log);
    std::thread::park_timeout(Duration::from_secs(6));
    held_up.signal("-CONT");
    held_up.complains(SOON, &log, &["start it again"]);

    let mut waiting = world.start(&config, "log", &[]);
    std::thread::park_timeout(Duration::from_secs(4));
    assert!(waiting.ended().is_none(), "{}", world.said("log"));
    if !world.kafka.restart(Duration::from_secs(30)) {
        println!("this broker is not ours: it is not restarted");
    }
    // It has waited, or ends with a message.
    std::thread::park_timeout(Duration::from_secs(5));
    match waiting.ended() {
        None => assert_eq!(waiting.stop(), Some(0), "{}", world.said("log")),
        Some(_) => waiting.complains(SOON, &log, &["kafka"]),
    }
    world.ends_equal(&config, "away");
}

/// A job on a topic of its own.
struct Reader<'a> {
    world: &'a World,
    name: &'static str,
    config: PathBuf,
    data: PathBuf,
    log: PathBuf,
}

impl<'a> Reader<'a> {
    /// With a topic that has some records.
    fn new(world: &'a World, name: &'static str, checkpoint_every: &str) -> Self {
        let (quoted, prefix, topics) = (format!("{name:?}"), format!("\"{name}.\""), format!("[\"{name}\"]"));
        let fields = [
            ("name", quoted.as_str()),
            ("topic_prefix", &prefix),
            ("topics", &topics),
            ("checkpoint_every", checkpoint_every),
            ("roll_after", "\"300ms\""),
            ("idle_after", "\"1s\""),
        ];
        let config = fleet(world.scratch.path(), name, &fields);
        let reader = Self {
            world,
            name,
            config,
            data: world.path(&format!("d-{name}")),
            log: world.path(&format!("{name}.log")),
        };
        reader.send("20", 1);
        reader
    }

    /// Readings of this many vehicles, two minutes of each.
    fn send(&self, vehicles: &str, seed: u32) {
        let mut simulate = drivetrain();
        simulate.args(["simulate", "--vehicles", vehicles, "--for", "2m", "--seed", &seed.to_string()]);
        run(simulate.args(["--brokers", self.world.brokers(), "--topic", self.name]), 0);
    }

    fn start(&self, variables: &[(&str, &str)]) -> Job {
        Job::start_with(&self.config, &self.data, self.world.brokers(), &self.log, 2, variables)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn read_all(&self) {
        wait_until_read(self.world.brokers(), self.name, self.name, &self.log);
    }

    fn records(&self) -> i64 {
        one(&self.data, "select coalesce(sum(records), 0) from intake").parse().unwrap()
    }

    /// It cannot go on, running or started, and has counted nothing since.
    #[track_caller]
    fn is_refused(&self, mut running: Job, first: &[&str], parts: &[&str], counted: Option<i64>) {
        running.complains(SOON, &self.log, first);
        let before = state(&self.data, self.world.brokers(), &format!("{}.", self.name));
        assert!(counted.is_none_or(|counted| self.records() == counted), "{} records", self.records());
        for _ in 0..2 {
            self.start(&[]).complains(SOON, &self.log, parts);
        }
        let after = state(&self.data, self.world.brokers(), &format!("{}.", self.name));
        assert_same("refused starts", &before, &after);
    }
}

const GONE: [&str; 3] = ["is needed but no longer there", "truncated", "--fresh"];
const ANOTHER: [&str; 3] = ["was deleted and created again", "(id ", "--fresh"];

#[test]
fn an_input_topic_that_is_not_what_it_was_is_never_read_on_in_silence() {
    let Some(world) = World::new() else { return };
    let brokers = world.brokers();

    // Deleted and created again between two runs, with more records than were read.
    let topic = Reader::new(&world, "recreated", "\"300ms\"");
    let job = topic.start(&[]);
    topic.read_all();
    assert_eq!(job.stop(), Some(0));
    let records = topic.records();
    assert!(records > 1_000, "{records}");
    recreate(brokers, topic.name);
    topic.send("60", 2);
    topic.is_refused(topic.start(&[]), &ANOTHER, &ANOTHER, Some(records));

    // … while the job runs.
    let topic = Reader::new(&world, "recreated-running", "\"300ms\"");
    let job = topic.start(&[]);
    topic.read_all();
    recreate(brokers, topic.name);
    topic.send("60", 2);
    topic.is_refused(job, &["recreated-running", "deleted and created again", "--fresh"], &ANOTHER, None);

    // … under a job that hangs, and finds more records than it has read.
    let topic = Reader::new(&world, "recreated-hanging", "\"300ms\"");
    let mut job = topic.start(&[("DRIVETRAIN_FAILPOINT", "commit.after:12:stop")]);
    job.wait_until_stopped(&topic.log);
    recreate(brokers, topic.name);
    topic.send("60", 2);
    job.signal("-CONT");
    topic.is_refused(job, &["recreated-hanging", "deleted and created again", "--fresh"], &ANOTHER, None);

    // Truncated between two runs, below what comes next …
    let topic = Reader::new(&world, "truncated", "\"300ms\"");
    let job = topic.start(&[]);
    topic.read_all();
    assert_eq!(job.stop(), Some(0));
    // What has been read is not needed.
    truncate(brokers, topic.name);
    let job = topic.start(&[]);
    let until = Instant::now() + SOON;
    while !topic.said().contains("going on") {
        assert!(Instant::now() < until, "{}", topic.said());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    std::thread::park_timeout(Duration::from_secs(2));
    assert_eq!(job.stop(), Some(0), "{}", topic.said());
    let records = topic.records();
    topic.send("30", 2);
    truncate(brokers, topic.name);
    topic.send("30", 3);
    topic.is_refused(topic.start(&[]), &GONE, &GONE, Some(records));

    // … or, after a kill, below what must be repeated.
    let topic = Reader::new(&world, "repeated", "\"0s\"");
    let job = topic.start(&[]);
    topic.read_all();
    job.kill();
    truncate(brokers, topic.name);
    topic.is_refused(topic.start(&[]), &GONE, &GONE, None);

    // Truncated under a job that hangs.
    let topic = Reader::new(&world, "truncated-running", "\"300ms\"");
    let mut job = topic.start(&[("DRIVETRAIN_FAILPOINT", "commit.after:12:stop")]);
    job.wait_until_stopped(&topic.log);
    // A fetch that is under way comes back without records.
    std::thread::park_timeout(Duration::from_secs(1));
    topic.send("30", 2);
    truncate(brokers, topic.name);
    topic.send("30", 3);
    job.signal("-CONT");
    topic.is_refused(job, &GONE, &GONE, None);
    assert!(topic.records() <= records, "{} records", topic.records());
}

/// The helper of these tests can tell.
#[test]
fn a_stopped_process_is_seen_to_be_stopped() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    assert!(!is_stopped(child.id()));
    signal(child.id(), "-STOP");
    let until = Instant::now() + SOON;
    while !is_stopped(child.id()) {
        assert!(Instant::now() < until);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
