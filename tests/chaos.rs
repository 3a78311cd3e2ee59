//! Killed again and again on a real Kafka while input arrives, at random instants and at each named step, the broker too:
//! nothing is lost, nothing is there twice, and an outside reader never sees a total that cannot be.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::job::Job;
use support::kafka::Kafka;
use support::steps::{OFTEN, STEPS_ON_KAFKA};
use support::world::{drain, hurried, state};
use support::{assert_same, drivetrain, one, repository, run, signal};

/// Readings a second.
const RATE: u64 = 1_500;
const VEHICLES: u64 = 60;

/// How often the job is killed at a random instant; `KILLS=n` for more.
fn kills() -> u64 {
    std::env::var("KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}

/// xorshift; `SEED=n` repeats a run's choices.
struct Dice(u64);

impl Dice {
    fn new() -> Dice {
        let process = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let seed = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(process);
        println!("SEED={seed}");
        Dice(seed)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The job in a hurry, with the simulator's nested fleets.
fn config(directory: &Path, name: &str) -> PathBuf {
    let files = ["vehicles", "drivers", "fleets"]
        .map(|kind| (kind, format!("{{ files = [{:?}] }}", directory.join(format!("{kind}.jsonl")))));
    hurried(directory, name, &files.each_ref().map(|(kind, files)| (*kind, files.as_str())))
}

fn simulate(seconds: u64) -> Command {
    let mut command = drivetrain();
    let (vehicles, seconds) = (VEHICLES.to_string(), format!("{seconds}s"));
    command.args(["simulate", "--vehicles", &vehicles, "--seed", "11", "--for", &seconds]);
    command
}

struct World {
    kafka: Kafka,
    scratch: tempfile::TempDir,
    dice: Dice,
    /// Kills by the step that the process had reached.
    fell: BTreeMap<String, u64>,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn start(&mut self, config: &Path, variables: &[(&str, &str)]) -> Job {
        let workers = [1, 2, 4][self.dice.below(3) as usize];
        let steps = self.path("steps");
        fs::write(&steps, "start").unwrap();
        let mut all = vec![("DRIVETRAIN_STEPS", steps.to_str().unwrap())];
        all.extend(variables);
        Job::start_with(config, &self.path("data"), &self.kafka.brokers, &self.path("log"), workers, &all)
    }

    fn note(&mut self) {
        let step = fs::read_to_string(self.path("steps")).unwrap().trim().to_string();
        *self.fell.entry(step).or_default() += 1;
    }

    /// Started, and killed at a random instant: early ones fall into the start.
    fn kill_at_random(&mut self, config: &Path) {
        let mut job = self.start(config, &[]);
        let wait = if self.dice.below(3) == 0 { self.dice.below(1_000) } else { 1_000 + self.dice.below(3_000) };
        std::thread::park_timeout(Duration::from_millis(wait));
        assert!(job.ended().is_none(), "it ended by itself: {}", self.said());
        job.kill();
        self.note();
    }

    /// Started, and killed when it comes to a step.
    fn kill_at(&mut self, config: &Path, step: &str, nth: u32) {
        let point = format!("{step}:{nth}");
        let mut job = self.start(config, &[OFTEN, ("DRIVETRAIN_FAILPOINT", &point)]);
        job.is_killed_at(&point, Duration::from_secs(30), &self.path("log"));
        self.note();
    }

    /// The broker is killed under the running job and comes back after `away`: the job waits, or ends with a message and
    /// is started again.
    fn restart_the_broker(&mut self, config: &Path, away: Duration) {
        let mut job = self.start(config, &[]);
        std::thread::park_timeout(Duration::from_secs(2));
        if !self.kafka.restart(away) {
            println!("this broker is not ours: it is not restarted");
        }
        std::thread::park_timeout(Duration::from_secs(3));
        match job.ended() {
            None => job.kill(),
            Some(status) => assert_eq!(status.code(), Some(1), "{}", self.said()),
        }
        self.note();
    }
}

fn follower(world: &World, prefix: &str, job: &str) -> Child {
    let python = std::env::var("DRIVETRAIN_PYTHON").unwrap_or_else(|_| "python3".into());
    Command::new(python)
        .arg(repository("tests/support/follow.py"))
        .args([world.kafka.brokers.as_str(), prefix, job])
        .arg(world.path("stop"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn kills_leave_no_trace() {
    let Some(kafka) = Kafka::start() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let mut world = World { kafka, scratch, dice: Dice::new(), fell: BTreeMap::new() };
    run(simulate(1).arg("--reference").arg(world.scratch.path()).arg("--out").arg(world.path("one.jsonl")), 0);
    let chaos = config(world.scratch.path(), "chaos");
    let calm = config(world.scratch.path(), "calm");
    let brokers = world.kafka.brokers.clone();

    // Input arrives all the while: about 3 s for each kill.
    let seconds = (kills() + STEPS_ON_KAFKA.len() as u64 + 6) * 3 * RATE / VEHICLES;
    let rate = RATE.to_string();
    let mut producer = simulate(seconds);
    producer.args(["--brokers", &brokers, "--topic", "telemetry", "--rate", &rate]);
    let mut producer = producer.stderr(Stdio::null()).spawn().unwrap();

    // The first start makes the topics.
    let first = world.start(&chaos, &[]);
    std::thread::park_timeout(Duration::from_secs(3));
    first.kill();
    world.note();
    let follower = follower(&world, "chaos.", "chaos");

    let began = Instant::now();
    for round in 0..kills() {
        // It comes so late that the progress topic has been trimmed where it stands.
        let late = round == kills() / 4;
        if late {
            signal(follower.id(), "-STOP");
        }
        if round == kills() / 2 {
            world.restart_the_broker(&chaos, Duration::from_secs(4));
        }
        world.kill_at_random(&chaos);
        if late {
            world.kill_at(&chaos, "trim.after", 4);
            signal(follower.id(), "-CONT");
        }
    }
    for (step, nth) in STEPS_ON_KAFKA {
        world.kill_at(&chaos, step, nth);
    }
    let arriving = producer.try_wait().unwrap().is_none();
    println!(
        "{} kills in {:.0} s, input still arriving: {arriving}",
        kills() + STEPS_ON_KAFKA.len() as u64,
        began.elapsed().as_secs_f64()
    );
    println!("kills by the step that had been reached:");
    world.fell.iter().for_each(|(step, count)| println!("{count:6}  {step}"));
    assert!(producer.wait().unwrap().success());

    let produced = {
        let consumer = support::topics::consumer(&brokers, "counter");
        support::topics::end_offsets(&consumer, "telemetry").iter().sum::<i64>()
    };
    let (killed, undisturbed) = (world.path("data"), world.path("undisturbed"));
    let log = world.path("log");
    drain(&brokers, &chaos, "chaos", &killed, &log, produced);
    fs::write(world.path("stop"), "").unwrap();
    drain(&brokers, &calm, "calm", &undisturbed, &log, produced);
    let sums = "select sum(records) - sum(decoded) - sum(rejected), sum(readings) - sum(used) - sum(duplicates) - sum(late), \
                sum(late) from intake";
    assert_eq!(one(&killed, sums), "0,0,0");
    assert_same("killed and undisturbed", &state(&undisturbed, &brokers, "calm."), &state(&killed, &brokers, "chaos."));

    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.success());
    let followed: serde_json::Value = serde_json::from_slice(&followed.stdout).unwrap();
    println!("an outside reader: {followed}");
    assert_eq!(followed["impossible"], serde_json::json!([]));
    assert_eq!(followed["left"], 0);
    assert!(followed["cuts"].as_u64().unwrap() > 100 && followed["trips"].as_u64().unwrap() > 50, "{followed}");
    assert!(followed["nested"].as_u64().unwrap() > 0, "{followed}");
}
