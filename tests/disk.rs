//! Faults of the disk: full, read-only, not ours, a flipped byte. Each ends the job with one message and exit code 1, readers
//! still find what was committed and nothing else, and when the cause is gone the job goes on as if nothing had been.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::job::{complaint, is_stopped};
use support::mount::Condition;
use support::world::{readings, small_epochs};
use support::{assert_same, drivetrain, final_state, replay, signal, sql};

type State = Vec<(String, Vec<String>)>;

/// An input, and what must be there in the end.
struct Desk {
    scratch: tempfile::TempDir,
    input: PathBuf,
    config: PathBuf,
    expected: State,
    readings: BTreeSet<String>,
}

impl Desk {
    fn new(vehicles: &str, time: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let input = readings(scratch.path(), vehicles, time);
        let config = small_epochs(scratch.path(), &[]);
        let reference = scratch.path().join("reference");
        replay(&config, &reference, &["--workers", "1"], &[&input]);
        let (expected, readings) = (final_state(&reference), all_readings(&reference).into_iter().collect());
        Self { scratch, input, config, expected, readings }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn replay(&self, data: &Path) -> Command {
        let mut command = drivetrain();
        command
            .args(["replay", "--workers", "2", "--config"])
            .arg(&self.config)
            .arg("--data")
            .arg(data)
            .arg(&self.input);
        command
    }

    /// A data directory that was written until a kill, with a checkpoint and epochs to repeat.
    fn killed(&self, data: &Path, point: &str) {
        let output = self.replay(data).env("DRIVETRAIN_FAILPOINT", point).output().unwrap();
        assert_eq!(output.status.code(), None, "{point}: {}", said(&output));
    }

    /// A start that ends with code 1 and one message.
    #[track_caller]
    fn refused(&self, data: &Path, parts: &[&str]) {
        let output = self.replay(data).output().unwrap();
        complaint(output.status.code(), &said(&output), parts);
    }

    /// Runs to a step, where a condition is made before it goes on. False where it cannot be made.
    #[track_caller]
    fn fails_at(
        &self,
        data: &Path,
        point: &str,
        condition: impl FnOnce() -> Option<Condition>,
        parts: &[&str],
    ) -> bool {
        let mut job = self.replay(data);
        let job = job.env("DRIVETRAIN_FAILPOINT", format!("{point}:stop")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut job = job.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(180);
        while !is_stopped(job.id()) {
            assert!(
                job.try_wait().unwrap().is_none(),
                "it ended before {point}: {}",
                said(&job.wait_with_output().unwrap())
            );
            assert!(Instant::now() < until, "it never came to {point}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let made = condition();
        signal(job.id(), "-CONT");
        let output = job.wait_with_output().unwrap();
        if made.is_some() {
            complaint(output.status.code(), &said(&output), parts);
            self.is_right(data);
        }
        made.is_some()
    }

    /// What can be read has been committed, and is right.
    #[track_caller]
    fn is_right(&self, data: &Path) {
        let wrong: Vec<String> = all_readings(data).into_iter().filter(|row| !self.readings.contains(row)).collect();
        assert!(wrong.is_empty(), "{} readings that are not in the input, such as {}", wrong.len(), wrong[0]);
    }

    #[track_caller]
    fn ends_equal(&self, data: &Path) {
        replay(&self.config, data, &["--workers", "2"], &[&self.input]);
        assert_same("after the fault", &self.expected, &final_state(data));
    }
}

fn all_readings(data: &Path) -> Vec<String> {
    let mut rows = sql(data, "select * from readings");
    rows.sort();
    rows
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_full_disk_ends_the_job_and_with_more_room_it_goes_on() {
    let desk = Desk::new("60", "15m");
    let Some(disk) = Condition::disk(&desk.path("disk"), "400k") else { return };
    let data = desk.path("disk/data");
    let (mut full, mut finished) = (0, false);
    for size in ["400k", "800k", "1200k", "1600k", "2400k", "3200k", "512m"] {
        disk.resize(size);
        let output = desk.replay(&data).output().unwrap();
        if output.status.success() {
            finished = true;
            break;
        }
        complaint(
            output.status.code(),
            &said(&output),
            &["No space left on device", "Make room there", "nothing is lost"],
        );
        println!("{size}: {}", said(&output).lines().last().unwrap_or_default());
        full += 1;
        if data.join("history").exists() {
            desk.is_right(&data);
        }
    }
    assert!(finished && full >= 4, "full {full} times");
    assert_same("after more room", &desk.expected, &final_state(&data));
}

#[test]
fn a_directory_that_cannot_be_written_ends_the_job_and_afterwards_it_goes_on() {
    let desk = Desk::new("60", "15m");
    let data = desk.path("data");
    let read_only = ["Read-only file system", "read and write there", "nothing is lost"];
    let parts = |directory: &'static str| [&[directory][..], &read_only].concat();
    // While it runs.
    let read_only_at = || Condition::read_only(&data.join("checkpoints"));
    if !desk.fails_at(&data, "commit.after:4", read_only_at, &parts("checkpoints")) {
        return;
    }
    let denied = ["Operation not permitted", "read and write there", "nothing is lost"];
    for directory in ["staging", "history"] {
        let forbidden = || Condition::forbidden(&data.join(directory));
        if !desk.fails_at(&data, "publish.before:1", forbidden, &denied) {
            return;
        }
    }
    // When it starts, with everything published that was committed.
    desk.killed(&data, "manifest.after:2");
    for directory in ["staging", "manifest", "bindings", "progress", "live"] {
        let Some(_condition) = Condition::read_only(&data.join(directory)) else { return };
        desk.refused(&data, &parts(directory));
        desk.is_right(&data);
    }
    {
        let Some(_condition) = Condition::read_only(&data) else { return };
        desk.refused(&data, &read_only);
    }
    // A file where a directory is expected.
    drop(fs::remove_dir_all(data.join("staging")));
    fs::write(data.join("staging"), "").unwrap();
    desk.refused(&data, &["staging"]);
    fs::remove_file(data.join("staging")).unwrap();
    desk.ends_equal(&data);
}

/// Flips a bit in the middle of a file, or of what `part` finds in it; undone when dropped.
struct Flipped {
    path: PathBuf,
    whole: Vec<u8>,
}

impl Flipped {
    fn new(path: &Path, part: impl Fn(&[u8]) -> usize) -> Self {
        let whole = fs::read(path).unwrap();
        let mut bytes = whole.clone();
        bytes[part(&whole)] ^= 4;
        fs::write(path, bytes).unwrap();
        Self { path: path.to_path_buf(), whole }
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        fs::write(&self.path, &self.whole).unwrap();
    }
}

fn middle(bytes: &[u8]) -> usize {
    bytes.len() / 2
}

/// The files of the newest checkpoint that the progress log names.
fn checkpoint(data: &Path) -> Vec<PathBuf> {
    let log = fs::read_to_string(data.join("progress/log.jsonl")).unwrap();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(&line[9..]).ok());
    let named: Vec<serde_json::Value> =
        entries.map(|e| e["commit"]["checkpoint"]["files"].clone()).filter(|files| files.is_array()).collect();
    let files = named.last().expect("a checkpoint").as_array().unwrap();
    files.iter().map(|file| data.join(file["path"].as_str().unwrap())).collect()
}

fn history(data: &Path) -> Vec<PathBuf> {
    let mut days: Vec<PathBuf> =
        fs::read_dir(data.join("history/readings_log")).unwrap().map(|e| e.unwrap().path()).collect();
    days.sort();
    let files = days.iter().flat_map(|day| fs::read_dir(day).unwrap().map(|e| e.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect()
}

#[test]
fn a_flipped_byte_is_one_message_and_the_mended_file_is_gone_on_with() {
    let desk = Desk::new("60", "15m");
    let data = desk.path("data");
    // Each kill leaves files of the history, too.
    for point in ["trim.after:1", "trim.after:1", "commit.after:5"] {
        desk.killed(&data, point);
    }
    let files = checkpoint(&data);
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        let _flipped = Flipped::new(file, middle);
        let name = file.file_name().unwrap().to_str().unwrap();
        desk.refused(&data, &["checkpoint file", name, "byte", "Restore the file from a backup", "--fresh"]);
    }

    // Each of those starts has published what was committed, at the latest.
    desk.is_right(&data);
    let before = all_readings(&data);
    assert!(!before.is_empty());

    let log = data.join("progress/log.jsonl");
    let second_line = |bytes: &[u8]| bytes.iter().position(|b| *b == b'\n').unwrap() + 40;
    for part in [&(|_: &[u8]| 30_usize) as &dyn Fn(&[u8]) -> usize, &second_line] {
        let _flipped = Flipped::new(&log, part);
        desk.refused(&data, &["log.jsonl, line", "damaged", "restore it from a backup", "--fresh"]);
        assert!(all_readings(&data) == before, "readers find something else");
    }

    let files = history(&data);
    assert!(files.len() >= 2, "{files:?}");
    let compact = || {
        let mut command = drivetrain();
        command.args(["compact", "--grace", "0s", "--wait", "--config"]).arg(&desk.config).arg("--data").arg(&data);
        command.output().unwrap()
    };
    {
        let _flipped: Vec<Flipped> = files.iter().map(|file| Flipped::new(file, middle)).collect();
        let output = compact();
        complaint(output.status.code(), &said(&output), &["is damaged: its checksum", "Restore it from a backup"]);
        assert_eq!(history(&data), files, "compact has changed something");
    }
    assert!(all_readings(&data) == before);
    let output = compact();
    assert!(output.status.success(), "{}", said(&output));
    assert!(history(&data) != files, "there was nothing to compact: this test shows nothing");
    desk.ends_equal(&data);
}
