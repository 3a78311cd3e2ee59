//! History, checkpoints, manifest and bindings on a real S3 server: a job gives what it gives on a disk, loses nothing with
//! its data directory, and says what is wrong with a store.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::job::{Job, Simulation, complaint};
use support::kafka::Kafka;
use support::s3::{BUCKET, S3, SECRET};
use support::steps::OFTEN;
use support::topics::{consumer, end_offsets, wait_until_read};
use support::world::{drain, drain_to, hurried, readings, small_epochs, state};
use support::{
    assert_same, drivetrain, every_step, final_state, live_state, one, replay, rows_of, run, sql, table_state,
};

/// Far more than it takes, also on a machine that has much else to do.
const SOON: Duration = Duration::from_secs(120);

/// What a clean end leaves of a job: no staged object, no local copy, and no history file twice.
#[track_caller]
fn nothing_left_over(s3: &S3, prefix: &str, data: &Path) {
    assert_eq!(s3.objects(&format!("{prefix}/staging")), Vec::<PathBuf>::new());
    let local = run(Command::new("find").arg(data).args(["-path", "*/staging/*", "-type", "f"]), 0);
    assert_eq!(String::from_utf8_lossy(&local.stdout), "");
    for name in ["history", "manifest", "bindings"] {
        assert!(!data.join(name).exists(), "{name} is in the data directory");
    }
    let mut contents: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    for path in s3.objects(&format!("{prefix}/history")) {
        let before = contents.insert(fs::read(&path).unwrap(), path.clone());
        assert!(before.is_none(), "{} has what {} has", path.display(), before.unwrap().display());
    }
    assert!(!contents.is_empty(), "there is no history");
}

/// A replay to a store, killed now and then, and one to a disk: the same tables; as many rows in each log; and its bindings
/// give every row of every log again.
#[test]
fn a_replay_gives_what_it_gives_on_a_disk() {
    let Some(s3) = S3::start() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let input = readings(scratch.path(), "40", "20m");
    let config = small_epochs(scratch.path(), &[]);
    let (local, data, url) = (scratch.path().join("local"), scratch.path().join("data"), s3.url("a/replay"));
    replay(&config, &local, &["--workers", "1"], &[&input]);
    let start = |point: Option<&str>| {
        let mut command = drivetrain();
        command.args(["replay", "--workers", "2", "--config"]).arg(&config).arg("--data").arg(&data).arg(&input);
        command.env("DRIVETRAIN_STORAGE__URL", &url).envs(point.map(|point| ("DRIVETRAIN_FAILPOINT", point)));
        command.output().unwrap()
    };
    for point in ["checkpoint.sync:4", "publish.between:1", "publish.between:2", "manifest.between:5", "trim.after:1"] {
        let output = start(Some(point));
        assert_eq!(output.status.code(), None, "{point}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = start(None);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("sql --data {}", url.display())) && !said.contains(SECRET), "{said}");

    let mut there = table_state(&url);
    there.extend(live_state(&data));
    assert_same("on a store and on a disk", &final_state(&local), &there);
    nothing_left_over(&s3, "a/replay", &data);

    // What happened in which epoch is in the store, too: its bindings give the same steps.
    let bindings = scratch.path().join("bindings");
    fs::create_dir(&bindings).unwrap();
    for object in s3.objects("a/replay/bindings") {
        fs::copy(&object, bindings.join(object.file_name().unwrap())).unwrap();
    }
    let again = scratch.path().join("again");
    replay(&config, &again, &["--workers", "1", "--bindings", bindings.to_str().unwrap()], &[&input]);
    let logs = |data: &Path| -> Vec<(String, Vec<String>)> {
        rows_of(data, |table| match table {
            "rejects" | "late" => format!("select epoch, diff, origin, position, reason from {table}_log"),
            _ => format!("select * from {table}_log"),
        })
    };
    assert_same("its bindings", &logs(&again), &logs(&url));
    assert!(every_step(&again).iter().any(|(table, rows)| table == "trips" && !rows.is_empty()));

    // The past, and the tools of others.
    let walls = sql(&url, "select max(epoch) from windows_log");
    let middle = walls[0].parse::<i64>().unwrap() / 2;
    let as_of = |data: &Path| {
        let output = run(
            drivetrain()
                .args(["sql", "--format", "csv", "--as-of", &middle.to_string(), "--data"])
                .arg(data)
                .arg("select count(*), sum(count) from windows"),
            0,
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(as_of(&url), as_of(&again));
    read_by_pyarrow(&s3, &url);
    let refused = run(drivetrain().args(["compact", "--data"]).arg(&url), 2);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not work yet"));
    let live = run(drivetrain().args(["sql", "--data"]).arg(&url).arg("select * from live_driver_scores"), 2);
    assert!(String::from_utf8_lossy(&live.stderr).contains("--brokers"));
    let nobody = run(drivetrain().args(["sql", "--data"]).arg(s3.url("nobody")).arg("select 1"), 2);
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no job has written here"));
}

/// pyarrow's own S3 client counts what `sql` counts.
fn read_by_pyarrow(s3: &S3, url: &Path) {
    let python = std::env::var("DRIVETRAIN_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = "import os, sys, pyarrow.fs as fs, pyarrow.dataset as ds\n\
                  store = fs.S3FileSystem(endpoint_override=os.environ['AWS_ENDPOINT_URL'].split('//')[1], scheme='http')\n\
                  rows = ds.dataset(sys.argv[1], filesystem=store, format='parquet', partitioning='hive')\n\
                  print(rows.count_rows(), sum(rows.to_table(columns=['diff'])['diff'].to_pylist()), sep=',')";
    let path = url.to_str().unwrap().strip_prefix("s3://").unwrap();
    let mut command = Command::new(python);
    command.args(["-c", script]).arg(format!("{path}/history/trips_log")).envs(s3.variables(SECRET));
    let counted = String::from_utf8(run(&mut command, 0).stdout).unwrap();
    assert_eq!(counted.trim(), one(url, "select count(*), sum(diff) from trips_log"));
}

/// A broker, a store, and a scratch directory.
struct World {
    /// Stopped first.
    producer: Option<Simulation>,
    kafka: Kafka,
    s3: S3,
    scratch: tempfile::TempDir,
}

impl World {
    fn new() -> Option<World> {
        let (s3, kafka) = (S3::start()?, Kafka::start()?);
        Some(World { kafka, s3, scratch: tempfile::tempdir().unwrap(), producer: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Readings arrive until [`Self::producer`] is gone.
    fn produce(&mut self) {
        let mut simulate = drivetrain();
        simulate.args(["simulate", "--vehicles", "40", "--seed", "11", "--for", "2h", "--rate", "600"]);
        self.producer = Some(Simulation::start(simulate, &self.kafka.brokers));
    }

    /// A job in a hurry whose storage is `s3://…/NAME`, given up soon.
    fn config(&self, name: &str) -> PathBuf {
        let url = format!("\"s3://{BUCKET}/{name}\"");
        hurried(self.scratch.path(), name, &[("url", url.as_str()), ("retry_for", "\"2s\"")])
    }

    fn start(&self, config: &Path, variables: &[(&str, &str)]) -> Job {
        Job::start_with(config, &self.path("data"), &self.kafka.brokers, &self.path("log"), 2, variables)
    }

    /// Started, and killed when it comes to a step.
    fn kill_at(&self, config: &Path, point: &str) {
        let mut job = self.start(config, &[OFTEN, ("DRIVETRAIN_FAILPOINT", point)]);
        job.is_killed_at(point, SOON, &self.path("log"));
    }

    /// All that was produced has been read, and says what a job on a disk says that nobody disturbed.
    fn ends_equal(&mut self, config: &Path, name: &str) {
        self.producer = None;
        let brokers = &self.kafka.brokers;
        let produced = end_offsets(&consumer(brokers, "counter"), "telemetry").iter().sum::<i64>();
        let calm = hurried(self.scratch.path(), "calm", &[]);
        let (data, url, undisturbed) = (self.path("data"), self.s3.url(name), self.path("calm"));
        drain_to(brokers, config, name, (&data, &url), &self.path("log"), produced);
        drain(brokers, &calm, "calm", &undisturbed, &self.path("log"), produced);
        let sums = "select sum(records) - sum(decoded) - sum(rejected), sum(late) from intake";
        assert_eq!(one(&url, sums), "0,0");
        let expected = state(&undisturbed, brokers, "calm.");
        for table in ["trips", "windows", "topic driver_scores"] {
            let rows = expected.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| rows.len());
            assert!(rows > 0, "{table} is empty: this test would show nothing");
        }
        assert_same("on a store, and undisturbed", &expected, &state(&url, brokers, &format!("{name}.")));
        for table in ["trips", "windows", "readings", "events"] {
            let sum = |data: &Path| one(data, &format!("select sum(diff) from {table}_log"));
            assert_eq!(sum(&url), sum(&undisturbed), "{table}: a change is in the log twice, or not at all");
        }
        nothing_left_over(&self.s3, name, &data);
    }
}

/// The steps at which the store matters, with how many times each is passed before the kill.
const STEPS: [&str; 25] = [
    "final_files:3",
    "history.close:3",
    "history.closed:2",
    "checkpoint.write:3",
    "checkpoint.sync:3",
    "checkpoint.rename:3",
    "commit.after:6",
    "publish.before:2",
    "publish.between:1",
    "publish.between:2",
    "publish.after:2",
    "manifest.before:3",
    "manifest.between:4",
    "manifest.rewrite:1",
    "manifest.after:2",
    "trim.before:1",
    "trim.after:1",
    "claim.after:1",
    "recovery.publish:1",
    "recovery.staging:1",
    "recovery.sweep:1",
    "recovery.bindings:1",
    "recovery.manifest:1",
    "recovery.done:1",
    "publish.between:4",
];

#[test]
fn a_run_that_is_killed_and_loses_its_directory_ends_equal() {
    let Some(mut world) = World::new() else { return };
    let config = world.config("killed");
    world.produce();
    for (i, point) in STEPS.iter().enumerate() {
        world.kill_at(&config, point);
        if i % 2 == 0 {
            fs::remove_dir_all(world.path("data")).unwrap();
        }
    }
    world.ends_equal(&config, "killed");
}

#[test]
fn a_store_that_is_away_or_refuses_is_told_and_loses_nothing() {
    let Some(mut world) = World::new() else { return };
    world.produce();
    let (config, log) = (world.config("away"), world.path("log"));

    // Before anything was written: what is wrong, and what to do.
    let refused = |variables: &[(&str, &str)], parts: &[&str]| {
        world.start(&config, variables).complains(SOON, &log, parts);
        for secret in [SECRET, "another-secret"] {
            assert!(!world.said().contains(secret), "{}", world.said());
        }
    };
    refused(
        &[("AWS_SECRET_ACCESS_KEY", "another-secret")],
        &["does not accept the credentials", "AWS_SECRET_ACCESS_KEY"],
    );
    refused(
        &[("DRIVETRAIN_STORAGE__URL", "s3://no-such-bucket/x")],
        &["s3://no-such-bucket/x", "no such bucket", "Create it"],
    );
    refused(
        &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")],
        &["cannot be reached", "storage.endpoint", "nothing is lost"],
    );
    let sql = drivetrain().args(["sql", "--data", "s3://no-such-bucket/x", "select 1"]).output().unwrap();
    complaint(sql.status.code(), &String::from_utf8_lossy(&sql.stderr), &["no such bucket"]);

    // In its midst, with much to publish.
    let mut job = world.start(&config, &[("DRIVETRAIN_FAILPOINT", "publish.before:2:stop")]);
    job.wait_until_stopped(&log);
    world.s3.stop();
    job.signal("-CONT");
    job.complains(SOON, &log, &["s3://fleet-bucket/away/", "cannot be reached", "storage.endpoint", "nothing is lost"]);
    world.start(&config, &[]).complains(SOON, &log, &["cannot be reached"]);
    assert!(!world.said().contains(SECRET));

    // For a moment: it waits.
    world.s3.again();
    let mut job = world.start(&config, &[("DRIVETRAIN_STORAGE__RETRY_FOR", "60s")]);
    world.s3.stop();
    std::thread::park_timeout(Duration::from_secs(2));
    world.s3.again();
    wait_until_read(&world.kafka.brokers, "telemetry", "away", &log);
    assert!(job.ended().is_none(), "{}", world.said());
    job.kill();
    fs::remove_dir_all(world.path("data")).unwrap();
    world.ends_equal(&config, "away");
}
