//! Several processes as one job: the same results, and when one goes, none hangs.

mod support;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::kafka::Kafka;
use support::steps::kill_at_each_step;
use support::world::small_epochs;
use support::{assert_same, committed, drivetrain, every_step, final_state, one, replay, run, sql};

/// Within that time of one process's end or silence all others have ended.
const TEN_SECONDS: Duration = Duration::from_secs(10);
/// Longer than any replay here takes.
const PATIENCE: Duration = Duration::from_secs(100);

/// Addresses on this machine that nobody uses.
fn hosts(processes: usize) -> String {
    let listeners: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let names = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string());
    names.collect::<Vec<_>>().join(",")
}

/// A replay (or a run, where a broker is given), as this many processes of this many workers.
#[derive(Clone, Copy)]
struct Job<'a> {
    broker: Option<&'a str>,
    config: &'a Path,
    data: &'a Path,
    input: &'a Path,
    processes: usize,
    workers: usize,
}

impl Job<'_> {
    fn command(&self, process: usize, hosts: &str) -> Command {
        let mut command = drivetrain();
        let kind = if self.broker.is_some() { "run" } else { "replay" };
        command.args([kind, "--workers", &self.workers.to_string(), "--config"]).arg(self.config);
        command.arg("--data").arg(if process == 0 { self.data.to_path_buf() } else { self.nowhere() });
        if self.processes > 1 {
            let (processes, process) = (self.processes.to_string(), process.to_string());
            command.args(["--processes", &processes, "--process", &process, "--hosts", hosts]);
        }
        match self.broker {
            // The followers know nothing of it.
            Some(broker) if process == 0 => command.env("DRIVETRAIN_KAFKA__BROKERS", broker),
            Some(_) => &mut command,
            None => command.arg(self.input),
        };
        command
    }

    /// What the followers are given for a data directory.
    fn nowhere(&self) -> PathBuf {
        self.data.with_file_name("nowhere")
    }

    fn start(&self) -> Running {
        self.start_with(&[])
    }

    fn start_with(&self, variables: &[(&str, &str)]) -> Running {
        let hosts = hosts(self.processes);
        // The followers first: they wait for the leader.
        let mut running = Running { processes: Vec::new(), logs: tempfile::tempdir().unwrap() };
        for process in (0..self.processes).rev() {
            let log = File::create(running.log(process)).unwrap();
            let mut command = self.command(process, &hosts);
            let child = command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
            running.processes.insert(0, child);
        }
        running
    }

    /// Runs to the end, which must be a good one for all.
    #[track_caller]
    fn finish(&self) {
        let mut running = self.start();
        let codes = running.wait(PATIENCE);
        assert!(codes.iter().all(|code| *code == Some(0)), "{codes:?}\n{}", running.said());
        assert!(!self.nowhere().exists(), "a follower has made a data directory");
    }

    /// Waits until there are so many commits, or the job has ended.
    fn until_committed(&self, running: &mut Running, wanted: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while committed(self.data) < wanted && !running.has_ended() {
            assert!(Instant::now() < until, "no commits\n{}", running.said());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// Its processes; killed when dropped.
struct Running {
    processes: Vec<Child>,
    logs: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.processes.iter_mut().for_each(|child| drop(child.kill()));
        self.processes.iter_mut().for_each(|child| drop(child.wait()));
    }
}

impl Running {
    fn log(&self, process: usize) -> PathBuf {
        self.logs.path().join(process.to_string())
    }

    /// What a process said on stderr.
    fn text(&self, process: usize) -> String {
        fs::read_to_string(self.log(process)).unwrap()
    }

    fn said(&self) -> String {
        (0..self.processes.len()).map(|process| format!("process {process}:\n{}", self.text(process))).collect()
    }

    fn has_ended(&mut self) -> bool {
        self.processes.iter_mut().any(|child| child.try_wait().unwrap().is_some())
    }

    fn signal(&self, process: usize, signal: &str) {
        support::signal(self.processes[process].id(), signal);
    }

    /// Exit codes (none: by a signal) when all have ended.
    #[track_caller]
    fn wait(&mut self, within: Duration) -> Vec<Option<i32>> {
        let processes: Vec<usize> = (0..self.processes.len()).collect();
        self.wait_for(&processes, within)
    }

    #[track_caller]
    fn wait_for(&mut self, processes: &[usize], within: Duration) -> Vec<Option<i32>> {
        let until = Instant::now() + within;
        while processes.iter().any(|process| self.processes[*process].try_wait().unwrap().is_none()) {
            assert!(Instant::now() < until, "they hang after {within:?}\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        processes.iter().map(|process| self.processes[*process].wait().unwrap().code()).collect()
    }

    /// A process has ended with code 1 and one message, which has these parts.
    #[track_caller]
    fn complains(&mut self, process: usize, within: Duration, parts: &[&str]) {
        let code = self.wait_for(&[process], within);
        let text = self.text(process);
        assert_eq!(code, [Some(1)], "process {process}:\n{text}");
        let messages: Vec<&str> = text.lines().filter(|line| line.starts_with("drivetrain: ")).collect();
        assert_eq!(messages.len(), 1, "process {process} is to say one thing:\n{text}");
        parts.iter().for_each(|part| assert!(messages[0].contains(part), "{part:?} is missing in: {text}"));
        assert!(!text.contains("panicked"), "{text}");
    }
}

fn simulate(vehicles: &str, time: &str) -> Command {
    let mut command = drivetrain();
    command.args(["simulate", "--vehicles", vehicles, "--for", time, "--seed", "5"]);
    command.args(["--duplicates", "0.01", "--late", "0.03", "--faults"]);
    command
}

/// A fleet's readings, reference data beside them, and a configuration with small epochs and frequent checkpoints.
struct World {
    scratch: tempfile::TempDir,
    input: PathBuf,
    config: PathBuf,
}

impl World {
    fn new(vehicles: &str, time: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let input = scratch.path().join("readings.jsonl");
        run(simulate(vehicles, time).args(["--broken", "0.002", "--out"]).arg(&input), 0);
        // Documents travel between workers, too.
        let policy = r#"{"policy_id":"strict","version":3,"events":[{"kind":"harsh_braking","signal":"g_force_long","direction":"negative","threshold":0.31,"weight":2.5,"severity":[0.4,0.5]}],"driver":{"horizon":"7d","min_exposure":0.25}}"#;
        fs::write(scratch.path().join("policies.jsonl"), format!("{policy}\n")).unwrap();
        let fleets = r#"{"fleet_id":"west","parent_id":"all"}"#;
        fs::write(scratch.path().join("fleets.jsonl"), format!("{fleets}\n{{\"fleet_id\":\"all\"}}\n")).unwrap();
        let reference = "policies = { files = [\"policies.jsonl\"] }\nfleets = { files = [\"fleets.jsonl\"] }\n";
        let config = small_epochs(scratch.path(), &[]);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text + reference).unwrap();
        Self { scratch, input, config }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn job<'a>(&'a self, data: &'a Path, processes: usize, workers: usize) -> Job<'a> {
        Job { broker: None, config: &self.config, data, input: &self.input, processes, workers }
    }

    /// The directory of an undisturbed replay by one worker.
    fn reference(&self) -> PathBuf {
        let data = self.path("reference");
        replay(&self.config, &data, &["--workers", "1"], &[&self.input]);
        data
    }
}

#[test]
fn several_processes_give_what_one_gives() {
    let world = World::new("25", "10m");
    let reference = world.reference();
    let expected = final_state(&reference);
    for table in ["trips", "windows", "readings", "live driver_scores"] {
        let rows = expected.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| rows.len());
        assert!(rows > 0, "{table} is empty: this test would show nothing");
    }
    assert_eq!(sql(&reference, "select distinct policy_id from trips"), ["strict"], "documents count");
    for (processes, workers) in [(2, 1), (2, 2), (3, 1)] {
        let data = world.path(&format!("{processes}-{workers}"));
        world.job(&data, processes, workers).finish();
        assert_same(&format!("{processes} processes of {workers} workers"), &expected, &final_state(&data));
    }
}

#[test]
fn every_step_repeats_in_several_processes() {
    let world = World::new("12", "10m");
    let reference = world.reference();
    let data = world.path("again");
    let job = world.job(&data, 2, 2);
    let hosts = hosts(2);
    let bindings = reference.join("bindings");
    let logs = tempfile::tempdir().unwrap();
    let command = |process: usize| {
        let mut command = job.command(process, &hosts);
        let log = File::create(logs.path().join(process.to_string())).unwrap();
        command.arg("--bindings").arg(&bindings).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    };
    let processes = vec![command(0), command(1)];
    let mut running = Running { processes, logs };
    assert_eq!(running.wait(PATIENCE), [Some(0), Some(0)], "{}", running.said());
    assert_same("bindings, 2 processes", &every_step(&reference), &every_step(&data));
}

/// Kills of the leader and of the follower by turns, at other instants, each followed by a start in another shape.
#[test]
fn a_job_whose_processes_are_killed_goes_on_in_another_shape() {
    let world = World::new("60", "15m");
    let reference = world.reference();
    let expected = final_state(&reference);
    let data = world.path("killed");
    let shapes = [(2, 1, 0), (2, 2, 1), (1, 2, 0), (3, 1, 2), (2, 1, 1), (2, 2, 0)];
    let (mut killed, mut finished) = (0, false);
    for (round, (processes, workers, victim)) in shapes.into_iter().enumerate() {
        let job = world.job(&data, processes, workers);
        let wanted = (committed(job.data) + [1, 4, 2][round % 3]).max(1);
        let mut running = job.start();
        job.until_committed(&mut running, wanted);
        std::thread::park_timeout(Duration::from_millis(round as u64 * 37 % 150));
        if running.has_ended() {
            let codes = running.wait(PATIENCE);
            assert!(codes.iter().all(|code| *code == Some(0)), "round {round}: {codes:?}\n{}", running.said());
            finished = true;
            break;
        }
        running.signal(victim, "-KILL");
        killed += 1;
        for process in (0..processes).filter(|process| *process != victim) {
            running.complains(process, TEN_SECONDS, &[&format!("process {victim} (127.0.0.1:")]);
        }
    }
    assert!(killed >= 4, "only {killed} kills before the end: make the input longer");
    if !finished {
        world.job(&data, 2, 1).finish();
    }
    assert_same(&format!("after {killed} kills"), &expected, &final_state(&data));
    for table in ["trips", "windows", "readings", "events"] {
        let sum = |data: &Path| one(data, &format!("select sum(diff) from {table}_log"));
        assert_eq!(sum(&reference), sum(&data), "{table}: a change is in the log twice, or not at all");
    }
}

/// Only the leader comes to the steps; the others notice its end.
#[test]
fn a_kill_of_the_leader_at_each_step_leaves_no_trace() {
    let world = World::new("60", "60m");
    let reference = world.reference();
    let data = world.path("steps");
    let job = world.job(&data, 2, 1);
    kill_at_each_step("2 processes", |variables| {
        let mut running = job.start_with(&variables);
        let code = running.wait_for(&[0], PATIENCE)[0];
        if code.is_none() {
            running.complains(1, TEN_SECONDS, &["process 0 (127.0.0.1:"]);
        }
        (code, running.said())
    });
    job.finish();
    assert_same("killed at each step", &final_state(&reference), &final_state(&data));
    let again = world.path("again");
    let bindings = data.join("bindings").display().to_string();
    replay(&world.config, &again, &["--workers", "1", "--bindings", &bindings], &[&world.input]);
    assert_same("its bindings", &every_step(&again), &every_step(&data));
}

/// Neither end of a connection sees anything of a process that is stopped, but its silence.
#[test]
fn a_process_that_is_stopped_is_noticed_and_changes_nothing_later() {
    let world = World::new("60", "15m");
    let reference = world.reference();
    let data = world.path("stopped");
    for (victim, other) in [(1, 0), (0, 1)] {
        let job = world.job(&data, 2, 1);
        let wanted = committed(job.data) + 2;
        let mut running = job.start();
        job.until_committed(&mut running, wanted);
        running.signal(victim, "-STOP");
        assert!(!running.has_ended(), "too late\n{}", running.said());
        let parts = [format!("process {victim} (127.0.0.1:"), "was not heard for 6 s".into()];
        running.complains(other, TEN_SECONDS, &parts.each_ref().map(String::as_str));
        let progress = || fs::read(data.join("progress/log.jsonl")).unwrap();
        let before = progress();
        running.signal(victim, "-CONT");
        running.complains(victim, TEN_SECONDS, &[&format!("process {other} (127.0.0.1:")]);
        if victim == 1 {
            assert!(before == progress(), "a follower has written");
        }
    }
    // When the whole machine sleeps, nobody is to blame.
    let job = world.job(&data, 2, 1);
    let wanted = committed(job.data) + 1;
    let mut running = job.start();
    job.until_committed(&mut running, wanted);
    (0..2).for_each(|process| running.signal(process, "-STOP"));
    std::thread::park_timeout(Duration::from_secs(8));
    (0..2).for_each(|process| running.signal(process, "-CONT"));
    assert_eq!(running.wait(PATIENCE), [Some(0), Some(0)], "{}", running.said());
    assert_same("after stops", &final_state(&reference), &final_state(&data));
}

#[test]
fn sigterm_to_any_process_stops_all_of_them_well() {
    let world = World::new("60", "15m");
    let reference = world.reference();
    let data = world.path("terminated");
    for victims in [&[1][..], &[0], &[1, 0]] {
        let job = world.job(&data, 2, 1);
        let wanted = committed(job.data) + 2;
        let mut running = job.start();
        job.until_committed(&mut running, wanted);
        assert!(!running.has_ended(), "too late\n{}", running.said());
        victims.iter().for_each(|victim| running.signal(*victim, "-TERM"));
        assert_eq!(running.wait(TEN_SECONDS), [Some(0), Some(0)], "{victims:?}\n{}", running.said());
        let last = fs::read_to_string(data.join("bindings").join("g1.jsonl")).unwrap_or_default();
        assert!(!last.contains("\"end\":true"), "{victims:?}: it was not stopped, it was done");
    }
    // One that waits for the others can be stopped, too.
    for process in 0..2 {
        let mut child = world.job(&data, 2, 1).command(process, &hosts(2)).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(500));
        assert!(child.try_wait().unwrap().is_none(), "process {process} does not wait");
        support::signal(child.id(), "-TERM");
        let until = Instant::now() + TEN_SECONDS;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "process {process} waits on");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "process {process}");
    }
    world.job(&data, 2, 2).finish();
    assert_same("after stops", &final_state(&reference), &final_state(&data));
}

/// Both say in what they differ and end with code 2; nothing is written.
#[test]
fn processes_of_different_jobs_refuse_each_other() {
    let world = World::new("2", "1m");
    let other = world.path("other.toml");
    fs::write(&other, fs::read_to_string(&world.config).unwrap().replace("max_in_flight = 4", "max_in_flight = 5"))
        .unwrap();
    let data = world.path("refused");
    let same = world.job(&data, 2, 1);
    let hosts = hosts(2);
    let mut extra = same.command(1, &hosts);
    extra.args(["--at", "2026-01-01T00:00:00Z"]);
    let cases = [
        (Job { config: &other, ..same }.command(1, &hosts), "runs another configuration", "the same --config"),
        (extra, "runs another configuration", "(and --at)"),
        (Job { workers: 2, ..same }.command(1, &hosts), "another number of workers (2, not 1)", "the same --workers"),
        (
            Job { processes: 3, ..same }.command(1, &format!("{hosts},localhost:1")),
            "counts other processes (3, not 2)",
            "--hosts",
        ),
    ];
    for (mut follower, what, remedy) in cases {
        let leader = same.command(0, &hosts).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let follower = follower.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (leader, follower) = (leader.wait_with_output().unwrap(), follower.wait_with_output().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (there, here) = (text(&leader.stderr), text(&follower.stderr));
        assert_eq!((leader.status.code(), follower.status.code()), (Some(2), Some(2)), "{what}\n{there}\n{here}");
        assert!(there.contains("process 1 (") && there.contains(what) && there.contains(remedy), "{there}");
        assert!(
            here.contains("process 0 (") && here.contains("refused this process") && here.contains(remedy),
            "{here}"
        );
        assert!(!data.exists(), "{what}: something was written");
    }
}

/// Kafka is the leader's alone; what was committed before a kill is not committed again.
#[test]
fn a_run_on_kafka_goes_on_in_another_shape() {
    let Some(kafka) = Kafka::start() else { return };
    let world = World::new("30", "10m");
    let input = world.path("good.jsonl");
    run(simulate("30", "10m").arg("--out").arg(&input), 0);
    run(simulate("30", "10m").args(["--brokers", &kafka.brokers, "--topic", "telemetry"]), 0);
    let reference = world.path("of-files");
    replay(&world.config, &reference, &[], &[&input]);
    let expected = readings(&reference);
    let data = world.path("run");
    for (processes, victim) in [(2, Some(1)), (3, Some(0)), (2, None)] {
        let job = Job { broker: Some(&kafka.brokers), ..world.job(&data, processes, 1) };
        let mut running = job.start();
        // What was read when it begins, and something on top of it.
        let wanted = if victim.is_some() { published(&data) + 1 } else { expected.len() };
        let until = Instant::now() + PATIENCE;
        while published(&data) < wanted {
            assert!(!running.has_ended() && Instant::now() < until, "{}", running.said());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        if let Some(victim) = victim {
            running.signal(victim, "-KILL");
            for process in (0..processes).filter(|process| *process != victim) {
                running.complains(process, TEN_SECONDS, &[&format!("process {victim} (127.0.0.1:")]);
            }
        } else {
            running.signal(1, "-TERM");
            assert_eq!(running.wait(PATIENCE), [Some(0), Some(0)], "{}", running.said());
        }
    }
    assert!(expected == readings(&data), "{} readings, not {}", readings(&data).len(), expected.len());
    assert_eq!(one(&data, "select sum(diff) from readings_log"), expected.len().to_string());
}

fn readings(data: &Path) -> Vec<String> {
    let mut rows = sql(data, "select * from readings");
    rows.sort();
    rows
}

/// Readings that a reader sees.
fn published(data: &Path) -> usize {
    let query = "select count(*) from readings";
    let output = drivetrain().args(["sql", "--format", "csv", "--data"]).arg(data).arg(query).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().nth(1).map_or(0, |count| count.parse().unwrap())
}
