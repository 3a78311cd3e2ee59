//! The rules of the house (docs/architecture.md): who may depend on whom, and where each outside library lives.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::repository;

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Each source file of the crates as (path from the root, text).
fn files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in ["schemas", "operators", "sinks", "pipeline", "pipeline/query"] {
        sources(&repository(name).join("src"), &mut found);
    }
    found.sort();
    assert!(found.len() > 50, "the sources were not found");
    let root = repository("");
    let text = |path: &PathBuf| fs::read_to_string(path).expect("UTF-8");
    found.iter().map(|p| (p.strip_prefix(&root).expect("below the root").display().to_string(), text(p))).collect()
}

#[track_caller]
fn only_in(needles: &[&str], allowed: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (path, text) in files() {
        let used = text.lines().any(|line| {
            let code = line.trim_start();
            !code.starts_with("//") && needles.iter().any(|needle| code.contains(needle))
        });
        if used && !allowed(&path) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "{needles:?} may not be used in {wrong:?}");
}

#[test]
fn crates_depend_downwards_only() {
    for (name, forbidden) in [
        ("schemas", &["drivetrain-operators", "drivetrain-sinks", "drivetrain-pipeline", "timely", "rdkafka"][..]),
        ("operators", &["drivetrain-sinks", "drivetrain-pipeline", "rdkafka", "datafusion"]),
        ("sinks", &["drivetrain-operators", "drivetrain-pipeline", "datafusion"]),
        ("pipeline/query", &["drivetrain-operators", "drivetrain-pipeline", "timely"]),
        // Else its benches would wait for DataFusion.
        ("benches/kernels", &["drivetrain-pipeline", "drivetrain-query", "datafusion"]),
    ] {
        let manifest = fs::read_to_string(repository(name).join("Cargo.toml")).expect("a manifest");
        for crate_name in forbidden {
            assert!(!manifest.contains(crate_name), "{name} must not depend on {crate_name}");
        }
    }
}

#[test]
fn dataflow_lives_in_its_rooms() {
    only_in(&["timely::", "differential_dataflow::"], |path| {
        ["operators/src/flow/", "pipeline/src/source/", "pipeline/src/graph.rs", "pipeline/src/runtime/"]
            .iter()
            .any(|room| path.starts_with(room))
    });
}

#[test]
fn kafka_lives_in_modules_of_its_name() {
    only_in(&["rdkafka::"], |path| path.contains("/kafka/") || path.ends_with("/kafka.rs"));
}

#[test]
fn stores_live_in_one_room() {
    only_in(&["object_store::"], |path| {
        ["sinks/src/store/", "pipeline/query/src/sql/"].iter().any(|room| path.starts_with(room))
            || path.contains("/tests")
    });
}

#[test]
fn kernels_know_no_clock() {
    only_in(&["SystemTime::now", "Instant::now"], |path| {
        !path.starts_with("operators/") && !path.starts_with("schemas/")
    });
}

#[test]
fn the_graph_fits_a_page() {
    let lines = fs::read_to_string(repository("pipeline/src/graph.rs")).expect("the graph").lines().count();
    assert!(lines <= 120, "graph.rs has {lines} lines: the whole dataflow is to be read at a glance");
}
