//! Promise 1: the same input gives the same output, however it runs.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::{
    assert_same, bus_days, drivetrain, every_step, final_state, one, replay, repository, run, sql, unzipped,
};

/// A small fleet with late readings, duplicates, broken records and faults.
fn simulated(directory: &Path) -> PathBuf {
    let out = directory.join("readings.jsonl");
    run(
        drivetrain()
            .args(["simulate", "--vehicles", "12", "--for", "20m", "--seed", "11", "--broken", "0.005"])
            .args(["--duplicates", "0.01", "--late", "0.05", "--faults", "--out"])
            .arg(&out),
        0,
    );
    out
}

/// A copy of a configuration with other lines in its `[epoch]` section.
fn with_epochs(directory: &Path, config: &str, records: usize) -> PathBuf {
    let text = fs::read_to_string(repository(config)).unwrap();
    let line = format!("max_records = {records}\n");
    let text = match text.lines().find(|l| l.starts_with("max_records")) {
        Some(old) => text.replace(&format!("{old}\n"), &line),
        None if text.contains("[epoch]\n") => text.replace("[epoch]\n", &format!("[epoch]\n{line}")),
        None => format!("{text}\n[epoch]\n{line}"),
    };
    let path = directory.join(format!("epochs-{records}.toml"));
    fs::write(&path, text).unwrap();
    path
}

/// Rearranges lines by a fixed permutation within blocks of `block`, so that none moves further.
fn shuffle(lines: &mut [&str], block: usize) {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for chunk in lines.chunks_mut(block) {
        for i in (1..chunk.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            chunk.swap(i, ((state >> 33) % (i as u64 + 1)) as usize);
        }
    }
}

#[test]
fn the_final_state_does_not_depend_on_workers_batches_or_order() {
    let scratch = tempfile::tempdir().unwrap();
    let input = simulated(scratch.path());
    let config = repository("configs/fleet.toml");
    let reference = scratch.path().join("reference");
    replay(&config, &reference, &["--workers", "1"], &[&input]);
    let expected = final_state(&reference);
    for (table, rows) in &expected[..4] {
        assert!(!rows.is_empty(), "{table} is empty: this test would show nothing");
    }
    assert_eq!(sql(&reference, "select count(*) from late"), ["0"]);
    for workers in ["2", "4"] {
        let data = scratch.path().join(format!("workers-{workers}"));
        replay(&config, &data, &["--workers", workers], &[&input]);
        assert_same(&format!("{workers} workers"), &expected, &final_state(&data));
    }
    let ones = with_epochs(scratch.path(), "configs/fleet.toml", 1);
    let data = scratch.path().join("epochs-of-1");
    replay(&ones, &data, &["--workers", "2"], &[&input]);
    assert_same("epochs of one record", &expected, &final_state(&data));

    // 12 vehicles at 1 Hz: 240 lines are at most 20 s of event time, inside the horizon together with the late ones.
    let text = fs::read(&input).unwrap();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("{\"vehicle_id\"") && line.ends_with('}')).collect();
    let ordered = scratch.path().join("ordered.jsonl");
    fs::write(&ordered, lines.join("\n")).unwrap();
    let data = scratch.path().join("ordered");
    replay(&config, &data, &[], &[&ordered]);
    let expected = final_state(&data);
    shuffle(&mut lines, 240);
    let shuffled = scratch.path().join("shuffled.jsonl");
    fs::write(&shuffled, lines.join("\n")).unwrap();
    for (records, workers) in [(10_000, "2"), (97, "4")] {
        let config = with_epochs(scratch.path(), "configs/fleet.toml", records);
        let data = scratch.path().join(format!("shuffled-{records}"));
        replay(&config, &data, &["--workers", workers], &[&shuffled]);
        let mut state = final_state(&data);
        // The file has another name, and its lines other numbers.
        let mut expected = expected.clone();
        for state in [&mut state, &mut expected] {
            state.retain(|(table, _)| table != "intake");
        }
        assert_same(&format!("shuffled, epochs of {records}"), &expected, &state);
    }
}

#[test]
fn every_step_repeats_from_bindings() {
    let scratch = tempfile::tempdir().unwrap();
    let input = simulated(scratch.path());
    let config = with_epochs(scratch.path(), "configs/fleet.toml", 500);
    let first = scratch.path().join("first");
    replay(&config, &first, &["--workers", "1"], &[&input]);
    let bindings = first.join("bindings");
    let expected = every_step(&first);
    for workers in ["1", "2", "4"] {
        let data = scratch.path().join(format!("again-{workers}"));
        let bindings = bindings.display().to_string();
        replay(&config, &data, &["--workers", workers, "--bindings", &bindings], &[&input]);
        assert_same(&format!("bindings, {workers} workers"), &expected, &every_step(&data));
    }
}

/// Each day sorted by time, or shuffled, gives the tables of the files as they are. The configuration's horizon is
/// longer than a day, so that no reading is late wherever in its day's file it stands.
#[test]
fn the_order_of_a_days_rows_leaves_no_trace() {
    let scratch = tempfile::tempdir().unwrap();
    let days: Vec<_> = bus_days().iter().map(|path| (day(path), unzipped(path))).collect();
    let state = |order| state_in_order(scratch.path(), &days, order);
    let [expected, sorted, shuffled] = std::thread::scope(|scope| {
        ["as it is", "sorted", "shuffled"].map(|order| scope.spawn(move || state(order))).map(|thread| thread.join())
    })
    .map(|state| state.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    for table in ["readings", "windows", "trips", "intake", "live vehicle_state"] {
        let rows = expected.iter().find(|(name, _)| name == table).map_or(0, |(_, rows)| rows.len());
        assert!(rows > 0, "{table} is empty: this test would show nothing");
    }
    assert_same("sorted", &expected, &sorted);
    assert_same("shuffled", &expected, &shuffled);
}

/// `2015-03-07` of `…/2015-03-07.csv.gz`.
fn day(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().trim_end_matches(".csv.gz").to_string()
}

/// The final state of a replay of all days, each with its rows in this order.
fn state_in_order(scratch: &Path, days: &[(String, String)], order: &str) -> Vec<(String, Vec<String>)> {
    let directory = scratch.join(order.replace(' ', "-"));
    fs::create_dir(&directory).unwrap();
    let mut inputs = Vec::new();
    for (day, text) in days {
        let mut lines: Vec<&str> = text.lines().collect();
        let rows = &mut lines[1..];
        match order {
            // As text: within a file a later time never has a smaller local one.
            "sorted" => rows.sort_by_key(|row| row.split(',').nth(1)),
            "shuffled" => shuffle(rows, usize::MAX),
            _ => {}
        }
        assert!((order == "as it is") == text.lines().eq(lines.iter().copied()), "{day} {order}: nothing was moved");
        let path = directory.join(format!("{day}.csv"));
        fs::write(&path, lines.join("\n")).unwrap();
        inputs.push(path);
    }
    let data = directory.join("data");
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    replay(&repository("configs/capmetrics.toml"), &data, &["--workers", "2"], &inputs);
    let sums = "select sum(records), sum(late) + sum(rejected), count(*) from intake";
    assert_eq!(one(&data, sums), "473861,0,20", "{order}: a reading came too late, or a file was not read");
    let mut state = final_state(&data);
    for (table, rows) in &mut state {
        if table == "intake" {
            // By file name: the directory differs.
            *rows = sql(&data, "select right(origin, 14), records, used, duplicates, late, rejected from intake");
            rows.sort();
        }
    }
    state
}
