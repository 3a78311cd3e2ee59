//! `drivetrain schema`: what the tables, topics and control documents hold, for people and for other tools.
//!
//! ```text
//!  markdown     tables and topics with their columns       arrow    the logs' Arrow schemas
//!  json-schema  documents of topics and of control topics  duckdb   views over the logs that give the same rows as
//!                                                          spark    `drivetrain sql`: the current state
//! ```

mod documents;
mod views;

#[cfg(test)]
mod tests;

use crate::sql::{log_directory, saved_catalogue};
use clap::ValueEnum;
use drivetrain_schemas::arrow;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::control::ControlKind;
use drivetrain_schemas::table::{Kind, Table, TableId, Topic};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What can go wrong; always the command line's fault.
#[derive(Debug, Error)]
pub enum SchemaError {
    #[error("there is nothing called {name}{hint}\nknown: {known}")]
    Unknown { name: String, hint: String, known: String },
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    #[error("{name} is {what}, which --format {format} does not show")]
    Format { name: String, what: &'static str, format: String },
}

impl SchemaError {
    pub fn exit_code(&self) -> u8 {
        2
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SchemaFormat {
    /// Tables with their columns, types, units and keys.
    #[default]
    Markdown,
    /// The documents of the live topics and of the control topics (draft 2020-12).
    JsonSchema,
    /// The columns of the change logs.
    Arrow,
    /// Views for DuckDB.
    Duckdb,
    /// Views for Spark SQL.
    Spark,
}

/// Shows what tables, topics and documents hold.
#[derive(Clone, Debug, clap::Args)]
pub struct SchemaArgs {
    /// A table, a live topic or a kind of control document; all without.
    pub name: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    pub format: SchemaFormat,
    /// Take the signals, which are columns of `readings`, from this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub config: Option<PathBuf>,
    /// The data directory for the views' paths; tables that have no files in it are left out, and the columns of
    /// `readings` are those of its files.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// The command's output.
///
/// # Errors
/// See [`SchemaError`].
pub fn render(args: &SchemaArgs) -> Result<String, SchemaError> {
    let catalogue = match (&args.config, &args.data) {
        (Some(config), _) => configured(config)?,
        (None, Some(data)) => saved_catalogue(data),
        (None, None) => Catalogue::default(),
    };
    let subjects = subjects(args)?;
    let tables = || subjects.iter().filter_map(|s| if let Subject::Table(id) = s { Some(*id) } else { None });
    match args.format {
        SchemaFormat::Markdown => Ok(subjects.iter().map(|s| s.markdown(&catalogue)).collect::<Vec<_>>().join("\n")),
        SchemaFormat::JsonSchema => Ok(documents::render(&subjects, &catalogue)),
        SchemaFormat::Arrow => {
            let text = tables().map(|id| arrow_text(&Table::new(id, &catalogue)));
            Ok(text.collect::<Vec<_>>().join("\n"))
        }
        SchemaFormat::Duckdb => views::render(views::Dialect::DuckDb, tables(), &catalogue, args.data.as_deref()),
        SchemaFormat::Spark => views::render(views::Dialect::Spark, tables(), &catalogue, args.data.as_deref()),
    }
}

/// Prints [`render`]'s text.
///
/// # Errors
/// See [`SchemaError`].
pub fn run(args: &SchemaArgs) -> Result<(), SchemaError> {
    use std::io::Write;
    let text = render(args)?;
    // Whoever closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Something that has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Table(TableId),
    Topic(Topic),
    Control(ControlKind),
}

impl Subject {
    fn all() -> Vec<Subject> {
        let tables = TableId::ALL.into_iter().map(Subject::Table);
        let topics = Topic::ALL.into_iter().map(Subject::Topic);
        tables.chain(topics).chain(ControlKind::ALL.into_iter().map(Subject::Control)).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Subject::Table(id) => id.name(),
            Subject::Topic(topic) => topic.name(),
            Subject::Control(kind) => kind.name(),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Subject::Table(_) => "a table",
            Subject::Topic(_) => "a live topic",
            Subject::Control(_) => "a kind of control document",
        }
    }

    fn fits(self, format: SchemaFormat) -> bool {
        match format {
            SchemaFormat::Markdown => true,
            SchemaFormat::JsonSchema => !matches!(self, Subject::Table(_)),
            SchemaFormat::Arrow | SchemaFormat::Duckdb | SchemaFormat::Spark => matches!(self, Subject::Table(_)),
        }
    }

    fn markdown(self, catalogue: &Catalogue) -> String {
        match self {
            Subject::Table(id) => table_markdown(&Table::new(id, catalogue)),
            Subject::Topic(topic) => documents::topic_markdown(topic),
            Subject::Control(kind) => documents::control_markdown(kind),
        }
    }
}

/// What the format shows of what was asked for. A name may be a table and a topic.
fn subjects(args: &SchemaArgs) -> Result<Vec<Subject>, SchemaError> {
    let Some(name) = &args.name else {
        return Ok(Subject::all().into_iter().filter(|s| s.fits(args.format)).collect());
    };
    let plain = name.strip_suffix("_log").unwrap_or(name);
    let named: Vec<Subject> = Subject::all().into_iter().filter(|s| s.name() == plain).collect();
    let fit: Vec<Subject> = named.iter().copied().filter(|s| s.fits(args.format)).collect();
    match (fit.is_empty(), named.first()) {
        (false, _) => Ok(fit),
        (true, Some(subject)) => Err(SchemaError::Format {
            name: name.clone(),
            what: subject.what(),
            format: args.format.to_possible_value().map_or(String::new(), |v| v.get_name().into()),
        }),
        (true, None) => {
            let mut known: Vec<&str> = Subject::all().into_iter().map(Subject::name).collect();
            known.dedup();
            let near = known.iter().map(|n| (strsim::damerau_levenshtein(n, plain), *n)).min().filter(|(d, _)| *d <= 4);
            let hint = near.map_or(String::new(), |(_, n)| format!("; did you mean {n}?"));
            Err(SchemaError::Unknown { name: name.clone(), hint, known: known.join(", ") })
        }
    }
}

/// The `[signals]` of a configuration; its other sections are not looked at.
fn configured(path: &Path) -> Result<Catalogue, SchemaError> {
    #[derive(serde::Deserialize)]
    struct Signals {
        #[serde(default)]
        signals: BTreeMap<String, SignalConfig>,
    }
    let failed = |problem: String| SchemaError::File { path: path.into(), problem };
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    let config: Signals = toml::from_str(&text).map_err(|e| failed(e.to_string()))?;
    Catalogue::new(&config.signals).map_err(|e| failed(e.to_string()))
}

/// The name of a column's type, for people.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Int => "int64",
        Kind::Time => "timestamp (µs, UTC)",
        Kind::Float => "float64",
        Kind::Bool => "boolean",
        Kind::Binary => "binary",
        Kind::Json => "JSON as text",
    }
}

fn table_markdown(table: &Table) -> String {
    let mut out = format!("## {}\n\n{}\n\nKey: {}.", table.name, table.doc, table.key.join(", "));
    if let Some(date) = table.date {
        let _ = write!(out, " Partitioned by the UTC day of `{date}` (`date=YYYY-MM-DD`).");
    }
    if table.id == TableId::Readings {
        out.push_str(" One column for each signal of the configuration.");
    }
    out.push_str("\n\n| column | type | null | |\n|---|---|---|---|\n");
    for column in &table.columns {
        let null = if column.nullable { "yes" } else { "" };
        let doc = column.doc.replace('|', "\\|");
        let _ = writeln!(out, "| {} | {} | {null} | {doc} |", column.name, kind_name(column.kind));
    }
    let _ = write!(
        out,
        "\n`{}_log` has also `epoch` (when the row became or ceased to be true) and `diff` (+1 or -1), both int64.\n",
        table.name
    );
    out
}

fn arrow_text(table: &Table) -> String {
    let mut out = format!("{}_log\n", table.name);
    for field in arrow::schema(table, true).fields() {
        let null = if field.is_nullable() { "" } else { " not null" };
        let _ = writeln!(out, "  {}: {}{null}", field.name(), field.data_type());
    }
    if table.date.is_some() {
        out.push_str("  date: Date32 (partition)\n");
    }
    out
}

/// True when the log has a Parquet file.
fn has_files(data: &Path, id: TableId) -> bool {
    fn any(directory: &Path) -> bool {
        let Ok(entries) = std::fs::read_dir(directory) else { return false };
        entries.flatten().any(|e| {
            let path = e.path();
            path.extension().is_some_and(|x| x == "parquet") || (path.is_dir() && any(&path))
        })
    }
    any(&log_directory(data, id))
}
