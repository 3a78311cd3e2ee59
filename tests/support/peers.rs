//! Tools of others (Python with duckdb, pyarrow, confluent-kafka, pyyaml), as scripts beside this file.

use super::{TABLES, drivetrain, repository, run};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What a script of `tests/support` prints, as JSON; None (said loudly) where Python lacks a module. With
/// `DRIVETRAIN_REQUIRE_KAFKA=1` that is a failure.
#[track_caller]
pub fn script<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Option<Value> {
    let python = std::env::var("DRIVETRAIN_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(&python);
    let output = command.arg(repository("tests/support").join(name)).args(arguments).output().expect("python");
    let said = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var("DRIVETRAIN_REQUIRE_KAFKA").is_ok_and(|v| v == "1");
    if !output.status.success() && !required && said.contains("ModuleNotFoundError") {
        eprintln!("\n!!! SKIPPED, AND SO NOT SHOWN TO WORK: {python} lacks what {name} needs: {said}\n");
        return None;
    }
    assert!(output.status.success(), "{name}: {said}");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// In DuckDB each view of `drivetrain schema --format duckdb` has the columns and the rows, each as often, that
/// `drivetrain sql` gives for the table; a table without rows may have none. Returns the tables that have rows, or None
/// as [`script`].
#[track_caller]
pub fn views_agree(data: &Path) -> Option<Vec<String>> {
    let scratch = tempfile::tempdir().expect("a directory");
    let views = scratch.path().join("views.sql");
    let output = run(drivetrain().args(["schema", "--format", "duckdb", "--data"]).arg(data), 0);
    fs::write(&views, output.stdout).expect("a file");
    for table in TABLES {
        let out = scratch.path().join(format!("{table}.parquet"));
        let mut sql = drivetrain();
        sql.args(["sql", "--format", "parquet", "--data"]).arg(data).arg("--out").arg(&out);
        run(sql.arg(format!("select * from {table}")), 0);
    }
    let said = script("views.py", &[views.as_path(), scratch.path()])?;
    let said = said.as_object().expect("an object");
    let mut filled = Vec::new();
    for table in TABLES {
        let found = &said[table];
        let rows = ["view", "sql"].map(|side| found[side]["rows"].as_u64().unwrap_or(0));
        assert_eq!(rows[0], rows[1], "{table}: rows of the view, and by sql");
        let columns = ["view", "sql"].map(|side| &found[side]["columns"]);
        assert!(columns[0].is_null() && rows == [0, 0] || columns[0] == columns[1], "{table}: columns {columns:?}");
        assert_eq!(found["only_view"], serde_json::json!([]), "rows of the view of {table} that sql has not");
        assert_eq!(found["only_sql"], serde_json::json!([]), "rows of {table} by sql that the view has not");
        if rows[1] > 0 {
            filled.push(table.to_string());
        }
    }
    Some(filled)
}
