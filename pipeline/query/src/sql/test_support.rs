//! Small data directories for tests.

use super::*;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};
use drivetrain_schemas::arrow;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig, SignalType};
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::{Kind, Table, TableId};
use drivetrain_sinks::progress::FileEntry;
use std::collections::BTreeMap;
use std::fs::File;

/// 2026-05-01T08:00:00Z, µs.
pub(crate) const T0: i64 = 1_777_622_400_000_000;
pub(crate) const DAY: i64 = 86_400_000_000;

/// A data directory that is written file by file.
pub(crate) struct Directory {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) catalogue: Catalogue,
    files: Vec<FileEntry>,
}

impl Directory {
    pub(crate) fn new() -> Directory {
        let signal = |kind| SignalConfig { kind, ..SignalConfig::default() };
        let signals: BTreeMap<String, SignalConfig> = [
            ("speed_kmh".to_string(), signal(SignalType::Number)),
            ("door_open".to_string(), signal(SignalType::Bool)),
            ("gear".to_string(), signal(SignalType::Text)),
        ]
        .into();
        let catalogue = Catalogue::new(&signals).unwrap();
        Directory { dir: tempfile::tempdir().unwrap(), catalogue, files: Vec::new() }
    }

    /// A row from some of its columns by name; the others are null, or the kind's zero where null may not be.
    pub(crate) fn row(&self, id: TableId, cells: &[(&str, Cell<'_>)]) -> Row {
        let zero = |kind| match kind {
            Kind::Text => Cell::from("-"),
            Kind::Int => Cell::Int(0),
            Kind::Time => Cell::Time(T0),
            Kind::Float => Cell::float(0.0),
            Kind::Bool => Cell::Bool(false),
            Kind::Binary => Cell::Binary(&[]),
            Kind::Json => Cell::Json("[]"),
        };
        let table = Table::new(id, &self.catalogue);
        assert!(cells.iter().all(|(n, _)| table.column(n).is_some()), "{cells:?}");
        let cell = |c: &drivetrain_schemas::table::Column| {
            let given = cells.iter().find(|(n, _)| *n == c.name).map(|(_, v)| *v);
            given.unwrap_or_else(|| if c.nullable { Cell::Null } else { zero(c.kind) })
        };
        Row::new(&table.columns.iter().map(cell).collect::<Vec<_>>())
    }

    /// Writes a file of (row, epoch, diff).
    pub(crate) fn write(&mut self, id: TableId, date: Option<&str>, rows: &[(Row, i64, i64)]) {
        let batch = arrow::batch(&Table::new(id, &self.catalogue), rows).unwrap();
        let path = self.write_batch(id, date, &batch);
        let size = std::fs::metadata(self.dir.path().join(&path)).unwrap().len();
        self.files.push(FileEntry {
            table: id,
            path,
            rows: rows.len() as u64,
            bytes: size,
            retractions: rows.iter().filter(|r| r.2 < 0).count() as u64,
            min_epoch: rows.iter().map(|r| r.1).min().unwrap(),
            max_epoch: rows.iter().map(|r| r.1).max().unwrap(),
            checksum: String::new(),
        });
    }

    pub(crate) fn write_batch(&self, id: TableId, date: Option<&str>, batch: &RecordBatch) -> String {
        let partition = date.map_or(String::new(), |d| format!("date={d}/"));
        let path = format!("history/{}_log/{partition}{:04}.parquet", id.name(), self.files.len());
        let file = self.dir.path().join(&path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::Chunk).build();
        let mut writer = ArrowWriter::try_new(File::create(file).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        path
    }

    /// Names the files written so far in a manifest that is whole up to an epoch.
    pub(crate) fn publish(&self, history_epoch: i64) {
        let line = serde_json::json!({
            "generation": 1, "committed_epoch": history_epoch + 1, "history_epoch": history_epoch, "files": self.files,
        });
        let line = drivetrain_sinks::progress::lines::line(&line.to_string());
        std::fs::create_dir_all(self.dir.path().join("manifest")).unwrap();
        std::fs::write(self.dir.path().join("manifest/g1.jsonl"), line).unwrap();
    }

    pub(crate) fn open(&self, as_of: Option<i64>) -> Database {
        let data = self.dir.path().to_path_buf();
        Database::open(Source { data, brokers: None, topic_prefix: String::new(), as_of }).unwrap()
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        run_in(&self.open(None), sql, Format::Csv).unwrap()
    }
}

pub(crate) fn run_in(database: &Database, sql: &str, format: Format) -> Result<String, QueryError> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut out = Vec::new();
        for statement in Database::parse(sql)? {
            write(format, database.run(statement).await?, &mut out).await?;
        }
        Ok(String::from_utf8(out).unwrap())
    })
}

pub(crate) fn trip(dir: &Directory, id: &str, day: i64, score: f64) -> Row {
    dir.row(
        TableId::Trips,
        &[
            ("trip_id", Cell::from(id)),
            ("vehicle_id", Cell::from("v1")),
            ("driver_id", Cell::from("d1")),
            ("status", Cell::from("COMPLETED")),
            ("started_at", Cell::Time(T0 + day * DAY)),
            ("safety_score", Cell::float(score)),
        ],
    )
}

/// Two days: on the first a score changes twice (in three files' worth of epochs), on the second nothing is retracted.
pub(crate) fn trips() -> Directory {
    let mut dir = Directory::new();
    let t = |d: &Directory, score| trip(d, "t1", 0, score);
    let rows =
        vec![(t(&dir, 100.0), 1, 1), (trip(&dir, "t2", 0, 80.0), 1, 1), (t(&dir, 100.0), 2, -1), (t(&dir, 95.0), 2, 1)];
    dir.write(TableId::Trips, Some("2026-05-01"), &rows);
    let rows = vec![(t(&dir, 95.0), 3, -1), (t(&dir, 90.0), 3, 1)];
    dir.write(TableId::Trips, Some("2026-05-01"), &rows);
    let rows = vec![(trip(&dir, "t3", 1, 70.0), 3, 1)];
    dir.write(TableId::Trips, Some("2026-05-02"), &rows);
    dir
}

/// The trips of [`trips`] and a driver's score that has changed.
pub(crate) fn scored_directory() -> tempfile::TempDir {
    let mut dir = trips();
    let score = |d: &Directory, score| {
        let cells =
            [("driver_id", Cell::from("d1")), ("policy_id", Cell::from("fleetflow")), ("score", Cell::float(score))];
        d.row(TableId::DriverScores, &cells)
    };
    let rows = vec![(score(&dir, 100.0), 1, 1), (score(&dir, 100.0), 2, -1), (score(&dir, 87.5), 2, 1)];
    dir.write(TableId::DriverScores, None, &rows);
    dir.publish(3);
    dir.dir
}

/// The result of a query as CSV.
pub(crate) fn values(data: &Path, sql: &str) -> String {
    let source = Source { data: data.into(), brokers: None, topic_prefix: String::new(), as_of: None };
    run_in(&Database::open(source).unwrap(), sql, Format::Csv).unwrap()
}
