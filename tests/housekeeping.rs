//! `drivetrain compact`: fewer files, less past, and no answer that changes: while a job writes, while readers read,
//! killed at any step.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::world::fleet;
use support::{TABLES, assert_same, drivetrain, final_state, one, peers, replay, repository, rows_of, run, sql};

/// A job that writes many small files.
const HURRIED: [(&str, &str); 4] =
    [("max_records", "500"), ("max_in_flight", "4"), ("checkpoint_every", "\"200ms\""), ("roll_after", "\"100ms\"")];

/// A compaction that leaves so much of the past.
fn keeping(directory: &Path, as_of: &str) -> PathBuf {
    let as_of = format!("\"{as_of}\"");
    fleet(directory, "keeping", &[("as_of", &as_of)])
}

fn simulate(out: &Path, start: &str, seconds: &str) {
    run(
        drivetrain()
            .args(["simulate", "--vehicles", "30", "--for", seconds, "--seed", "5", "--broken", "0.002", "--start"])
            .args([start, "--duplicates", "0.01", "--late", "0.03", "--faults", "--out"])
            .arg(out),
        0,
    );
}

fn compact(config: &Path, data: &Path, extra: &[&str]) -> Command {
    let mut command = drivetrain();
    command.args(["compact", "--config"]).arg(config).arg("--data").arg(data).args(extra);
    command
}

fn said(command: &mut Command) -> String {
    String::from_utf8(run(command, 0).stdout).unwrap()
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-r").arg(from).arg(to), 0);
}

/// Parquet files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.extend(path.extension().is_some_and(|e| e == "parquet").then_some(path)),
        }
    }
    found
}

/// What is left aside: nothing but these.
#[track_caller]
fn assert_settled(data: &Path) {
    let mut names: Vec<_> =
        fs::read_dir(data.join("compacted")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lock", "log.jsonl"]);
    let status = said(drivetrain().args(["compact", "--status", "--data"]).arg(data));
    let table = |line: &str| line.split_whitespace().nth(1).and_then(|n| n.parse::<usize>().ok());
    let named: usize = status.lines().skip(1).take_while(|l| !l.contains(':')).filter_map(table).sum();
    assert_eq!(files(&data.join("history")).len(), named, "{status}");
    assert!(!status.contains("not deleted yet"), "{status}");
}

/// The oldest epoch that `--as-of` reaches.
fn oldest(data: &Path) -> i64 {
    let status = said(drivetrain().args(["compact", "--status", "--data"]).arg(data));
    let (_, rest) = status.split_once("reaches back to epoch ").unwrap_or_else(|| panic!("{status}"));
    rest.lines().next().unwrap().parse().unwrap()
}

fn as_of(data: &Path, epoch: i64, query: &str) -> Vec<String> {
    let mut command = drivetrain();
    command.args(["sql", "--format", "csv", "--as-of", &epoch.to_string(), "--data"]).arg(data).arg(query);
    let mut rows: Vec<String> = said(&mut command).lines().map(str::to_string).collect();
    rows.sort();
    rows
}

#[test]
fn every_answer_from_the_limit_on_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let (input, data) = (scratch.path().join("readings.jsonl"), scratch.path().join("data"));
    simulate(&input, "2026-05-01T23:50:00Z", "15m");
    replay(&fleet(scratch.path(), "hurried", &HURRIED), &data, &[], &[&input]);
    let before = scratch.path().join("before");
    copy(&data, &before);
    let many = files(&data.join("history")).len();

    let config = keeping(scratch.path(), "100ms");
    let plan = said(&mut compact(&config, &data, &["--dry-run"]));
    assert!(plan.contains("become fewer, and changes up to epoch"), "{plan}");
    assert!(!data.join("compacted").exists(), "a dry run writes nothing");
    said(&mut compact(&config, &data, &[]));
    let limit = oldest(&data);
    assert_eq!(files(&data.join("history")).len(), many, "the grace time has not passed");
    said(&mut compact(&config, &data, &["--grace", "0s"]));
    said(&mut compact(&config, &data, &["--grace", "0s"]));
    assert_settled(&data);
    let few = files(&data.join("history")).len();
    // How many there were depends on the time that it took.
    assert!(few < 40 && few < many, "{many} files became {few}");
    assert_eq!(said(&mut compact(&config, &data, &["--dry-run"])), "nothing to do\n");

    assert_same("the state", &final_state(&before), &final_state(&data));
    let newest: i64 = one(&before, "select max(epoch) from trips_log").parse().unwrap();
    assert!(0 < limit && limit < newest, "{limit} of {newest}");
    let later = |data: &Path| rows_of(data, |table| format!("select * from {table}_log where epoch > {limit}"));
    assert_same("the log after the limit", &later(&before), &later(&data));
    for epoch in [limit, limit + 1, (limit + newest) / 2, newest] {
        for table in TABLES {
            let query = format!("select * from {table}");
            assert_eq!(as_of(&before, epoch, &query), as_of(&data, epoch, &query), "{table} at {epoch}");
        }
    }
    for table in ["windows", "trips", "driver_scores", "fleet_aggregates", "anomalies"] {
        let stale = format!("select count(*) from {table}_log where diff < 0 and epoch <= {limit}");
        assert_ne!(one(&before, &stale), "0", "{table}: there was nothing to cancel");
        assert_eq!(one(&data, &stale), "0", "{table}");
    }
    let output =
        run(drivetrain().args(["sql", "--as-of", &(limit - 1).to_string(), "--data"]).arg(&data).arg("select 1"), 2);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains(&format!("the oldest that is, is epoch {limit}")), "{text}");
    // Other tools list the directory.
    peers::views_agree(&data);
}

/// What is true at every epoch, and the readings so far.
fn cut(data: &Path) -> (i64, String) {
    let line = one(
        data,
        "select (select count(*) from readings) as readings, \
         (select count(*) from readings) - (select count(*) from (select distinct * from readings)) as a, \
         (select coalesce(sum(trips), 0) from driver_scores where status = 'active') - (select count(*) from trips \
         where status = 'COMPLETED' and safety_score is not null and driver_id is not null and not excluded) as b, \
         (select count(*) - count(distinct trip_id) from trips) as c",
    );
    let (count, rest) = line.split_once(',').unwrap();
    (count.parse().unwrap(), rest.to_string())
}

fn start(config: &Path, data: &Path, input: &Path, workers: &str) -> Child {
    let mut command = drivetrain();
    command.args(["replay", "--workers", workers, "--config"]).arg(config).arg("--data").arg(data).arg(input);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn while_a_job_writes_and_readers_read() {
    let scratch = tempfile::tempdir().unwrap();
    let (input, data) = (scratch.path().join("readings.jsonl"), scratch.path().join("data"));
    simulate(&input, "2026-05-01T23:50:00Z", "30m");
    let hurried = fleet(scratch.path(), "hurried", &HURRIED);
    let reference = scratch.path().join("reference");
    replay(&hurried, &reference, &[], &[&input]);
    let keeping = keeping(scratch.path(), "500ms");
    let mut job = start(&hurried, &data, &input, "2");
    let (mut readings, mut compactions, mut reads) = (0, 0, 0);
    let from = Instant::now();
    while !data.join("manifest").exists() && from.elapsed() < Duration::from_secs(30) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    while job.try_wait().unwrap().is_none() {
        // A query takes less than the grace time.
        let mut compaction = compact(&keeping, &data, &["--grace", "5s"]).stdout(Stdio::null()).spawn().unwrap();
        loop {
            let (count, rest) = cut(&data);
            assert_eq!(rest, "0,0,0", "after {compactions} compactions");
            assert!(count >= readings, "{count} readings after {readings}");
            (readings, reads) = (count, reads + 1);
            if let Some(status) = compaction.try_wait().unwrap() {
                assert!(status.success());
                compactions += 1;
                break;
            }
        }
    }
    assert!(job.wait().unwrap().success());
    assert!(compactions > 2 && reads > 2 && readings > 0, "{compactions} compactions, {reads} reads, {readings}");
    said(&mut compact(&keeping, &data, &["--grace", "0s"]));
    said(&mut compact(&keeping, &data, &["--grace", "0s"]));
    assert_settled(&data);
    assert_same("after it all", &final_state(&reference), &final_state(&data));
    peers::views_agree(&data);
}

#[test]
fn a_killed_job_goes_on_with_a_compacted_history() {
    let scratch = tempfile::tempdir().unwrap();
    let (input, data) = (scratch.path().join("readings.jsonl"), scratch.path().join("data"));
    simulate(&input, "2026-05-01T23:50:00Z", "30m");
    // No checkpoint: each start repeats everything, and leaves out what the files say that they hold.
    let mut fields = HURRIED;
    fields[2] = ("checkpoint_every", "\"0s\"");
    let hurried = fleet(scratch.path(), "hurried", &fields);
    let reference = scratch.path().join("reference");
    replay(&hurried, &reference, &[], &[&input]);
    let keeping = keeping(scratch.path(), "0s");
    let mut killed = 0;
    for round in 1..4 {
        let mut job = start(&hurried, &data, &input, ["1", "2", "4"][round % 3]);
        let from = Instant::now();
        let published = || if data.join("history").exists() { files(&data.join("history")).len() } else { 0 };
        let (before, wanted) = (published(), 12);
        while published() < before + wanted && from.elapsed() < Duration::from_secs(30) {
            if job.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        killed += usize::from(job.try_wait().unwrap().is_none());
        job.kill().unwrap();
        job.wait().unwrap();
        let before = cut(&data);
        said(&mut compact(&keeping, &data, &["--grace", "0s"]));
        assert_eq!(cut(&data), before);
    }
    assert_eq!(killed, 3, "it ended before a kill: make the input longer");
    replay(&hurried, &data, &["--workers", "2"], &[&input]);
    assert_same(&format!("after {killed} kills"), &final_state(&reference), &final_state(&data));
    for table in ["trips", "windows", "readings", "events", "driver_scores"] {
        let sum = format!("select sum(diff) from {table}_log");
        assert_eq!(one(&reference, &sum), one(&data, &sum), "{table}");
    }
    said(&mut compact(&keeping, &data, &["--grace", "0s"]));
    assert_same("compacted", &final_state(&reference), &final_state(&data));
    peers::views_agree(&data);
}

/// Each step, and how often it is reached before the kill.
const STEPS: [(&str, u32); 14] = [
    ("history.close", 2),
    ("history.closed", 3),
    ("housekeeping.written", 1),
    ("housekeeping.written", 4),
    ("housekeeping.synced", 1),
    ("housekeeping.recorded", 1),
    ("housekeeping.recorded", 5),
    ("housekeeping.linked", 1),
    ("housekeeping.linked", 3),
    ("housekeeping.deleted", 1),
    ("housekeeping.deleted", 7),
    ("housekeeping.settled", 2),
    ("housekeeping.swept", 1),
    ("housekeeping.swept", 4),
];

#[test]
fn killed_at_each_step() {
    let scratch = tempfile::tempdir().unwrap();
    let (input, base) = (scratch.path().join("readings.jsonl"), scratch.path().join("base"));
    simulate(&input, "2026-05-01T23:55:00Z", "10m");
    replay(&fleet(scratch.path(), "hurried", &HURRIED), &base, &[], &[&input]);
    let expected = final_state(&base);
    let counts = TABLES.map(|t| format!("(select count(*) from {t}) as {t}")).join(", ");
    let counts = format!("select {counts}");
    let keeping = keeping(scratch.path(), "300ms");
    for (step, nth) in STEPS {
        let data = scratch.path().join("data");
        copy(&base, &data);
        let failpoint = format!("{step}:{nth}");
        let mut command = compact(&keeping, &data, &["--grace", "0s"]);
        let killed = command.env("DRIVETRAIN_FAILPOINT", &failpoint).output().unwrap();
        assert_eq!(killed.status.code(), None, "{failpoint}: {}", String::from_utf8_lossy(&killed.stderr));
        assert_eq!(sql(&data, &counts), sql(&base, &counts), "{failpoint}");
        said(&mut compact(&keeping, &data, &["--grace", "0s"]));
        assert_settled(&data);
        assert_eq!(sql(&data, &counts), sql(&base, &counts), "{failpoint}");
        if nth == 1 {
            assert_same(&failpoint, &expected, &final_state(&data));
        }
        fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn retention_takes_old_days_and_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    let inputs = ["2026-05-01", "2026-05-03", "2026-05-04"].map(|day| {
        let input = scratch.path().join(format!("{day}.jsonl"));
        simulate(&input, &format!("{day}T12:00:00Z"), "3m");
        input
    });
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    replay(&repository("configs/fleet.toml"), &data, &[], &inputs);
    let before = scratch.path().join("before");
    copy(&data, &before);

    // Without a configuration, only files are merged.
    said(drivetrain().args(["compact", "--grace", "0s", "--data"]).arg(&data));
    assert_same("merged", &final_state(&before), &final_state(&data));

    let text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let text = text.replace("\nreadings = \"30d\"\n", "\nreadings = \"1d\"\n");
    let config = scratch.path().join("fleet.toml");
    fs::write(&config, text).unwrap();
    let done = said(&mut compact(&config, &data, &["--grace", "0s"]));
    assert!(done.contains("retention took 1 files"), "{done}");
    let days = "select date, count(*) from readings_log group by date order by date";
    assert_eq!(sql(&data, days), sql(&before, days)[1..]);
    assert_same("all but the readings", &final_state(&before)[1..], &final_state(&data)[1..]);
    assert!(files(&data.join("history/readings_log")).iter().all(|f| !f.to_string_lossy().contains("2026-05-01")));
    let status = said(drivetrain().args(["compact", "--status", "--data"]).arg(&data));
    let gone = sql(&before, days)[0].split(',').nth(1).unwrap().to_string();
    assert!(status.contains(&format!("readings has no days before 2026-05-03; {gone} rows are gone")), "{status}");
    assert_settled(&data);

    let output = run(drivetrain().args(["compact", "--data"]).arg(scratch.path()), 2);
    assert!(String::from_utf8(output.stderr).unwrap().contains("has no manifest"));
}
