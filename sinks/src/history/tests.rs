use super::*;
use crate::units::{ByteSize, Span};
use arrow::array::AsArray;
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use drivetrain_schemas::catalogue::SignalConfig;
use drivetrain_schemas::reading::{Head, Meta, NULL, Origin};
use drivetrain_schemas::row::Cell;
use drivetrain_schemas::table::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::serialized_reader::ReadOptionsBuilder;
use std::fs::File;
use std::time::Duration;

const T0: i64 = 1_780_000_000_000_000;

fn catalogue() -> Arc<Catalogue> {
    Arc::new(Catalogue::new(&[("speed".to_string(), SignalConfig::default())].into()).unwrap())
}

/// Readings (vehicle, at) with their number as speed.
fn batch(readings: impl IntoIterator<Item = (u32, i64)>) -> Arc<ReadingBatch> {
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    let mut batch = ReadingBatch::new(origin, 1);
    for (i, (vehicle, at)) in readings.into_iter().enumerate() {
        let (texts, vehicle) = (Vec::new(), format!("v{vehicle:05}").into());
        let meta = Meta { vehicle, texts, driver: None, trip: None, fleet: None, quality: None, tags: None };
        let head = Head { at, position: i as i64, record_time: NULL, meta: 0, element: 0 };
        batch.push(head, &Arc::new(meta), &[i as i64 * 1_000_000]);
    }
    Arc::new(batch)
}

/// A row of `quality` with the given values in `vehicle_id`, `signal` and `window_start`.
fn quality(vehicle: &str, at: Cell<'_>) -> Row {
    let table = Table::new(TableId::Quality, &Catalogue::default());
    let mut row = vec![Cell::Null; table.columns.len()];
    for name in ["received", "invalid", "duplicates", "late"] {
        row[table.column(name).unwrap()] = Cell::Int(1);
    }
    row[0] = Cell::from(vehicle);
    row[1] = Cell::from("speed");
    row[2] = at;
    Row::new(&row)
}

fn epoch(epoch: i64, readings: Vec<(Arc<ReadingBatch>, i64)>, rows: Vec<(Row, i64)>) -> EpochRows {
    EpochRows { epoch, rows: vec![(TableId::Quality, rows)], readings }
}

fn read(data: &Path, file: &FileEntry) -> RecordBatch {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(data.join(&file.path)).unwrap()).unwrap();
    let schema = builder.schema().clone();
    let batches: Vec<RecordBatch> = builder.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}

fn start(data: &Path, config: HistoryConfig) -> HistoryWriter {
    HistoryWriter::start(data, 3, catalogue(), config, Published::default()).unwrap()
}

/// Waits for closed files.
fn wait(writer: &mut HistoryWriter) -> Closed {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while std::time::Instant::now() < deadline {
        if let Some(closed) = writer.closed().unwrap() {
            return closed;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("nothing was closed");
}

#[test]
fn what_goes_in_comes_out_sorted() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = start(dir.path(), HistoryConfig::default());
    writer.add(epoch(1, vec![(batch((0..500).map(|i| (i * 7 % 500, T0 + i64::from(i)))), 1)], vec![])).unwrap();
    let second = (0..500).map(|i| (i * 3 % 500, T0 - i64::from(i)));
    writer.add(epoch(2, vec![(batch(second), 1), (batch([(7, T0 + 1)]), -1)], vec![])).unwrap();
    let closed = writer.drain().unwrap();
    assert_eq!((closed.files.len(), closed.history_epoch), (1, 2));
    let file = &closed.files[0];
    assert_eq!(file.path, "history/readings_log/date=2026-05-28/g3-1-2-0.parquet");
    assert_eq!((file.rows, file.retractions, file.min_epoch, file.max_epoch), (1001, 1, 1, 2));
    assert!(!dir.path().join("history").exists(), "nothing is published before it is committed");
    publish(dir.path(), 3, &closed.files).unwrap();
    publish(dir.path(), 3, &closed.files).unwrap();
    let bytes = std::fs::read(dir.path().join(&file.path)).unwrap();
    assert_eq!(file.bytes, bytes.len() as u64);
    assert_eq!(file.checksum, format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes)));

    let rows = read(dir.path(), file);
    assert_eq!(rows.num_rows(), 1001);
    let vehicle = rows.column_by_name("vehicle_id").unwrap().as_string::<i32>();
    let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
    let epochs = rows.column_by_name("epoch").unwrap().as_primitive::<Int64Type>();
    let keys: Vec<_> = (0..rows.num_rows()).map(|i| (vehicle.value(i), at.value(i), epochs.value(i))).collect();
    assert!(keys.is_sorted());
}

#[test]
fn statistics_and_bloom_filters_are_there_and_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = start(dir.path(), HistoryConfig::default());
    writer.add(epoch(1, vec![(batch((0..100).map(|i| (i, T0))), 1)], vec![])).unwrap();
    let closed = writer.drain().unwrap();
    publish(dir.path(), 3, &closed.files).unwrap();
    assert!(closed.files[0].bytes < 10_000, "{} bytes for 100 rows", closed.files[0].bytes);
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    let file = File::open(dir.path().join(&closed.files[0].path)).unwrap();
    let reader = SerializedFileReader::new_with_options(file, options).unwrap();
    let group = reader.get_row_group(0).unwrap();
    let filter = group.get_column_bloom_filter(0).unwrap();
    assert!(filter.check(&"v00042") && !filter.check(&"v99942") && !filter.check(&"nobody"));
    let metadata = group.metadata();
    assert_eq!(metadata.column(0).statistics().unwrap().min_bytes_opt(), Some(&b"v00000"[..]));
    assert_eq!(metadata.column(1).statistics().unwrap().null_count_opt(), Some(0));
    let sorting: Vec<i32> = metadata.sorting_columns().unwrap().iter().map(|c| c.column_idx).collect();
    assert_eq!(sorting[..2], [0, 1]);
    assert!(reader.metadata().file_metadata().created_by().unwrap().starts_with("drivetrain"));
}

#[test]
fn days_have_their_own_files_and_few_are_open() {
    let dir = tempfile::tempdir().unwrap();
    // Each epoch is written at once, so that a file is open for each day that came.
    let config =
        HistoryConfig { buffer: ByteSize(1), max_open_files: 4, roll_after: Span(DAY), ..HistoryConfig::default() };
    let mut writer = start(dir.path(), config);
    let days = 25;
    for e in 0..2 {
        writer.add(epoch(e, vec![(batch((0..days).map(|d| (d, T0 + i64::from(d) * DAY))), 1)], vec![])).unwrap();
    }
    writer.add(epoch(2, vec![], vec![(quality("v", Cell::Time(T0)), 1)])).unwrap();
    let files = writer.drain().unwrap().files;
    assert_eq!(std::fs::read_dir(dir.path().join("staging/g3/readings_log")).unwrap().count(), days as usize);
    let readings: Vec<&FileEntry> = files.iter().filter(|f| f.table == TableId::Readings).collect();
    assert!(readings.len() > days as usize, "files had to be closed early: {}", readings.len());
    assert_eq!(readings.iter().map(|f| f.rows).sum::<u64>(), 2 * u64::from(days));
    publish(dir.path(), 3, &files).unwrap();
    for file in &readings {
        let rows = read(dir.path(), file);
        let at = rows.column_by_name("at").unwrap().as_primitive::<TimestampMicrosecondType>();
        for i in 0..at.len() {
            assert!(file.path.contains(&format!("date={}/", format_date(at.value(i)))), "{}", file.path);
        }
    }
    let paths: std::collections::BTreeSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths.len(), files.len(), "no name twice");
}

#[test]
fn a_batch_over_midnight_and_times_that_are_null() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = start(dir.path(), HistoryConfig::default());
    let midnight = T0.div_euclid(DAY) * DAY;
    writer.add(epoch(1, vec![(batch([(1, midnight - 1), (1, midnight)]), 1)], vec![])).unwrap();
    let late = |time| {
        Row::new(&[
            Cell::from("t"),
            Cell::Int(0),
            Cell::Int(1),
            time,
            Cell::from("late"),
            Cell::from("x"),
            Cell::Binary(&[0, 255]),
        ])
    };
    let rows = vec![(late(Cell::Null), 1), (late(Cell::Time(i64::MAX)), 1), (late(Cell::Time(midnight)), 1)];
    writer.add(EpochRows { epoch: 2, rows: vec![(TableId::Late, rows)], readings: vec![] }).unwrap();
    let problem = vec![(Row::new(&[Cell::from("fleets/f"), Cell::from("cycle")]), 1)];
    writer.add(EpochRows { epoch: 3, rows: vec![(TableId::ReferenceProblems, problem)], readings: vec![] }).unwrap();
    let files = writer.drain().unwrap().files;
    let dirs: Vec<(String, u64)> =
        files.iter().map(|f| (f.path.rsplit_once('/').unwrap().0.to_string(), f.rows)).collect();
    let expected = [
        ("history/readings_log/date=2026-05-27", 1),
        ("history/readings_log/date=2026-05-28", 1),
        ("history/reference_problems_log", 1),
        ("history/late_log/date=1970-01-01", 2),
        ("history/late_log/date=2026-05-28", 1),
    ];
    assert_eq!(dirs, expected.map(|(d, n)| (d.to_string(), n)));
}

#[test]
fn rolls_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let config = HistoryConfig { roll_bytes: ByteSize(20_000), row_group_rows: 1000, ..HistoryConfig::default() };
    let mut writer = start(dir.path(), config);
    for e in 0..40 {
        writer.add(epoch(e, vec![(batch((0..1000).map(|i| (i, T0 + e * 1000))), 1)], vec![])).unwrap();
    }
    let closed = writer.drain().unwrap();
    assert!(closed.files.len() > 3, "{} files", closed.files.len());
    assert!(closed.files.iter().all(|f| f.bytes < 60_000));
    let epochs: Vec<(i64, i64)> = closed.files.iter().map(|f| (f.min_epoch, f.max_epoch)).collect();
    assert!(epochs.windows(2).all(|w| w[0].1 < w[1].0), "an epoch's rows stay together: {epochs:?}");
}

#[test]
fn rolls_by_age_and_when_idle() {
    for (roll, idle) in [(50_000, DAY), (DAY, 50_000)] {
        let dir = tempfile::tempdir().unwrap();
        let config = HistoryConfig { roll_after: Span(roll), idle_after: Span(idle), ..HistoryConfig::default() };
        let mut writer = start(dir.path(), config);
        writer.add(epoch(4, vec![], vec![(quality("v", Cell::Time(T0)), 1)])).unwrap();
        let closed = wait(&mut writer);
        assert_eq!((closed.files[0].rows, closed.history_epoch), (1, 4));
        assert!(writer.drain().unwrap().files.is_empty());
    }
}

#[test]
fn rolls_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = start(dir.path(), HistoryConfig::default());
    writer.add(epoch(4, vec![], vec![(quality("v", Cell::Time(T0)), 1)])).unwrap();
    writer.roll().unwrap();
    let closed = wait(&mut writer);
    assert_eq!((closed.files[0].rows, closed.history_epoch), (1, 4));
    assert!(writer.drain().unwrap().files.is_empty());
}

#[test]
fn memory_is_bounded_by_writing_the_largest() {
    let dir = tempfile::tempdir().unwrap();
    let config = HistoryConfig { buffer: ByteSize(100_000), ..HistoryConfig::default() };
    let mut writer = start(dir.path(), config);
    for e in 0..20 {
        let rows = vec![(quality("v", Cell::Time(T0)), 1)];
        writer.add(epoch(e, vec![(batch((0..1000).map(|i| (i, T0 + e))), 1)], rows)).unwrap();
    }
    let files = writer.drain().unwrap().files;
    publish(dir.path(), 3, &files).unwrap();
    let groups = |f: &FileEntry| {
        SerializedFileReader::new(File::open(dir.path().join(&f.path)).unwrap()).unwrap().num_row_groups()
    };
    let counts: Vec<(TableId, usize)> = files.iter().map(|f| (f.table, groups(f))).collect();
    let readings = counts.iter().find(|c| c.0 == TableId::Readings).unwrap().1;
    assert!(readings >= 7, "20,000 readings of 48 bytes within 100,000 bytes: {readings} row groups");
    assert!(counts.contains(&(TableId::Quality, 1)), "{counts:?}");
}

#[test]
fn readings_can_be_left_out_and_wrong_rows_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = HistoryConfig { readings: KeepReadings::None, ..HistoryConfig::default() };
    let mut writer = start(dir.path(), config.clone());
    writer.add(epoch(1, vec![(batch([(1, T0)]), 1)], vec![])).unwrap();
    assert!(writer.drain().unwrap().files.is_empty());
    let mut writer = start(dir.path(), config);
    writer.add(epoch(1, vec![], vec![(Row::new(&[Cell::Null]), 1)])).unwrap();
    assert!(matches!(writer.drain(), Err(HistoryError::Arrow(_))));
    assert!(matches!(writer.add(EpochRows::default()), Err(HistoryError::Gone)));
}

#[test]
fn the_configuration_says_what_is_wrong() {
    let parse = |t: &str| serde_json::from_str::<HistoryConfig>(t).map_err(|e| e.to_string());
    assert_eq!(parse("{}").unwrap(), HistoryConfig::default());
    assert_eq!(parse(r#"{"roll_bytes":"1MiB","readings":"none"}"#).unwrap().roll_bytes, ByteSize(1 << 20));
    assert!(parse(r#"{"rol_bytes":"1MB"}"#).unwrap_err().contains("unknown field `rol_bytes`"));
    assert!(parse(r#"{"buffer":"much"}"#).unwrap_err().contains("\"much\" is not a size"));
    let wrong = HistoryConfig { compression_level: 0, ..HistoryConfig::default() };
    assert_eq!(wrong.validate().unwrap_err(), "history.compression_level: 0 is not 1 to 22");
    let json = serde_json::to_string(&HistoryConfig::default()).unwrap();
    assert_eq!(parse(&json).unwrap(), HistoryConfig::default());
}

#[test]
fn staging_of_earlier_generations_only_is_discarded() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["g1", "g2/trips_log", "g3", "g4", "gx", "mine"] {
        std::fs::create_dir_all(dir.path().join("staging").join(name)).unwrap();
    }
    std::fs::write(dir.path().join("staging/g2/trips_log/g2-0-0-0.parquet"), "x").unwrap();
    discard_staging(dir.path(), 3).unwrap();
    assert_eq!(crate::files::list(&dir.path().join("staging")).unwrap(), ["g3", "g4", "gx", "mine"]);
}

#[test]
fn publishing_finds_what_a_successor_has_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = start(dir.path(), HistoryConfig::default());
    writer.add(epoch(1, vec![(batch([(1, T0), (2, T0 + DAY)]), 1)], vec![])).unwrap();
    let files = writer.drain().unwrap().files;
    publish(dir.path(), 3, &files[..1]).unwrap();
    publish(dir.path(), 3, &files).unwrap();
    discard_staging(dir.path(), 4).unwrap();
    publish(dir.path(), 3, &files).unwrap();
    std::fs::remove_file(dir.path().join(&files[1].path)).unwrap();
    let error = publish(dir.path(), 3, &files).unwrap_err().to_string();
    assert!(error.contains(&files[1].path), "what is nowhere is an error: {error}");
}
