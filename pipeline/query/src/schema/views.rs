//! Views for DuckDB and Spark: the logs, and the current state that `drivetrain sql` shows.
//!
//! A view sums `diff` over equal rows and keeps what is there more often than not. A filter on a column passes through
//! the grouping down to the files in both engines.

use super::{SchemaError, has_files};
use crate::sql::log_columns;
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::table::{Table, TableId};
use std::fmt::Write;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    DuckDb,
    Spark,
}

/// Where the views look when no directory is given.
const DEFAULT_DATA: &str = "data";

/// `CREATE VIEW` statements for these tables; with `data` for those that have files in it.
pub(super) fn render(
    dialect: Dialect,
    tables: impl Iterator<Item = TableId>,
    catalogue: &Catalogue,
    data: Option<&Path>,
) -> Result<String, SchemaError> {
    let root = data.map_or_else(|| DEFAULT_DATA.to_string(), |d| d.display().to_string());
    let mut out = String::new();
    for id in tables {
        if data.is_some_and(|d| !has_files(d, id)) {
            continue;
        }
        let columns = match data {
            Some(data) => log_columns(data, id, catalogue)
                .map_err(|e| SchemaError::File { path: data.into(), problem: e.to_string() })?,
            None => Table::new(id, catalogue).columns.into_iter().map(|c| c.name).collect(),
        };
        let table = Table::new(id, catalogue);
        let _ = writeln!(out, "-- {}", table.doc);
        out.push_str(&log_view(dialect, &table, &root));
        out.push_str(&state_view(dialect, table.name, &columns));
        out.push('\n');
    }
    Ok(out)
}

fn log_view(dialect: Dialect, table: &Table, root: &str) -> String {
    let name = table.name;
    let path = format!("{}/history/{name}_log", root.trim_end_matches('/'));
    match dialect {
        Dialect::DuckDb => {
            let path = format!("{path}/**/*.parquet").replace('\'', "''");
            let hive = if table.date.is_some() { "true" } else { "false" };
            format!(
                "CREATE OR REPLACE VIEW {name}_log AS\nSELECT * FROM read_parquet('{path}', hive_partitioning = {hive}, \
                 union_by_name = true);\n"
            )
        }
        Dialect::Spark => {
            let path = path.replace('\\', "\\\\").replace('\'', "\\'");
            format!(
                "CREATE OR REPLACE TEMPORARY VIEW {name}_log USING parquet\nOPTIONS (path '{path}', mergeSchema 'true', \
                 recursiveFileLookup 'false');\n"
            )
        }
    }
}

fn state_view(dialect: Dialect, name: &str, columns: &[String]) -> String {
    let (view, quote) = match dialect {
        Dialect::DuckDb => ("CREATE OR REPLACE VIEW", '"'),
        Dialect::Spark => ("CREATE OR REPLACE TEMPORARY VIEW", '`'),
    };
    let list = columns.iter().map(|c| format!("{quote}{c}{quote}")).collect::<Vec<_>>().join(", ");
    format!("{view} {name} AS\n{}", state_query(&format!("{name}_log"), &list) + ";\n")
}

/// The query of a current state; the same in every dialect.
pub(super) fn state_query(log: &str, columns: &str) -> String {
    format!("SELECT {columns}\nFROM {log}\nGROUP BY {columns}\nHAVING sum(diff) > 0")
}
