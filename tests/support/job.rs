//! `drivetrain run` as a process of the tests.

use super::{drivetrain, run};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

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
        run(Command::new("kill").args([signal, &self.process.id().to_string()]), 0);
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// How it has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().unwrap()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
