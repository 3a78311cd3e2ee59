//! Every ready configuration works as it is shipped: on a small input, and through `check`.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::process::Stdio;
use support::{drivetrain, one, recording, replay, repository, run, sql};

/// A configuration and its run on a small input; the run's argument is the configuration.
type Case = (&'static str, fn(&Path));

const CASES: [Case; 5] = [
    ("capmetrics.toml", capmetrics),
    ("demo.toml", demo),
    ("fleet.toml", fleet),
    ("nds.toml", nds),
    ("trip-payloads.toml", trip_payloads),
];

fn shipped() -> Vec<String> {
    let files = fs::read_dir(repository("configs")).unwrap().map(|entry| entry.unwrap().path());
    let configs = files.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> = configs.map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn each_configuration_has_a_case_here() {
    assert_eq!(shipped(), CASES.map(|(name, _)| name), "a configuration is shipped that no test runs, or the reverse");
}

#[track_caller]
fn run_case(name: &str) {
    let (_, case) = CASES.into_iter().find(|(case, _)| *case == name).unwrap();
    case(&repository("configs").join(name));
}

#[test]
fn fleet_toml_runs() {
    run_case("fleet.toml");
}

#[test]
fn demo_toml_runs() {
    run_case("demo.toml");
}

#[test]
fn trip_payloads_toml_runs() {
    run_case("trip-payloads.toml");
}

#[test]
fn nds_toml_runs() {
    run_case("nds.toml");
}

#[test]
fn capmetrics_toml_runs() {
    run_case("capmetrics.toml");
}

/// A simulated fleet's records; its reference documents in `reference/` beside them.
fn simulated(directory: &Path) -> PathBuf {
    let input = directory.join("readings.jsonl");
    let mut command = drivetrain();
    command.args(["simulate", "--vehicles", "8", "--for", "10m", "--faults", "--out"]).arg(&input);
    run(command.arg("--reference").arg(directory.join("reference")), 0);
    input
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

/// All records used, trips scored, windows kept, faults found.
fn whole_graph(data: &Path, records: usize) {
    assert_eq!(one(data, "select records, used, rejected from intake"), format!("{records},{records},0"));
    for (what, query) in [
        ("scored trips", "select count(*) > 5 from trips where status = 'COMPLETED' and safety_score is not null"),
        ("a penalty", "select min(safety_score) < 100 from trips"),
        ("driver scores", "select count(*) > 5 from driver_scores where score is not null"),
        ("windows", "select count(*) > 100 from windows"),
        ("anomalies", "select count(*) > 0 from anomalies"),
    ] {
        assert_eq!(one(data, query), "true", "{what}");
    }
}

fn fleet(config: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, input) = (scratch.path().join("d"), simulated(scratch.path()));
    replay(config, &data, &[], &[&input]);
    whole_graph(&data, lines(&input));
}

/// The demo writes its reference documents beside its configuration.
fn demo(config: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, input) = (scratch.path().join("d"), simulated(scratch.path()));
    let copy = scratch.path().join("demo.toml");
    fs::copy(config, &copy).unwrap();
    replay(&copy, &data, &[], &[&input]);
    whole_graph(&data, lines(&input));
    assert_eq!(sql(&data, "select document, problem from reference_problems"), [""; 0]);
    // fleets.jsonl has parents, of which no reading knows.
    let parents = "select count(*) > 0 from fleet_aggregates where fleet_id not in \
                   (select fleet_id from trips where fleet_id is not null)";
    assert_eq!(one(&data, parents), "true");
}

fn trip_payloads(config: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, input) = (scratch.path().join("d"), scratch.path().join("t.jsonl"));
    let trip =
        r#"{"trip_id":"t1","vehicle_id":"v1","driver_id":"d1","data":[{"g_force_long":0.1},{"g_force_long":-0.5}]}"#;
    fs::write(&input, format!("{trip}\n")).unwrap();
    replay(config, &data, &[], &[&input]);
    assert_eq!(
        one(&data, "select trip_id, status, samples, harsh_braking, safety_score from trips"),
        "t1,COMPLETED,2,1,95.0"
    );
}

fn unzipped(path: &Path) -> String {
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The first minutes of the recording.
fn nds(config: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let (data, input) = (scratch.path().join("d"), scratch.path().join("nds.csv"));
    let text = unzipped(&recording("nds/nds_drives.csv.gz"));
    let mut slice = fs::File::create(&input).unwrap();
    text.lines().take(301).for_each(|line| writeln!(slice, "{line}").unwrap());
    replay(config, &data, &[], &[&input]);
    assert_eq!(one(&data, "select records, used from intake"), "300,300");
    let mut drives: BTreeMap<&str, usize> = BTreeMap::new();
    for row in text.lines().skip(1).take(300) {
        *drives.entry(row.split(',').next().unwrap()).or_default() += 1;
    }
    let trips: Vec<String> = drives.iter().map(|(drive, rows)| format!("{drive},COMPLETED,{rows}")).collect();
    assert_eq!(sql(&data, "select vehicle_id, status, samples from trips order by vehicle_id"), trips);
    assert_eq!(one(&data, "select count(*) from readings where speed_kmh is null or accel_x is null"), "0");
}

/// A small day, in which 48 rows come twice (SOURCE.md of the recording).
fn capmetrics(config: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("d");
    let day = recording("capmetrics/2016-08-02.csv.gz");
    let rows = unzipped(&day).lines().count() - 1;
    replay(config, &data, &[], &[&day]);
    let counts = format!("{rows},{},48,0", rows - 48);
    assert_eq!(one(&data, "select records, used, duplicates, rejected from intake"), counts);
    assert_eq!(one(&data, "select count(*) > 0 and min(safety_score) = 100 from trips"), "true");
}

fn check(config: &Path) -> String {
    String::from_utf8(run(drivetrain().arg("check").arg("--config").arg(config), 0).stdout).expect("UTF-8")
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let scratch = tempfile::tempdir().unwrap();
    for name in shipped() {
        let shown = check(&repository("configs").join(&name));
        let copy = scratch.path().join(&name);
        fs::write(&copy, &shown).unwrap();
        assert_eq!(check(&copy), shown, "{name}: reading it again changes it");
        assert!(shown.contains("# expected memory: about "), "{name}");
    }
}

/// The sections of a configuration, and a file in which an unknown field makes the program name the known ones.
const SECTIONS: [(&str, &str); 22] = [
    ("", "zz = 1\n"),
    ("job", "[job]\nzz = 1\n"),
    ("kafka", "[kafka]\nzz = 1\n"),
    ("epoch", "[epoch]\nzz = 1\n"),
    ("time", "[time]\nzz = 1\n"),
    ("limits", "[limits]\nzz = 1\n"),
    ("signals.*", "[signals.s]\nzz = 1\n"),
    ("sources.*", "[sources.s]\nzz = 1\n"),
    ("sources.*.fields", "[sources.s.fields]\nzz = 1\n"),
    ("trip", "[trip]\nzz = 1\n"),
    ("facts", "[facts]\nzz = 1\n"),
    ("windows", "[windows]\nzz = 1\n"),
    ("detectors.range.*", "[detectors.range.s]\nzz = 1\n"),
    ("detectors.zscore.*", "[detectors.zscore.s]\nzz = 1\n"),
    ("detectors.stuck.*", "[detectors.stuck.s]\nzz = 1\n"),
    ("policy", "[policy]\nzz = 1\n"),
    ("policy.events", "[[policy.events]]\nzz = 1\n"),
    ("policy.driver", "[policy.driver]\nzz = 1\n"),
    ("history", "[history]\nzz = 1\n"),
    ("history.retention", "[history.retention]\nzz = 1\n"),
    ("live", "[live]\nzz = 1\n"),
    ("reference", "[reference]\nzz = 1\n"),
];

/// What is written in two forms (a path, or a table) has no list of fields in its error.
const MAPPED: [&str; 5] = ["field", "unit", "scale", "offset", "sentinels"];

/// The fields that `fleet.toml` names in a section, commented out or not; sections of a name of the user's have `*`.
fn explained(text: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut section = String::new();
    for line in text.lines().map(|line| line.trim_start_matches(['#', ' '])) {
        if let Some(header) = line.strip_prefix('[').and_then(|l| l.trim_start_matches('[').split_once(']')) {
            let mut keys: Vec<&str> = header.0.split('.').collect();
            match keys.as_mut_slice() {
                ["signals", name] | ["detectors", _, name] => *name = "*",
                ["sources", name] => *name = "*",
                ["sources", name, "signals", signal] => (*name, *signal) = ("*", "*"),
                ["sources", name, ..] => *name = "*",
                _ => {}
            }
            section = keys.join(".");
            for end in 0..keys.len() {
                found.insert((keys[..end].join("."), keys[end].to_string()));
            }
        } else if let Some((key, _)) = line.split_once(" = ") {
            found.insert((section.clone(), key.to_string()));
        }
    }
    found
}

#[test]
fn fleet_toml_explains_every_field() {
    let scratch = tempfile::tempdir().unwrap();
    let wrong = scratch.path().join("wrong.toml");
    let text = fs::read_to_string(repository("configs/fleet.toml")).unwrap();
    let explained = explained(&text);
    let mut missing = Vec::new();
    let mut want = |section: &str, field: &str| {
        if !explained.contains(&(section.to_string(), field.to_string())) {
            missing.push(format!("[{section}] {field}"));
        }
    };
    for (section, added) in SECTIONS {
        fs::write(&wrong, added).unwrap();
        let error = run(drivetrain().arg("check").arg("--config").arg(&wrong), 2).stderr;
        let error = String::from_utf8(error).unwrap();
        let (_, known) = error.split_once("expected ").unwrap_or_else(|| panic!("[{section}] denies nothing: {error}"));
        let known = known.split("; did you mean").next().unwrap();
        let fields: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        assert!(!fields.is_empty(), "[{section}]: {error}");
        fields.into_iter().for_each(|field| want(section, field));
    }
    MAPPED.into_iter().for_each(|field| want("sources.*.signals.*", field));
    ["format = ", "zone = ", "base = ", "step = ", "until = ", "name = ", "from = ", "files = ", "topic = "]
        .into_iter()
        .filter(|field| !text.contains(field))
        .for_each(|field| missing.push(field.to_string()));
    // And what `check` shows, in case a section was forgotten above.
    let effective = check(&repository("configs/fleet.toml"));
    let shown = effective.lines().filter_map(|line| Some(line.split_once(" = ")?.0.trim()));
    shown.filter(|key| !text.contains(&format!("{key} = "))).for_each(|key| missing.push(key.to_string()));
    assert!(missing.is_empty(), "configs/fleet.toml does not explain:\n  {}", missing.join("\n  "));
}

#[test]
fn check_shows_what_becomes_of_records_and_writes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let input = scratch.path().join("r.jsonl");
    let records = [
        r#"{"vehicle_id":"v1","driver_id":"d1","at":"2026-05-01T12:00:00Z","speed_kmh":50.1,"g_force_long":-0.5,"colour":"red"}"#,
        r#"{"vehicle_id":"v1","at":"yesterday","speed_kmh":50.1}"#,
        "no JSON",
        r#"{"vehicle_id":"v1","at":"2026-05-01T12:00:01Z","speed_kmh":9999,"colour":"red"}"#,
        r#"{"vehicle_id":"v2","at":"2026-05-01T12:00:02Z","speed_kmh":1}"#,
    ];
    fs::write(&input, records.join("\n") + "\n").unwrap();
    let show = |extra: &[&str]| {
        let mut command = drivetrain();
        command.current_dir(scratch.path()).arg("check").arg("--config").arg(repository("configs/fleet.toml"));
        String::from_utf8(run(command.args(["--input", "r.jsonl"]).args(extra), 0).stdout).unwrap()
    };
    let shown = show(&[]);
    let lines: Vec<&str> = shown.lines().map(str::trim_start).collect();
    assert_eq!(lines.len(), 7, "{shown}");
    assert!(lines[0].starts_with("1  2026-05-01T12:00:00Z  vehicle=v1 driver=d1 "), "{shown}");
    assert!(lines[0].contains("speed_kmh=50.1") && lines[0].contains("g_force_long=-0.5"), "{shown}");
    assert!(lines[1].starts_with("2  rejected: ") && lines[1].contains("yesterday"), "{shown}");
    assert!(lines[2].starts_with("3  rejected: "), "{shown}");
    assert!(lines[3].starts_with("4  ") && !lines[3].contains("speed_kmh"), "out of range: {shown}");
    assert_eq!(lines[5], "5 records: 3 decoded into 3 readings, 2 rejected, 1 invalid values");
    assert!(lines[6].contains("not mapped: colour (2)"), "{shown}");
    assert!(show(&["-n", "1"]).contains("1 records: 1 decoded"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "check has written something");
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut command = drivetrain();
    command.args(["check", "--config"]).arg(repository("configs/fleet.toml"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
