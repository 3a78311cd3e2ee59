//! `drivetrain sql`: SQL over the history and the live topics, on DataFusion. See `docs/query.md`.

mod database;
mod epochs;
mod history;
mod live;
mod output;
mod shell;

#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;

pub use database::{Database, Source, log_columns, log_directory, saved_catalogue};
pub use live::table_of;
pub use output::{Format, write, write_file};

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use datafusion::sql::sqlparser::parser::ParserError;
use drivetrain_sinks::progress::data::has_data;
use drivetrain_sinks::store::Storage;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What can go wrong, in words for the person at the command line.
#[derive(Debug, Error)]
pub enum QueryError {
    #[error("{0}")]
    Usage(String),
    #[error("{}: there is no such data directory; --data names the one given to `drivetrain run`, `replay` or `demo`", .0.display())]
    NoData(PathBuf),
    #[error("{}: no job has written here; --data names the directory given to `drivetrain run`, `replay` or `demo`", .0.display())]
    NotData(PathBuf),
    #[error("there is no table {name}{hint}\ntables: {known}")]
    UnknownTable { name: String, hint: String, known: String },
    #[error("{}: {message}", path.display())]
    File { path: PathBuf, message: String },
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Live(#[from] crate::live::LiveError),
    /// Who read the output has gone.
    #[error("the output was closed")]
    Closed,
}

impl QueryError {
    pub(crate) fn file(path: &Path, error: io::Error) -> QueryError {
        QueryError::File { path: path.into(), message: error.to_string() }
    }

    /// 2: the command line is wrong; 1: the query failed; 0: nobody reads the output any more.
    pub fn exit_code(&self) -> u8 {
        match self {
            QueryError::Usage(_) | QueryError::NoData(_) | QueryError::NotData(_) => 2,
            QueryError::Closed => 0,
            _ => 1,
        }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        // Context is for developers; the first line of the root says it to a person.
        let text = match error.find_root() {
            DataFusionError::SQL(problem, _) => syntax(problem),
            DataFusionError::ResourcesExhausted(_) => format!(
                "the query needs more than its {} GiB of memory (sorts and GROUP BY go to disk beyond that, joins and \
                 count(distinct …) do not); instead of count(distinct (a, b)) beside other columns write select \
                 count(*) from (select distinct a, b from …)",
                database::MEMORY >> 30
            ),
            root => root.strip_backtrace().replace("datafusion.public.", ""),
        };
        QueryError::Failed(text)
    }
}

/// What the parser says, with the place where it stands.
fn syntax(problem: &ParserError) -> String {
    match problem {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            format!("the query can't be read: {text}")
        }
        ParserError::RecursionLimitExceeded => "the query can't be read: it is nested too deeply".into(),
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        match error {
            ArrowError::IoError(_, e) => e.into(),
            ArrowError::ExternalError(e) if e.downcast_ref::<io::Error>().is_some_and(closed) => QueryError::Closed,
            // The CSV writer's errors keep only the text of the one below.
            ArrowError::CsvError(text) if text.contains("Broken pipe") => QueryError::Closed,
            other => QueryError::Failed(other.to_string()),
        }
    }
}

impl From<ParquetError> for QueryError {
    fn from(error: ParquetError) -> Self {
        QueryError::Failed(error.to_string())
    }
}

impl From<io::Error> for QueryError {
    fn from(error: io::Error) -> Self {
        if closed(&error) { QueryError::Closed } else { QueryError::Failed(error.to_string()) }
    }
}

fn closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Asks the history and the live topics in SQL.
///
/// Tables: readings, windows, events, trips, driver_scores, fleet_aggregates, anomalies, quality, reference_problems,
/// intake, late and rejects (the current state), each with its change log as <table>_log; vehicle_telemetry (readings
/// in long form); live_<topic> for the live topics.
#[derive(Clone, Debug, clap::Args)]
pub struct SqlArgs {
    /// The job's data directory, or the URL of its store (s3://BUCKET/PREFIX; see AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, … in
    /// docs/operations.md).
    #[arg(long, value_name = "DIR|URL")]
    pub data: PathBuf,
    /// Read the live topics from Kafka (host:port,…) instead of the data directory.
    #[arg(long)]
    pub brokers: Option<String>,
    /// Prefix of the topics in Kafka.
    #[arg(long, default_value = "", requires = "brokers")]
    pub topic_prefix: String,
    /// Show the tables as they were: an epoch, or a time such as 2026-05-01T12:00:00Z.
    #[arg(long, value_name = "EPOCH|TIME")]
    pub as_of: Option<String>,
    /// table (default on a terminal), csv (default otherwise), json or parquet.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Write the result to this file.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The query, or several, each ended by `;`. Without one: interactive, or read from standard input.
    pub query: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// See [`QueryError`]; its exit code is [`QueryError::exit_code`].
pub fn run(args: &SqlArgs) -> Result<(), QueryError> {
    match run_all(args) {
        // Who has closed the pipe has seen enough.
        Err(QueryError::Closed) => Ok(()),
        done => done,
    }
}

fn run_all(args: &SqlArgs) -> Result<(), QueryError> {
    if args.format == Some(Format::Parquet) && args.out.is_none() {
        return Err(QueryError::Usage("--format parquet needs --out FILE".into()));
    }
    let storage = storage(&args.data)?;
    if storage.remote().is_none() && !has_data(&args.data) {
        return Err(QueryError::NotData(args.data.clone()));
    }
    let source = Source {
        as_of: args.as_of.as_deref().map(|text| epochs::resolve(&storage, text)).transpose()?,
        data: args.data.clone(),
        brokers: args.brokers.clone(),
        topic_prefix: args.topic_prefix.clone(),
    };
    let database = Database::open(source)?;
    if let Some(whole) = database.falls_short() {
        eprintln!("the history is published up to epoch {whole}; that is what is shown");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let query = match &args.query {
        Some(query) => query.clone(),
        None if io::stdin().is_terminal() => return shell::interact(&database, &runtime, args.format),
        None => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
    };
    runtime.block_on(execute(&database, &query, args))
}

/// The directory or store that `--data` names.
///
/// # Errors
/// [`QueryError::NoData`] when there is no such directory, [`QueryError::Usage`] when the URL or the environment is wrong.
fn storage(data: &Path) -> Result<Storage, QueryError> {
    let storage = Storage::named(data).map_err(|e| QueryError::Usage(e.replace("storage.url", "--data")))?;
    if storage.remote().is_none() && !data.is_dir() {
        return Err(QueryError::NoData(data.to_path_buf()));
    }
    Ok(storage)
}

async fn execute(database: &Database, query: &str, args: &SqlArgs) -> Result<(), QueryError> {
    let statements = Database::parse(query)?;
    if statements.is_empty() {
        return Err(QueryError::Usage("the query is empty".into()));
    }
    if args.out.is_some() && statements.len() > 1 {
        return Err(QueryError::Usage("--out takes the result of one statement".into()));
    }
    let format = args.format.unwrap_or_else(|| default_format(args.out.as_deref()));
    for statement in statements {
        let stream = database.run(statement).await?;
        match &args.out {
            Some(path) => {
                let rows = write_file(format, stream, path).await?;
                eprintln!("{rows} rows written to {}", path.display());
            }
            None => {
                write(format, stream, &mut io::BufWriter::with_capacity(1 << 16, io::stdout())).await?;
            }
        }
    }
    Ok(())
}

/// By the file's ending; a table for people, CSV for programs.
fn default_format(out: Option<&Path>) -> Format {
    match out.map(|p| p.extension().and_then(|e| e.to_str()).unwrap_or_default()) {
        Some("parquet") => Format::Parquet,
        Some("json" | "jsonl" | "ndjson") => Format::Json,
        Some("txt") => Format::Table,
        Some(_) => Format::Csv,
        None if io::stdout().is_terminal() => Format::Table,
        None => Format::Csv,
    }
}
