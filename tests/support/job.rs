//! `drivetrain run` as a process of the tests.

use super::drivetrain;
use super::topics::wait_for_topic;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// `drivetrain replay` with two workers until its `nth` commit, for certain, where it stops cleanly.
#[track_caller]
pub fn replay_until_commit(nth: u32, config: &Path, data: &Path, input: &Path) {
    let mut job = drivetrain()
        .args(["replay", "--workers", "2", "--config"])
        .arg(config)
        .arg("--data")
        .arg(data)
        .arg(input)
        .env("DRIVETRAIN_FAILPOINT", format!("commit.after:{nth}:stop"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !is_stopped(job.id()) {
        assert!(job.try_wait().unwrap().is_none(), "it ended before commit {nth}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    super::signal(job.id(), "-TERM");
    super::signal(job.id(), "-CONT");
    let output = job.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A running `drivetrain run`; killed when dropped.
pub struct Job {
    process: Child,
}

impl Job {
    /// With two workers.
    pub fn start(config: &Path, data: &Path, brokers: &str, log: &Path) -> Job {
        Job::start_with(config, data, brokers, log, 2, &[])
    }

    /// With so many workers and these environment variables.
    pub fn start_with(
        config: &Path,
        data: &Path,
        brokers: &str,
        log: &Path,
        workers: usize,
        variables: &[(&str, &str)],
    ) -> Job {
        let log = std::fs::File::create(log).unwrap();
        let process = drivetrain()
            .args(["run", "--workers", &workers.to_string(), "--config"])
            .arg(config)
            .arg("--data")
            .arg(data)
            .env("DRIVETRAIN_KAFKA__BROKERS", brokers)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Job { process }
    }

    /// SIGTERM, then its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.process.wait().unwrap().code()
    }

    pub fn signal(&self, signal: &str) {
        super::signal(self.process.id(), signal);
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Waits until it has stopped itself at its failpoint (`…:stop`).
    pub fn wait_until_stopped(&mut self, log: &Path) {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        let until = Instant::now() + Duration::from_secs(180);
        while !is_stopped(self.process.id()) {
            assert!(self.ended().is_none(), "it ended before its failpoint: {}", said());
            assert!(Instant::now() < until, "it never came to its failpoint: {}", said());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// It ends in time, with code 1 and one message on stderr, which has these parts.
    #[track_caller]
    pub fn complains(&mut self, within: Duration, log: &Path, parts: &[&str]) {
        let status = self.end(within, || format!("it goes on: {}", std::fs::read_to_string(log).unwrap()));
        complaint(status.code(), &std::fs::read_to_string(log).unwrap(), parts);
    }

    /// It comes to its failpoint `point` in time, and is killed there.
    #[track_caller]
    pub fn is_killed_at(&mut self, point: &str, within: Duration, log: &Path) {
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        let status = self.end(within, || format!("it never came to {point}: {}", said()));
        assert_eq!(status.code(), None, "it ended before {point}: {}", said());
    }

    /// Waits for its end.
    #[track_caller]
    fn end(&mut self, within: Duration, otherwise: impl Fn() -> String) -> ExitStatus {
        let until = Instant::now() + within;
        loop {
            match self.ended() {
                Some(status) => return status,
                None => std::thread::park_timeout(Duration::from_millis(10)),
            }
            assert!(Instant::now() < until, "{}", otherwise());
        }
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }
}

/// Simulated readings that arrive in the topic `telemetry` until this is dropped.
pub struct Simulation(Child);

impl Simulation {
    /// `simulate`: the command but for its destination. Returns when the topic is there.
    pub fn start(mut simulate: Command, brokers: &str) -> Simulation {
        simulate.args(["--brokers", brokers, "--topic", "telemetry"]).stdout(Stdio::null()).stderr(Stdio::null());
        let simulation = Simulation(simulate.spawn().unwrap());
        wait_for_topic(brokers, "telemetry");
        simulation
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Code 1, and one message, which has these parts.
#[track_caller]
pub fn complaint(code: Option<i32>, said: &str, parts: &[&str]) {
    assert_eq!(code, Some(1), "{said}");
    let messages: Vec<&str> = said.lines().filter(|line| line.starts_with("drivetrain: ")).collect();
    assert_eq!(messages.len(), 1, "it is to say one thing: {said}");
    parts.iter().for_each(|part| assert!(messages[0].contains(part), "{part:?} is missing in: {said}"));
    assert!(!said.contains("panicked"), "{said}");
}

/// Whether a process has been stopped (SIGSTOP).
pub fn is_stopped(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name before the state may hold anything.
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}
