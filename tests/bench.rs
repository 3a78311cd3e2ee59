//! `drivetrain bench`: measures, says so in a table, as JSON and as a chart, and leaves nothing behind. Sizes are tiny: what
//! the figures are is not looked at, since that depends on the machine.

mod support;

use serde_json::Value;
use std::process::Command;
use support::{drivetrain, run};

/// Each part, with the workers it is measured with.
const LINES: [(&str, u64); 10] = [
    ("parse", 1),
    ("decode", 1),
    ("kernels", 1),
    ("columns", 1),
    ("rows", 1),
    ("history", 1),
    ("answers", 1),
    ("answers", 2),
    ("job", 1),
    ("job", 2),
];

#[test]
fn everything_is_measured_and_shown() {
    let scratch = tempfile::tempdir().unwrap();
    let work = scratch.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let (json, svg) = (scratch.path().join("bench.json"), scratch.path().join("bench.svg"));
    let mut bench = drivetrain();
    bench.args(["bench", "--for", "1s", "--readings", "3000", "--vehicles", "40", "--workers", "2", "--scratch"]);
    let output = run(bench.arg(&work).arg("--json").arg(&json).arg("--svg").arg(&svg), 0);
    assert_eq!(std::fs::read_dir(&work).unwrap().count(), 0, "something was left behind");

    let table = String::from_utf8(output.stdout).unwrap();
    for title in ["decoding", "kernels", "Parquet of the readings", "whole job, 1 worker", "whole job, 2 workers"] {
        let line = table.lines().find(|line| line.starts_with(title)).unwrap_or_else(|| panic!("{title}: {table}"));
        assert!(
            line.split_whitespace().rev().take(5).any(|cell| cell.starts_with(|c: char| c.is_ascii_digit())),
            "{line}"
        );
    }

    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!((&report["setting"]["readings"], &report["setting"]["vehicles"]), (&3000.into(), &40.into()));
    assert!(report["rounds"].as_u64().unwrap() >= 3);
    let measurements = report["measurements"].as_array().unwrap();
    let name = |m: &Value| (m["part"].as_str().unwrap().to_string(), m["workers"].as_u64().unwrap());
    let found: Vec<_> = measurements.iter().map(name).collect();
    assert_eq!(found, LINES.map(|(part, workers)| (part.to_string(), workers)));
    for m in measurements {
        spread(&m["readings_per_second"], m);
        spread(&m["cpu_ns_per_reading"], m);
        if ["answers", "job"].contains(&m["part"].as_str().unwrap()) {
            spread(&m["peak_bytes"], m);
        }
    }
    let ratios = report["ratios"].as_array().unwrap();
    assert_eq!(ratios.len(), 6);
    assert!(
        ratios.iter().all(|r| r["found"].as_f64().unwrap() > 0.0 && r["most"].as_f64().unwrap() > 0.0),
        "{ratios:?}"
    );

    let chart = std::fs::read_to_string(&svg).unwrap();
    assert_eq!(chart.matches("<rect ").count(), 1 + LINES.len(), "a bar a line, and the background");
    let python = std::env::var("DRIVETRAIN_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let parse =
        "import sys, xml.dom.minidom; assert xml.dom.minidom.parse(sys.argv[1]).documentElement.tagName == 'svg'";
    run(Command::new(python).args(["-c", parse]).arg(&svg), 0);
}

/// Least, median and most, all above 0.
#[track_caller]
fn spread(value: &Value, of: &Value) {
    let [min, median, max] = ["min", "median", "max"].map(|name| value[name].as_f64().unwrap_or(f64::NAN));
    assert!(0.0 < min && min <= median && median <= max, "{of}");
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let refused = |arguments: &[&str]| {
        let output = run(drivetrain().arg("bench").args(arguments), 2);
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["--for", "soon"]).contains("--for"));
    assert!(refused(&["--workers", "0"]).contains("--workers"));
    assert!(refused(&["--readings", "0"]).contains("--readings"));
    assert!(
        refused(&["--guard", "--readings", "9"]).contains("--guard"),
        "what is usual is known of the default sizes only"
    );
    assert!(refused(&["--scratch", "/nowhere/at/all"]).contains("--scratch"));
}
