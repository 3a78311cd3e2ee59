//! What a user meets on the first day: each mistake ends with one message on stderr that says what is wrong and what to
//! do, exit code 1 or 2, no panic, and nothing half written.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{drivetrain, final_state, replay, repository, run, signal, sql};

const TRIP: &str =
    r#"{"trip_id":"t1","vehicle_id":"v1","driver_id":"d1","data":[{"speed_kmh":50,"g_force_long":-0.5}]}"#;

/// A directory with one good input and copies of a good configuration to be spoilt.
struct Desk {
    scratch: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { scratch: tempfile::tempdir().unwrap() };
        desk.write("t.jsonl", format!("{TRIP}\n"));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// trip-payloads.toml with a line changed and some added.
    fn config(&self, from: &str, to: &str, added: &str) -> PathBuf {
        let text = fs::read_to_string(good()).unwrap();
        assert!(text.contains(from), "{from:?} is not in the configuration any more");
        self.write("c.toml", text.replace(from, to) + added)
    }

    /// `drivetrain replay --config CONFIG --data <new directory> EXTRA… INPUT`.
    fn replay(&self, config: &Path, extra: &[&str], input: &Path) -> Command {
        let mut command = drivetrain();
        command.current_dir(self.scratch.path()).arg("replay").arg("--config").arg(config);
        command.arg("--data").arg(self.path("d")).args(extra).arg(input);
        command
    }

    /// A replay that is refused before anything is written.
    #[track_caller]
    fn refused(&self, config: &Path, extra: &[&str], input: &Path, parts: &[&str]) {
        refused(&mut self.replay(config, extra, input), 2, parts);
        assert!(!self.path("d").exists(), "a refused replay has made its data directory");
    }

    /// A replay that is refused for what its configuration says.
    #[track_caller]
    fn bad_config(&self, from: &str, to: &str, added: &str, parts: &[&str]) {
        let config = self.config(from, to, added);
        self.refused(&config, &[], &self.path("t.jsonl"), parts);
    }
}

fn good() -> PathBuf {
    repository("configs/trip-payloads.toml")
}

/// How a message names the `offset`th line that was added to the configuration.
fn added(offset: usize) -> String {
    let lines = fs::read_to_string(good()).unwrap().lines().count();
    format!("c.toml:{}: ", lines + offset)
}

/// Runs a command that must fail with `code` and one message, which has `parts`; returns the message.
#[track_caller]
fn refused(command: &mut Command, code: i32, parts: &[&str]) -> String {
    let output = run(command, code);
    let message = message(&output);
    for part in parts {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    message
}

/// All that stands on stderr is one message, and it is no developer's.
#[track_caller]
fn message(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert!(text.starts_with("drivetrain: "), "{text}");
    assert_eq!(text.matches("drivetrain: ").count(), 1, "one message: {text}");
    for word in ["panicked", "backtrace", "RUST_BACKTRACE", "unwrap", "Err(", "Error(", "Some(", "os error 2)"] {
        assert!(!text.contains(word), "{word:?} is not for a person: {text}");
    }
    assert!(text.lines().count() <= 8, "too long: {text}");
    text
}

#[test]
fn configurations_that_are_no_configurations() {
    let desk = Desk::new();
    let input = desk.path("t.jsonl");
    desk.refused(&desk.path("nope.toml"), &[], &input, &["nope.toml", "no such configuration file", "configs/"]);
    desk.refused(desk.scratch.path(), &[], &input, &["a directory"]);
    let broken = desk.write("broken.toml", "[job]\nname = \"a\nworkers = 1\n");
    desk.refused(&broken, &[], &input, &["broken.toml:2: "]);
    let empty = desk.write("empty.toml", "");
    desk.refused(&empty, &[], &input, &["no source is configured", "[sources.<name>]"]);
}

#[test]
fn unknown_names_are_told_with_their_line_and_the_nearest() {
    let desk = Desk::new();
    desk.bad_config(
        "id_unique = true",
        "id_uniq = true",
        "",
        &["c.toml:9: ", "unknown field `id_uniq`", "did you mean `id_unique`?"],
    );
    desk.bad_config("[trip]", "[trips]", "", &["c.toml:7: ", "unknown field `trips`", "did you mean `trip`?"]);
    desk.bad_config(
        "\n[trip]",
        "\n[trip]\nspeed = \"speed_kmhh\"",
        "",
        &["c.toml:8: ", "trip.speed", "\"speed_kmh\"?"],
    );
    let policy = |signal: &str, threshold: &str| {
        format!(
            "\n[policy]\npolicy_id = \"p\"\nversion = 1\n[[policy.events]]\nkind = \"harsh_braking\"\ndirection = \
             \"negative\"\ncompare = \"gt\"\nweight = 5\nsignal = \"{signal}\"\nthreshold = {threshold}\n"
        )
    };
    let none = ("[job]", "[job]");
    let wrong = ["policy.events[0].signal", "\"g_force_lon\"", "did you mean \"g_force_long\"?", &added(10)];
    desk.bad_config(none.0, none.1, &policy("g_force_lon", "0.4"), &wrong);
    let off = ["policy.events[0].threshold", "0.40001", "0.001 g", "round it", &added(11)];
    desk.bad_config(none.0, none.1, &policy("g_force_long", "0.40001"), &off);
    desk.bad_config(none.0, none.1, &policy("g_force_long", "0.1"), &["below 0.200 g", "raise it"]);
    let detector = "\n[detectors.range.speed_kph]\nmin = 0\nmax = 300\n";
    let wrong = ["detectors.range.speed_kph", "did you mean \"speed_kmh\"?", &added(2)];
    desk.bad_config(none.0, none.1, detector, &wrong);
    let mapped = "\n[sources.trips.signals.speed_km]\nfield = \"v\"\n";
    let wrong = ["sources.trips.signals.speed_km", "did you mean \"speed_kmh\"?", &added(2)];
    desk.bad_config(none.0, none.1, mapped, &wrong);
}

#[test]
fn values_that_can_t_be() {
    let desk = Desk::new();
    desk.bad_config(
        "\"km/h\"",
        "\"furlongs\"",
        "",
        &["c.toml:13: ", "signals.speed_kmh.unit", "\"furlongs\"", "km/h, mph"],
    );
    let mapped = "\n[sources.trips.signals.speed_kmh]\nfield = \"v\"\nunit = \"g\"\n";
    let message = ["sources.trips.signals.speed_kmh.unit", "acceleration", "speed"];
    desk.bad_config("[job]", "[job]", mapped, &message);
    let duration = ["\"5 fortnights\" is not a duration", "\"5s\""];
    desk.bad_config("id_unique = true", "max_gap = \"5 fortnights\"", "", &[&["c.toml:9: "][..], &duration].concat());
    let skew = [&*added(3), "epoch.max_skew (2m)", "time.hot_horizon (2m)", "lower the first or raise the second"];
    desk.bad_config("[job]", "[job]", "\n[epoch]\nmax_skew = \"2m\"\n", &skew);
    let settle = "\n[epoch]\nsettle = \"1m\"\n\n[time]\nquiet = \"90s\"\n";
    let message = [&*added(3), "epoch.settle: \"1m\"", "time.quiet (90 s)", "raise it", "leave it out", "\"100s\""];
    desk.bad_config("[job]", "[job]", settle, &message);
    let message = [&*added(3), "epoch.settle: \"soon\" is not a duration"];
    desk.bad_config("[job]", "[job]", "\n[epoch]\nsettle = \"soon\"\n", &message);
    desk.bad_config("[job]", "[job]", "\n[epoch]\nmax_records = 0\n", &["epoch.max_records", "at least 1"]);
    desk.bad_config("[job]", "[job]", "\n[epoch]\nmax_records = \"x\"\n", &[&added(3), "expected a whole number"]);
    desk.bad_config("[job]", "[job]", "\n[history]\nroll_bytes = \"12 XB\"\n", &[&added(3), "\"128MB\""]);
    desk.bad_config(
        "[job]",
        "[job]",
        "\n[limits]\nnot_before = \"x\"\n",
        &["limits.not_before", "2026-05-01T12:00:00Z"],
    );
    let missing = "\n[reference]\nvehicles = { files = [\"nope.jsonl\"] }\n";
    desk.bad_config("[job]", "[job]", missing, &["reference.vehicles", "nope.jsonl", "no such file"]);
}

/// A policy is data: one that would count wrongly stops no job, and governs nothing.
#[test]
fn a_policy_document_on_what_trips_do_not_keep_is_refused_in_a_row() {
    let desk = Desk::new();
    let policy = |id: &str, signal: &str, threshold: f64| {
        format!(
            r#"{{"policy_id":"{id}","version":2,"events":[{{"kind":"harsh_braking","signal":"{signal}","direction":"negative","threshold":{threshold},"weight":50}}]}}"#
        )
    };
    let documents = [policy("low", "g_force_long", 0.1), policy("fast", "speed_kmh", 120.0)];
    desk.write("policies.jsonl", documents.join("\n") + "\n");
    let config = desk.config("[job]", "[job]", "\n[reference]\npolicies = { files = [\"policies.jsonl\"] }\n");
    let data = desk.path("d");
    replay(&config, &data, &[], &[&desk.path("t.jsonl")]);
    let problems = sql(&data, "select document, problem from reference_problems order by document");
    assert_eq!(problems.len(), 2, "{problems:?}");
    let parts = [
        ["policies/fast@2,", "refused: events[0].signal", "trips keep no samples of", "speed_kmh", "add a rule on it"],
        ["policies/low@2,", "refused: events[0].threshold", "0.1 is below 0.200 g", "keep their samples", "raise it"],
    ];
    for (problem, parts) in problems.iter().zip(parts) {
        parts.into_iter().for_each(|part| assert!(problem.contains(part), "{part:?} is missing in: {problem}"));
    }
    let governed = sql(&data, "select policy_id, safety_score from trips");
    assert_eq!(governed, ["fleetflow,95.0"], "a refused policy governs nothing");
}

#[test]
fn the_environment_is_named_when_it_is_wrong() {
    let desk = Desk::new();
    let input = desk.path("t.jsonl");
    for (name, value, parts) in [
        ("DRIVETRAIN_JOB__WORKRES", "3", &["unknown field `workres`", "did you mean `workers`?"][..]),
        ("DRIVETRAIN_JOB__WORKERS", "many", &["expected a whole number"]),
        ("DRIVETRAIN_JOB__NAME__X", "x", &["`name` is a value, not a section"]),
        ("DRIVETRAIN_TIME__HOT_HORIZON", "soon", &["time.hot_horizon", "\"soon\" is not a duration"]),
    ] {
        let mut command = desk.replay(&good(), &[], &input);
        refused(command.env(name, value), 2, &[&[name][..], parts].concat());
        assert!(!desk.path("d").exists());
    }
}

#[test]
fn inputs_that_can_t_be_read() {
    let desk = Desk::new();
    let refused = |name: &str, parts: &[&str]| desk.refused(&good(), &[], &desk.path(name), parts);
    refused("nope.jsonl", &["nope.jsonl", "no such file", "check the path"]);
    desk.write("a.xyz", "x");
    refused("a.xyz", &["a.xyz", ".jsonl", ".csv", "`format` of the source \"trips\""]);
    desk.write("noise.jsonl.gz", "no gzip at all");
    refused("noise.jsonl.gz", &["noise.jsonl.gz", "not a gzip file"]);
    desk.write("noise.jsonl.zst", "no zstd at all");
    refused("noise.jsonl.zst", &["noise.jsonl.zst", "not a zstd file"]);
    desk.write("noise.parquet", "no Parquet at all");
    refused("noise.parquet", &["noise.parquet", "not a Parquet file"]);
    fs::create_dir(desk.path("empty")).unwrap();
    refused("empty", &["empty", "has no file that can be read", ".jsonl"]);
    desk.refused(&good(), &[], Path::new("tripz=t.jsonl"), &["no source \"tripz\"", "the sources are trips"]);
    let mut command = desk.replay(&good(), &[], &desk.path("t.jsonl"));
    self::refused(command.arg("t.jsonl"), 2, &["t.jsonl", "given twice"]);
}

/// Found while reading, so the directory is there; but no table, and the mended file is read without `--fresh`.
#[test]
fn a_torn_gzip_file_leaves_no_half_written_table() {
    let desk = Desk::new();
    let whole = desk.path("whole.jsonl.gz");
    let simulate = ["simulate", "--vehicles", "5", "--for", "1m", "--out"];
    run(drivetrain().args(simulate).arg(&whole), 0);
    let bytes = fs::read(&whole).unwrap();
    let torn = desk.write("torn.jsonl.gz", &bytes[..bytes.len() / 2]);
    let config = repository("configs/fleet.toml");
    let parts = ["torn.jsonl.gz", "broken after line ", "restore the file"];
    let said = refused(&mut desk.replay(&config, &[], &torn), 1, &parts);
    let lines = said.split("after line ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((50..250).contains(&lines.parse::<usize>().unwrap()), "about half of 300 lines came: {said}");
    assert!(!desk.path("d").join("history").exists());
    run(&mut desk.replay(&config, &[], &whole), 0);
    assert_eq!(sql(&desk.path("d"), "select records = used and records > 200 from intake"), ["true"]);
}

#[test]
fn options_that_can_t_be() {
    let desk = Desk::new();
    let input = desk.path("t.jsonl");
    desk.refused(&good(), &["--workers", "0"], &input, &["workers = 0", "1 to 256"]);
    desk.refused(&good(), &["--workers", "x"], &input, &["'x'", "--workers"]);
    desk.refused(
        &good(),
        &["--at", "yesterday"],
        &input,
        &["--at: \"yesterday\" is not a time", "2026-05-01T12:00:00Z"],
    );
    desk.refused(&good(), &["--log-level", "a=b=c"], &input, &["--log-level", "debug"]);
    desk.refused(&good(), &["--bindings", "nope.log"], &input, &["nope.log", "no such file"]);
    desk.write("noise.log", "noise\n");
    desk.refused(
        &good(),
        &["--bindings", "noise.log"],
        &input,
        &["noise.log, line 1", "bindings that a run has archived"],
    );
    refused(drivetrain().arg("replay").arg("--config").arg(good()).arg(&input), 2, &["--data DIR", "[job]"]);
    refused(drivetrain().arg("replya"), 2, &["'replya'", "'replay'"]);
    let mut command = drivetrain();
    command.arg("run").arg("--config").arg(good()).arg("--data").arg(desk.path("d"));
    refused(&mut command, 2, &["kafka.brokers is not set", "\"localhost:9092\""]);
    assert!(!desk.path("d").exists());
}

#[test]
fn a_data_directory_that_is_not_ours() {
    let desk = Desk::new();
    let notes = desk.write("d/history/notes.txt", "mine");
    refused(
        &mut desk.replay(&good(), &["--fresh"], &desk.path("t.jsonl")),
        2,
        &["`history`", "was not made by drivetrain", "another data directory"],
    );
    assert_eq!(fs::read_to_string(notes).unwrap(), "mine");
    assert_eq!(fs::read_dir(desk.path("d")).unwrap().count(), 1, "nothing was added");
    let mut command = drivetrain();
    command.arg("replay").arg("--config").arg(good()).arg("--data").arg(desk.path("t.jsonl")).arg(desk.path("t.jsonl"));
    refused(&mut command, 2, &["t.jsonl", "not a directory"]);
}

#[test]
fn a_data_directory_of_an_earlier_run() {
    let desk = Desk::new();
    let (data, input) = (desk.path("d"), desk.path("t.jsonl"));
    replay(&good(), &data, &[], &[&input]);
    let before = final_state(&data);
    let again = ["earlier run of job \"trip-payloads\"", "--fresh"];
    refused(&mut desk.replay(&good(), &[], &input), 2, &again);
    // Another configuration's start does not take it for its own.
    refused(&mut desk.replay(&repository("configs/fleet.toml"), &[], &input), 2, &again);
    // What is wrong is found before --fresh deletes anything.
    refused(&mut desk.replay(&good(), &["--fresh"], &desk.path("nope.jsonl")), 2, &["no such file"]);
    assert_eq!(final_state(&data), before);

    let output = run(&mut desk.replay(&good(), &["--fresh"], &input), 0);
    let said = String::from_utf8(output.stderr).unwrap();
    for part in
        ["--fresh: deleted in ", "history/trips_log", "live/trip_scores", "manifest/g1.jsonl", "progress/log.jsonl"]
    {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
    assert_eq!(final_state(&data), before);
}

#[test]
fn a_data_directory_in_use_names_who_has_it() {
    let desk = Desk::new();
    let data = desk.path("d");
    let mut demo = drivetrain();
    demo.args(["demo", "--for", "60s", "--vehicles", "5", "--data"])
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut demo = demo.spawn().unwrap();
    let (pid, began) = (format!("\"pid\":{}", demo.id()), Instant::now());
    while !fs::read_to_string(data.join("lock")).is_ok_and(|text| text.contains(&pid)) {
        assert!(began.elapsed() < Duration::from_secs(30), "the demo has not started");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let refusals: Vec<Output> = [&[][..], &["--fresh"]]
        .map(|extra| desk.replay(&good(), extra, &desk.path("t.jsonl")).output().unwrap())
        .into();
    signal(demo.id(), "-TERM");
    let ended = demo.wait().unwrap();
    for output in refusals {
        assert_eq!(output.status.code(), Some(2));
        let said = message(&output);
        for part in [&format!("in use by process {} on ", demo.id()), "stop that job first"] {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
    }
    assert_eq!(ended.code(), Some(0), "SIGTERM ends the demo in order");
}

#[test]
fn questions_without_an_answer() {
    let desk = Desk::new();
    let data = desk.path("d");
    replay(&good(), &data, &[], &[&desk.path("t.jsonl")]);
    let command = |args: &[&str]| {
        let mut command = drivetrain();
        command.current_dir(desk.scratch.path()).args(args);
        command
    };
    let query = |query: &str, parts: &[&str]| refused(&mut command(&["sql", "--data", "d", query]), 1, parts);
    query("select * from tripz", &["there is no table tripz", "did you mean trips?", "tables: readings, "]);
    query("select * fro trips", &["the query can't be read: Expected", "fro", "Line: 1", "Column: 10"]);
    query("select 'trips", &["the query can't be read: Unterminated", "Line: 1", "Column: 8"]);
    query("select safty_score from trips", &["safty_score", "safety_score"]);
    let missing = ["there is no such data directory", "--data"];
    refused(&mut command(&["sql", "--data", "nope", "select 1"]), 2, &missing);
    refused(&mut command(&["live", "--data", "nope", "driver_scores"]), 2, &missing);
    fs::create_dir(desk.path("empty")).unwrap();
    let empty = ["empty: no job has written here", "--data names", "`drivetrain run`"];
    refused(&mut command(&["sql", "--data", "empty", "select * from trips"]), 2, &empty);
    refused(&mut command(&["live", "--data", "empty", "driver_scores"]), 2, &empty);
    refused(
        &mut command(&["sql", "--data", "d", "--as-of", "yesterday", "select 1"]),
        2,
        &["--as-of", "a time such as"],
    );
    let topic = ["there is no topic driver_score", "did you mean driver_scores?", "topics: driver_scores, "];
    refused(&mut command(&["live", "--data", "d", "driver_score"]), 2, &topic);
    refused(&mut command(&["live", "--data", "d", "driver_scores", "nobody"]), 1, &["driver_scores", "nobody"]);
    let schema = ["nothing called tripz", "did you mean trips?", "known: readings, "];
    refused(&mut command(&["schema", "tripz"]), 2, &schema);
    assert!(!desk.path("nope").exists());
}

#[test]
fn secrets_are_never_printed() {
    const SECRET: &str = "48151623";
    let desk = Desk::new();
    let check = |config: &Path, environment: Option<&str>, code: i32| {
        let mut command = drivetrain();
        command.arg("check").arg("--config").arg(config);
        if let Some(name) = environment {
            command.env(name, SECRET);
        }
        let output = run(&mut command, code);
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(!said.contains(SECRET), "{said}");
        said
    };
    // From the environment; digits are a text, too.
    let said = check(&good(), Some("DRIVETRAIN_KAFKA__PROPERTIES__SASL.PASSWORD"), 0);
    assert!(said.contains(r#""sasl.password" = "***""#), "{said}");
    check(&good(), Some("DRIVETRAIN_KAFKA__PROPERTIES"), 2);
    // From the file, however it is spelt or written.
    let names = [
        "sasl.password",
        "sasl.pasword",
        "SASL.Password",
        "ssl.key.pem",
        "sasl.jaas.config",
        "sasl.oauthbearer.config",
    ];
    for name in names {
        let with =
            |value: &str| format!("\n[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"{name}\" = {value}\n");
        let said = check(&desk.config("[job]", "[job]", &with(&format!("\"{SECRET}\""))), None, 0);
        assert!(said.contains(name) && said.contains("\"security.protocol\" = \"ssl\""), "{said}");
        for wrong in [SECRET.to_string(), format!("[\"{SECRET}\"]"), format!("\"{SECRET}\" x"), format!("\"{SECRET}")] {
            let said = check(&desk.config("[job]", "[job]", &with(&wrong)), None, 2);
            assert!(said.contains(&added(4)), "{said}");
        }
    }
    let inline = format!("\n[kafka]\nproperties = {{ \"sasl.password\" = {SECRET} }}\n");
    check(&desk.config("[job]", "[job]", &inline), None, 2);
    // A client that can't be made.
    let kafka = "\n[kafka]\nbrokers = \"localhost:1\"\n[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"";
    let config = desk.config("[job]", "[job]", &format!("{kafka}\n\"sasl.pasword\" = \"{SECRET}\"\n"));
    let mut command = drivetrain();
    command.arg("run").arg("--config").arg(config).arg("--data").arg(desk.path("d"));
    let said = refused(&mut command, 2, &["kafka.properties.sasl.pasword: ", &added(6)]);
    assert!(!said.contains(SECRET), "{said}");
    assert!(!desk.path("d").exists());
}

#[test]
fn a_property_that_librdkafka_does_not_have_is_a_mistake_of_the_configuration() {
    let desk = Desk::new();
    let kafka = "\n[kafka]\nbrokers = \"localhost:1\"\n[kafka.properties]\n";
    for (property, parts) in [
        ("no_such = \"1\"", &["kafka.properties.no_such: ", "No such configuration property", "CONFIGURATION.md"][..]),
        ("\"linger.ms\" = \"soon\"", &["kafka.properties.linger.ms: ", "linger.ms", "CONFIGURATION.md"]),
    ] {
        let config = desk.config("[job]", "[job]", &format!("{kafka}{property}\n"));
        for arguments in [&["run", "--data", "d"][..], &["check"]] {
            let mut command = drivetrain();
            command.current_dir(desk.scratch.path()).args(arguments).arg("--config").arg(&config);
            refused(&mut command, 2, &[&[&*added(5)][..], parts].concat());
        }
    }
    let config = desk.config("[job]", "[job]", kafka);
    let mut command = drivetrain();
    command.arg("check").arg("--config").arg(&config).env("DRIVETRAIN_KAFKA__PROPERTIES__LINGER_MS", "soon");
    refused(&mut command, 2, &["DRIVETRAIN_KAFKA__PROPERTIES__LINGER_MS", "linger.ms"]);
    assert!(!desk.path("d").exists());
}

#[test]
fn control_documents_that_can_t_be_used_are_told() {
    let desk = Desk::new();
    desk.write("drivers.jsonl", "{\"driver_id\":\"d1\",\"name\":\"A\"}\n{\"driver\":\"d2\"}\nnot JSON\n");
    let config = desk.config("[job]", "[job]", "\n[reference]\ndrivers = { files = [\"drivers.jsonl\"] }\n");
    let output = run(&mut desk.replay(&config, &[], &desk.path("t.jsonl")), 0);
    let said = String::from_utf8(output.stdout).unwrap();
    let line = said.lines().find(|line| line.contains("control documents")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.starts_with("2 control documents could not be used: "), "{line}");
    let question = line.split('"').nth(1).expect("a question");
    let rows = sql(&desk.path("d"), &format!("{question} order by position"));
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows[0].contains("drivers.jsonl,2,") && rows[0].contains("driver_id"), "{rows:?}");
    assert!(rows[1].contains("drivers.jsonl,3,"), "{rows:?}");
}

/// What the answer to a refused question suggests is an answer.
#[test]
fn a_question_that_needs_too_much_memory_is_told_how_to_be_asked() {
    let desk = Desk::new();
    let input = desk.path("many.jsonl");
    run(drivetrain().args(["simulate", "--vehicles", "20", "--for", "20m", "--out"]).arg(&input), 0);
    run(&mut desk.replay(&repository("configs/fleet.toml"), &[], &input), 0);
    let mut command = drivetrain();
    command.current_dir(desk.scratch.path()).args(["sql", "--data", "d"]);
    command.arg("select count(*), count(distinct (vehicle_id, at)) from readings");
    refused(&mut command, 1, &["memory", "select count(*) from (select distinct a, b from …)"]);
    let counts =
        "select count(*) = (select count(*) from (select distinct vehicle_id, at from readings)) from readings";
    assert_eq!(sql(&desk.path("d"), counts), ["true"]);
}
