//! The tables that SQL sees, opened when a statement names them:
//!
//! ```text
//!  <data>/history/<table>_log/*.parquet ──► <table>_log  (every change, with epoch, diff and date)
//!                                       └─► <table>      (the current state: what the diffs leave)
//!  readings ──► vehicle_telemetry        (long form: one row a value)
//!  <data>/live/<topic> or Kafka ──► live_<topic>
//! ```
//!
//! With `--as-of` the logs end at that epoch, and the current state is that of then.
//!
//! **Current state.** Days (partitions) none of whose files holds a retraction are plain rows; only the others are
//! summed: `GROUP BY` all columns `HAVING sum(diff) > 0`. A filter on a column passes through both down to the files.

use super::history::{self, History, HistoryFile};
use super::{QueryError, live, storage};
use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::sum;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ident, lit};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext, cast};
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::resolve::resolve_table_references;
use drivetrain_schemas::arrow;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::table::{Table, TableId, Topic};
use drivetrain_schemas::time::format_rfc3339;
use drivetrain_sinks::FileError;
use drivetrain_sinks::manifest::{Manifest, manifest, wall_of};
use drivetrain_sinks::store::Storage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Memory for sorts, joins and aggregates before they spill to disk.
pub(super) const MEMORY: usize = 2 << 30;
/// The long form of `readings`.
pub(super) const TELEMETRY: &str = "vehicle_telemetry";

/// Where the tables come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub data: PathBuf,
    /// Read the live topics from Kafka instead of `<data>/live`.
    pub brokers: Option<String>,
    /// Prefix of the topics in Kafka.
    pub topic_prefix: String,
    /// Show the tables as they were at the end of this epoch.
    pub as_of: Option<i64>,
}

/// A session over one data directory: it sees the history as it was published when the session began.
pub struct Database {
    context: SessionContext,
    storage: Storage,
    source: Source,
    catalogue: Catalogue,
    manifest: Manifest,
    /// Rows of later epochs are not shown: `as_of`, and what is not published of every table yet.
    until: Option<i64>,
}

impl Database {
    /// Opens a directory that a job has written.
    ///
    /// # Errors
    /// [`QueryError::NoData`] when there is no such directory; [`QueryError::Usage`] when the past that is asked for is
    /// not known any more.
    pub fn open(source: Source) -> Result<Database, QueryError> {
        let storage = storage(&source.data)?;
        let mut config = SessionConfig::new().with_information_schema(true);
        // Row filters inside the Parquet reader: most questions are about few vehicles.
        config.options_mut().execution.parquet.pushdown_filters = true;
        config.options_mut().execution.time_zone = Some("UTC".into());
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(MEMORY))).build_arc()?;
        let context = SessionContext::new_with_config_rt(config, runtime);
        let failed = |e: FileError| QueryError::Failed(e.to_string());
        let manifest = manifest(&storage).map_err(failed)?;
        let catalogue = match storage.remote() {
            None => saved_catalogue(&source.data),
            Some(_) if manifest.generation == 0 => return Err(QueryError::NotData(source.data)),
            Some(remote) => {
                let (store, bucket) = remote.bucket();
                context.register_object_store(ObjectStoreUrl::parse(bucket)?.as_ref(), store);
                catalogue(&remote.catalogue(manifest.generation).map_err(failed)?.unwrap_or_default())
            }
        };
        if let Some(asked) = source.as_of.filter(|asked| *asked < manifest.oldest_epoch) {
            return Err(too_old(&storage, asked, manifest.oldest_epoch));
        }
        let whole = (manifest.generation > 0).then_some(manifest.history_epoch);
        let until = match (source.as_of, whole) {
            (Some(asked), Some(whole)) => Some(asked.min(whole)),
            (asked, whole) => asked.or(whole),
        };
        Ok(Database { context, storage, source, catalogue, manifest, until })
    }

    /// The epoch that is shown, when that asked for is not published yet.
    pub fn falls_short(&self) -> Option<i64> {
        self.until.filter(|until| self.source.as_of.is_some_and(|asked| asked > *until))
    }

    /// Names of all tables and views.
    pub fn names(&self) -> Vec<String> {
        let tables = TableId::ALL.iter().map(|t| t.name().to_string());
        let logs = TableId::ALL.iter().map(|t| format!("{}_log", t.name()));
        let live = Topic::ALL.iter().map(|t| format!("live_{}", t.name()));
        tables.chain([TELEMETRY.to_string()]).chain(live).chain(logs).collect()
    }

    /// Splits a text into statements.
    ///
    /// # Errors
    /// What the parser says of it.
    pub fn parse(sql: &str) -> Result<Vec<Statement>, QueryError> {
        Ok(DFParser::parse_sql(sql)?.into())
    }

    /// Runs one statement; the result is computed while it is read.
    ///
    /// # Errors
    /// An unknown table (with the nearest name), or what DataFusion says of the statement.
    pub async fn run(&self, statement: Statement) -> Result<SendableRecordBatchStream, QueryError> {
        self.prepare(&statement).await?;
        let plan = self.context.state().statement_to_plan(statement).await?;
        // The history belongs to the job: views and tables of the session may be made, files may not be written.
        SQLOptions::new().with_allow_dml(false).verify_plan(&plan)?;
        Ok(self.context.execute_logical_plan(plan).await?.execute_stream().await?)
    }

    /// The columns of a table: name, type, nullable.
    ///
    /// # Errors
    /// An unknown table, or one that can't be opened.
    pub async fn describe(&self, name: &str) -> Result<Vec<(String, DataType, bool)>, QueryError> {
        self.open_table(name).await?;
        let schema = self.context.table_provider(bare(name)).await?.schema();
        Ok(schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone(), f.is_nullable())).collect())
    }

    /// Opens the tables that the statement names.
    async fn prepare(&self, statement: &Statement) -> Result<(), QueryError> {
        let (tables, _) = resolve_table_references(statement, true)?;
        for table in &tables {
            match table {
                TableReference::Bare { table } => self.open_table(table).await?,
                TableReference::Partial { schema, table } if &**schema == "public" => self.open_table(table).await?,
                // `SHOW TABLES` and information_schema list what is open.
                _ => self.open_all().await?,
            }
        }
        let shows = matches!(statement, Statement::Statement(s) if s.to_string().starts_with("SHOW"));
        if shows { self.open_all().await } else { Ok(()) }
    }

    async fn open_all(&self) -> Result<(), QueryError> {
        for name in self.names() {
            if self.source.brokers.is_none() || !name.starts_with("live_") {
                self.open_table(&name).await?;
            }
        }
        Ok(())
    }

    async fn open_table(&self, name: &str) -> Result<(), QueryError> {
        let function = self.context.state().table_functions().contains_key(name);
        if function || self.context.table_exist(bare(name))? {
            return Ok(());
        }
        if let Some(topic) = name.strip_prefix("live_").and_then(|n| Topic::ALL.into_iter().find(|t| t.name() == n)) {
            let table = live::table(&self.source, topic, &self.catalogue)?;
            self.context.register_table(bare(name), Arc::new(table))?;
            return Ok(());
        }
        if name == TELEMETRY {
            let log = self.log(TableId::Readings)?;
            let view = self.telemetry(&log)?;
            self.context.register_table(bare(name), view.into_view())?;
            return Ok(());
        }
        let (table, is_log) = match name.strip_suffix("_log") {
            Some(table) => (table, true),
            None => (name, false),
        };
        let Some(id) = TableId::by_name(table) else { return Err(self.unknown(name)) };
        let log = self.log(id)?;
        let view = if is_log { self.rows(&log, log.history.clone())? } else { self.current(&log)? };
        self.context.register_table(bare(name), view.into_view())?;
        Ok(())
    }

    fn log(&self, id: TableId) -> Result<Log, QueryError> {
        Log::open(&self.storage, &self.manifest, self.until, id, &self.catalogue)
    }

    fn unknown(&self, name: &str) -> QueryError {
        let names = self.names();
        let near = names
            .iter()
            .map(|n| (strsim::damerau_levenshtein(n, name), n))
            .filter(|(distance, n)| *distance <= n.len() / 3 + 1)
            .min();
        let hint = near.map_or(String::new(), |(_, n)| format!("; did you mean {n}?"));
        QueryError::UnknownTable { name: name.into(), hint, known: names.join(", ") }
    }

    /// The rows of a part of the log up to the epoch asked for.
    fn rows(&self, log: &Log, part: Arc<History>) -> Result<DataFrame, QueryError> {
        let name = format!("{}_log", log.id.name());
        let scan = LogicalPlanBuilder::scan(name, provider_as_source(part.clone()), None)?;
        let beyond = |f: &HistoryFile| f.epochs.is_none_or(|(_, newest)| Some(newest) > self.until);
        let scan = match self.until {
            Some(epoch) if part.files().iter().any(beyond) => scan.filter(ident("epoch").lt_eq(lit(epoch)))?,
            _ => scan,
        };
        Ok(DataFrame::new(self.context.state(), scan.build()?))
    }

    /// The current state: see the module's documentation.
    fn current(&self, log: &Log) -> Result<DataFrame, QueryError> {
        let moving: BTreeSet<Option<i32>> = log.history.files().iter().filter(|f| f.retracts).map(|f| f.date).collect();
        let names = log.columns();
        let select = || names.iter().map(ident).collect::<Vec<Expr>>();
        let stable = self.rows(log, Arc::new(log.history.only(|f| !moving.contains(&f.date))))?;
        let stable = stable.filter(ident("diff").gt(lit(0_i64)))?.select(select())?;
        if moving.is_empty() {
            return Ok(stable);
        }
        let total = "diff_total";
        let folded = self
            .rows(log, Arc::new(log.history.only(|f| moving.contains(&f.date))))?
            .aggregate(select(), vec![sum(ident("diff")).alias(total)])?
            .filter(ident(total).gt(lit(0_i64)))?
            .select(select())?;
        if moving.len() == log.history.files().iter().map(|f| f.date).collect::<BTreeSet<_>>().len() {
            return Ok(folded);
        }
        Ok(stable.union(folded)?)
    }

    /// `readings` in long form: one row for each known number or boolean (as 0 or 1).
    fn telemetry(&self, log: &Log) -> Result<DataFrame, QueryError> {
        const FIXED: [&str; 7] = ["vehicle_id", "at", "driver_id", "trip_id", "fleet_id", "quality", "tags"];
        let readings = self.current(log)?;
        let branch = |signal: Option<&str>| -> Result<DataFrame, QueryError> {
            let value = match signal {
                Some(name) => cast(cast_bool(&readings, name), DataType::Float64),
                None => cast(lit(0_i64), DataType::Float64),
            };
            let known = match signal {
                Some(name) => ident(name).is_not_null(),
                None => lit(false),
            };
            Ok(readings.clone().filter(known)?.select(vec![
                ident("vehicle_id"),
                lit(signal.unwrap_or_default()).alias("sensor_type"),
                ident("fleet_id"),
                ident("at"),
                value.alias("value"),
                ident("quality"),
                ident("tags").alias("metadata"),
            ])?)
        };
        let fields = readings.schema().fields().clone();
        let measured = |t: &DataType| t.is_numeric() || *t == DataType::Boolean;
        let mut signals = fields.iter().filter(|f| !FIXED.contains(&f.name().as_str()) && measured(f.data_type()));
        let first = branch(signals.next().map(|f| f.name().as_str()))?;
        signals.try_fold(first, |all, f| Ok(all.union(branch(Some(f.name()))?)?))
    }
}

/// The past that compaction has left no trace of.
fn too_old(data: &Storage, asked: i64, oldest: i64) -> QueryError {
    let wall = wall_of(data, Some(oldest)).unwrap_or_default();
    let when = wall.map_or(String::new(), |wall| format!(" ({})", format_rfc3339(wall)));
    QueryError::Usage(format!(
        "--as-of: epoch {asked} is not known any more; the oldest that is, is epoch {oldest}{when}: compaction has cancelled \
         the changes before it (history.as_of says how much of the past it leaves)"
    ))
}

/// Booleans become integers first, which every kernel can turn into floats.
fn cast_bool(readings: &DataFrame, name: &str) -> Expr {
    let boolean =
        readings.schema().field_with_unqualified_name(name).is_ok_and(|f| f.data_type() == &DataType::Boolean);
    if boolean { cast(ident(name), DataType::Int64) } else { ident(name) }
}

fn bare(name: &str) -> TableReference {
    TableReference::bare(name)
}

/// A table's log: its definition and its files.
struct Log {
    id: TableId,
    history: Arc<History>,
}

impl Log {
    fn open(
        storage: &Storage,
        manifest: &Manifest,
        until: Option<i64>,
        id: TableId,
        catalogue: &Catalogue,
    ) -> Result<Log, QueryError> {
        let table = Table::new(id, catalogue);
        let mut files = history::files(storage, manifest, id)?;
        files.retain(|f| f.epochs.is_none_or(|(oldest, _)| until.is_none_or(|until| oldest <= until)));
        let schema = match history::merged_schema(&files)? {
            Some(schema) => Arc::new(schema),
            None => arrow::schema(&table, true),
        };
        Ok(Log { id, history: Arc::new(History::new(storage, schema, table.date, files)) })
    }

    /// The table's own columns.
    fn columns(&self) -> Vec<String> {
        let schema = self.history.schema();
        let own = |name: &str| !matches!(name, "epoch" | "diff" | "date");
        schema.fields().iter().map(|f| f.name().clone()).filter(|n| own(n)).collect()
    }
}

/// `<data>/history/<table>_log`.
pub fn log_directory(data: &Path, id: TableId) -> PathBuf {
    data.join("history").join(format!("{}_log", id.name()))
}

/// The columns of a table without `epoch`, `diff` and `date`, as its files have them.
///
/// # Errors
/// A file that can't be read.
pub fn log_columns(data: &Path, id: TableId, catalogue: &Catalogue) -> Result<Vec<String>, QueryError> {
    let storage = Storage::from(data);
    let manifest = manifest(&storage).map_err(|e| QueryError::Failed(e.to_string()))?;
    Ok(Log::open(&storage, &manifest, None, id, catalogue)?.columns())
}

/// The catalogue that the job has written to `<data>/catalogue.json` (its `[signals]` as JSON); empty when there is
/// none or it can't be read, since it only serves tables without files.
pub fn saved_catalogue(data: &Path) -> Catalogue {
    catalogue(&std::fs::read(data.join("catalogue.json")).unwrap_or_default())
}

fn catalogue(text: &[u8]) -> Catalogue {
    let signals: BTreeMap<String, SignalConfig> = serde_json::from_slice(text).unwrap_or_default();
    Catalogue::new(&signals).unwrap_or_default()
}
