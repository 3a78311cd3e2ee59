//! A real Apache Kafka for the tests: the one that `DRIVETRAIN_TEST_KAFKA` names, or one started from its jars (Java
//! and Maven), in a directory and on ports of its own.

use super::repository;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const VERSION: &str = "4.1.0";

/// A broker; stopped when dropped if it was started here.
pub struct Kafka {
    pub brokers: String,
    process: Option<Child>,
    directory: Option<tempfile::TempDir>,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Kafka {
    /// A broker, or None (said loudly) where none can be had. With `DRIVETRAIN_REQUIRE_KAFKA=1` that is a failure.
    pub fn start() -> Option<Kafka> {
        if let Ok(brokers) = std::env::var("DRIVETRAIN_TEST_KAFKA") {
            return Some(Kafka { brokers, process: None, directory: None });
        }
        or_said("Kafka", Kafka::launch())
    }

    fn launch() -> Result<Kafka, String> {
        let jars = jars()?;
        let class_path = format!("{}/*", jars.display());
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let (port, controller) = (free_port()?, free_port()?);
        let properties = directory.path().join("server.properties");
        std::fs::write(&properties, server_properties(port, controller, directory.path()))
            .map_err(|e| e.to_string())?;
        let format = Command::new("java")
            .args(["-cp", &class_path, "kafka.tools.StorageTool", "format", "-t", "3Db5QLSqSZieL3rJBUUegA", "-c"])
            .arg(&properties)
            .output()
            .map_err(|e| format!("java: {e}"))?;
        if !format.status.success() {
            return Err(format!("StorageTool: {}", String::from_utf8_lossy(&format.stderr)));
        }
        let brokers = format!("127.0.0.1:{port}");
        let mut kafka = Kafka { brokers, process: None, directory: Some(directory) };
        kafka.spawn()?;
        Ok(kafka)
    }

    /// Starts the broker in its directory and waits until it listens.
    fn spawn(&mut self) -> Result<(), String> {
        let directory = self.directory.as_ref().ok_or("this broker was not started here")?.path();
        let class_path = format!("{}/*", jars()?.display());
        let log = std::fs::File::options().create(true).append(true).open(directory.join("kafka.log"));
        let process = Command::new("java")
            .args(["-Xmx1g", "-cp", &class_path, "kafka.Kafka"])
            .arg(directory.join("server.properties"))
            .stdout(log.map_err(|e| e.to_string())?)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("java: {e}"))?;
        self.process = Some(process);
        until_it_listens(&self.brokers)
    }

    /// Kills the broker (SIGKILL), leaves it away for a while, and starts it on the same data and port. False: it is not
    /// ours to restart.
    pub fn restart(&mut self, away: Duration) -> bool {
        let Some(mut process) = self.process.take() else { return false };
        process.kill().unwrap();
        process.wait().unwrap();
        std::thread::park_timeout(away);
        self.spawn().unwrap();
        true
    }
}

/// The jars, fetched once into a cache beside the target directory's.
fn jars() -> Result<PathBuf, String> {
    let jars = cache()?.join(format!("kafka-{VERSION}"));
    let complete = jars.join(".complete");
    if complete.exists() {
        return Ok(jars);
    }
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(repository("tests/support/kafka/pom.xml"))
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .map_err(|e| format!("mvn: {e}"))?;
    if !output.status.success() {
        return Err(format!("mvn: {}", String::from_utf8_lossy(&output.stdout)));
    }
    std::fs::write(complete, "").map_err(|e| e.to_string())?;
    Ok(jars)
}

/// What is fetched once and kept.
pub fn cache() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("drivetrain"))
}

pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    Ok(listener.local_addr().map_err(|e| e.to_string())?.port())
}

fn server_properties(port: u16, controller: u16, directory: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={}\n\
         num.partitions=4\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n",
        directory.join("logs").display()
    )
}

/// A server, or None (said loudly) where none can be had. With `DRIVETRAIN_REQUIRE_KAFKA=1` that is a failure.
pub fn or_said<T>(server: &str, launched: Result<T, String>) -> Option<T> {
    let reason = match launched {
        Ok(launched) => return Some(launched),
        Err(reason) => reason,
    };
    let required = std::env::var("DRIVETRAIN_REQUIRE_KAFKA").is_ok_and(|v| v == "1");
    assert!(!required, "DRIVETRAIN_REQUIRE_KAFKA=1, but no {server} can be started: {reason}");
    eprintln!("\n!!! SKIPPED, AND SO NOT SHOWN TO WORK: no {server} can be started: {reason}\n");
    None
}

/// Waits until a server accepts connections.
pub fn until_it_listens(address: &str) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err("it did not listen within 60 s".into());
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Ok(())
}
