use super::test_support::*;
use super::*;
use drivetrain_schemas::catalogue::{Catalogue, SignalConfig};
use drivetrain_schemas::row::Cell;
use drivetrain_schemas::table::TableId;
use std::collections::BTreeMap;

const SCORES: &str = "select trip_id, safety_score from trips order by trip_id";

#[test]
fn retractions_fold_away() {
    let dir = trips();
    assert_eq!(dir.query(SCORES), "trip_id,safety_score\nt1,90.0\nt2,80.0\nt3,70.0\n");
    assert_eq!(dir.query("select count(*) as n from trips_log"), "n\n7\n");
    let log = "select epoch, diff, safety_score, date from trips_log where trip_id = 't1' order by epoch, diff";
    assert_eq!(
        dir.query(log),
        "epoch,diff,safety_score,date\n1,1,100.0,2026-05-01\n2,-1,100.0,2026-05-01\n2,1,95.0,2026-05-01\n\
         3,-1,95.0,2026-05-01\n3,1,90.0,2026-05-01\n"
    );
    let columns = dir.query("select * from trips limit 0");
    assert!(columns.starts_with("trip_id,vehicle_id,") && columns.ends_with(",excluded\n"), "{columns}");
}

#[test]
fn the_past_is_kept() {
    let dir = trips();
    let at = |epoch| run_in(&dir.open(Some(epoch)), SCORES, Format::Csv).unwrap();
    assert_eq!(at(0), "trip_id,safety_score\n");
    assert_eq!(at(1), "trip_id,safety_score\nt1,100.0\nt2,80.0\n");
    assert_eq!(at(2), "trip_id,safety_score\nt1,95.0\nt2,80.0\n");
    assert_eq!(at(9), "trip_id,safety_score\nt1,90.0\nt2,80.0\nt3,70.0\n");
    dir.publish(2);
    assert_eq!(at(9), "trip_id,safety_score\nt1,95.0\nt2,80.0\n", "epoch 3 is not whole yet");
    assert_eq!(dir.query(SCORES), "trip_id,safety_score\nt1,95.0\nt2,80.0\n");
    assert_eq!(dir.open(Some(9)).falls_short(), Some(2));
}

#[test]
fn only_published_files_count() {
    let mut dir = trips();
    dir.publish(3);
    let rows = vec![(trip(&dir, "t9", 0, 1.0), 3, 1)];
    dir.write(TableId::Trips, Some("2026-05-01"), &rows);
    assert_eq!(dir.query(SCORES), "trip_id,safety_score\nt1,90.0\nt2,80.0\nt3,70.0\n");
}

#[test]
fn filters_reach_the_files() {
    let dir = trips();
    let explain = |sql: &str| dir.query(&format!("explain {sql}"));
    let plan = explain("select * from trips where started_at >= '2026-05-02T00:00:00Z'");
    assert!(plan.contains("0002.parquet") && !plan.contains("0000.parquet"), "{plan}");
    assert_eq!(dir.query("select trip_id from trips where started_at >= '2026-05-02T00:00:00Z'"), "trip_id\nt3\n");
    let plan = explain("select * from trips_log where date = '2026-05-02'");
    assert!(!plan.contains("0001.parquet") && plan.contains("0002.parquet"), "{plan}");
    // Below the aggregate, inside the Parquet reader.
    let plan = explain("select safety_score from trips where trip_id = 't1'");
    assert!(plan.contains("AggregateExec"), "{plan}");
    let below = plan.rfind("AggregateExec").map(|at| &plan[at..]).unwrap();
    assert!(below.contains("predicate=trip_id@"), "{plan}");
    assert_eq!(dir.query("select safety_score from trips where trip_id = 't1'"), "safety_score\n90.0\n");
}

#[test]
fn days_without_retractions_are_not_summed() {
    let mut dir = Directory::new();
    let rows = vec![(trip(&dir, "t3", 1, 70.0), 3, 1)];
    dir.write(TableId::Trips, Some("2026-05-02"), &rows);
    let plan = dir.query("explain select * from trips");
    assert!(!plan.contains("Aggregate"), "{plan}");
}

#[test]
fn tables_without_files_are_empty() {
    let dir = Directory::new();
    for table in dir.open(None).names() {
        let rows = dir.query(&format!("select count(*) as n from {table}"));
        assert_eq!(rows, "n\n0\n", "{table}");
    }
    let signals = r#"{"speed_kmh":{"unit":"km/h"}}"#;
    std::fs::write(dir.dir.path().join("catalogue.json"), signals).unwrap();
    assert_eq!(dir.query("select speed_kmh from readings"), "speed_kmh\n");
}

fn readings() -> Directory {
    let mut dir = Directory::new();
    let reading = |d: &Directory, at: i64, speed: Option<f64>, open: Option<bool>| {
        d.row(
            TableId::Readings,
            &[
                ("vehicle_id", Cell::from("v1")),
                ("at", Cell::Time(T0 + at)),
                ("fleet_id", Cell::from("f1")),
                ("speed_kmh", speed.map_or(Cell::Null, Cell::float)),
                ("door_open", open.map_or(Cell::Null, Cell::Bool)),
                ("gear", Cell::from("D")),
                ("tags", Cell::Json(r#"{"a":[1]}"#)),
            ],
        )
    };
    let rows =
        vec![(reading(&dir, 0, Some(50.1), Some(true)), 1, 1), (reading(&dir, 1_500_000, Some(60.0), None), 1, 1)];
    dir.write(TableId::Readings, Some("2026-05-01"), &rows);
    dir
}

#[test]
fn telemetry_is_the_long_form() {
    let dir = readings();
    let sql = "select * from vehicle_telemetry order by sensor_type, at";
    assert_eq!(
        dir.query(sql),
        "vehicle_id,sensor_type,fleet_id,at,value,quality,metadata\n\
         v1,door_open,f1,2026-05-01T08:00:00Z,1.0,,\"{\"\"a\"\":[1]}\"\n\
         v1,speed_kmh,f1,2026-05-01T08:00:00Z,50.1,,\"{\"\"a\"\":[1]}\"\n\
         v1,speed_kmh,f1,2026-05-01T08:00:01.500Z,60.0,,\"{\"\"a\"\":[1]}\"\n"
    );
    let sql = "select sum(value) as s from vehicle_telemetry where sensor_type = 'speed_kmh'";
    assert_eq!(dir.query(sql), "s\n110.1\n");
}

#[test]
fn columns_may_come_and_go() {
    let mut dir = readings();
    let signals: BTreeMap<String, SignalConfig> = [("rpm".to_string(), SignalConfig::default())].into();
    dir.catalogue = Catalogue::new(&signals).unwrap();
    let row = dir.row(TableId::Readings, &[("vehicle_id", Cell::from("v2")), ("rpm", Cell::float(900.0))]);
    dir.write(TableId::Readings, Some("2026-05-01"), &[(row, 5, 1)]);
    let sql = "select vehicle_id, speed_kmh, rpm from readings order by vehicle_id, speed_kmh";
    let expected = "vehicle_id,speed_kmh,rpm\nv1,50.1,\nv1,60.0,\nv2,,900.0\n";
    assert_eq!(dir.query(sql), expected);
    dir.publish(5);
    assert_eq!(dir.query(sql), expected);
}

#[test]
fn formats() {
    let dir = readings();
    let database = dir.open(None);
    let sql = "select at, door_open, speed_kmh, [1, 2] as list, named_struct('a', 1.5) as s, null as nothing, x'00ff' as b \
               from readings order by at";
    assert_eq!(
        run_in(&database, sql, Format::Csv).unwrap(),
        "at,door_open,speed_kmh,list,s,nothing,b\n\
         2026-05-01T08:00:00Z,true,50.1,\"[1,2]\",\"{\"\"a\"\":1.5}\",,00ff\n\
         2026-05-01T08:00:01.500Z,,60.0,\"[1,2]\",\"{\"\"a\"\":1.5}\",,00ff\n"
    );
    let json = run_in(&database, sql, Format::Json).unwrap();
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["at"], "2026-05-01T08:00:00Z");
    assert_eq!(lines[0]["list"], serde_json::json!([1, 2]));
    assert_eq!(lines[1]["door_open"], serde_json::Value::Null);
    assert!(lines[1].as_object().unwrap().contains_key("door_open"));
    assert!(json.contains("\"speed_kmh\":60.0"), "{json}");
    let table = run_in(&database, "select speed_kmh from readings", Format::Table).unwrap();
    assert!(table.contains("| 50.1      |") && table.ends_with("2 rows\n"), "{table}");
}

#[test]
fn the_table_format_is_limited() {
    let dir = readings();
    let sql = "select value from range(0, 20000)";
    let text = run_in(&dir.open(None), sql, Format::Table).unwrap();
    assert!(text.ends_with("the first 10000 rows; use --format csv, json or parquet for all of them\n"));
    assert_eq!(run_in(&dir.open(None), sql, Format::Csv).unwrap().lines().count(), 20_001);
}

#[test]
fn parquet_reads_back() {
    let dir = readings();
    let path = dir.dir.path().join("history/trips_log/x.parquet");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = dir.open(None);
    let statement =
        Database::parse("select 't1' as trip_id, cast(1 as bigint) as epoch, cast(1 as bigint) as diff").unwrap();
    let rows =
        runtime.block_on(async { write_file(Format::Parquet, database.run(statement[0].clone()).await?, &path).await });
    assert_eq!(rows.unwrap(), 1);
    assert_eq!(dir.query("select * from trips"), "trip_id\nt1\n");
}

#[test]
fn errors_tell_what_to_do() {
    let dir = trips();
    let error = |sql: &str| run_in(&dir.open(None), sql, Format::Csv).unwrap_err();
    let unknown = error("select * from trip");
    assert!(unknown.to_string().starts_with("there is no table trip; did you mean trips?\ntables: readings, "));
    assert_eq!(unknown.exit_code(), 1);
    let column = error("select safty_score from trips").to_string();
    assert!(column.contains("safety_score") && column.lines().count() <= 2, "{column}");
    let syntax = error("selct 1").to_string();
    assert!(syntax.contains("selct") && !syntax.contains("backtrace"), "{syntax}");
    let write = error("insert into trips select * from trips").to_string();
    assert!(write.contains("DML not supported"), "{write}");
    let gone = Database::open(Source {
        data: dir.dir.path().join("nowhere"),
        brokers: None,
        topic_prefix: String::new(),
        as_of: None,
    });
    assert_eq!(gone.err().map(|e| e.exit_code()), Some(2));
}

#[test]
fn statements_of_a_session_see_each_other() {
    let dir = trips();
    let sql = "create view good as select * from trips where safety_score >= 80; select count(*) as n from good";
    assert!(run_in(&dir.open(None), sql, Format::Csv).unwrap().ends_with("n\n2\n"));
    let with = "with t as (select * from trips) select count(*) as n from t";
    assert_eq!(dir.query(with), "n\n3\n");
    assert!(dir.query("show tables").contains("vehicle_telemetry"));
    let tables = dir.query("select table_name from information_schema.tables where table_name = 'trips'");
    assert_eq!(tables, "table_name\ntrips\n");
}

#[test]
fn a_time_is_turned_into_its_epoch() {
    let dir = Directory::new();
    let path = dir.dir.path();
    assert_eq!(epochs::resolve(path, "17").unwrap(), 17);
    std::fs::create_dir_all(path.join("bindings")).unwrap();
    let lines: String = (1..=3).map(|e| format!("{{\"epoch\":{e},\"wall\":{}}}\n", T0 + e * 20_000)).collect();
    std::fs::write(path.join("bindings/g1.jsonl"), lines).unwrap();
    assert_eq!(epochs::resolve(path, "2026-05-01T08:00:00.04Z").unwrap(), 2);
    assert_eq!(epochs::resolve(path, "2026-05-01T10:00:00.05+02:00").unwrap(), 2);
    assert_eq!(epochs::resolve(path, "2027-01-01T00:00:00Z").unwrap(), 3);
    let early = epochs::resolve(path, "2026-05-01T08:00:00Z").unwrap_err();
    assert_eq!(
        early.to_string(),
        "--as-of 2026-05-01T08:00:00Z: no epoch had ended by then; the first one that is recorded ended at 2026-05-01T08:00:00.02Z"
    );
    assert_eq!(epochs::resolve(path, "yesterday").unwrap_err().exit_code(), 2);
}

#[test]
fn live_documents_join_the_history() {
    let dir = trips();
    let path = dir.dir.path();
    let ticket = serde_json::json!({"epoch": 9, "wall": 0, "bindings": []});
    let record = serde_json::json!({"commit": {
        "generation": 1, "job": "j", "config_hash": "", "version": "", "epochs": [ticket], "published": [],
        "committed_epoch": 9, "history_epoch": 9, "topics": {},
    }});
    std::fs::create_dir_all(path.join("progress")).unwrap();
    std::fs::write(path.join("progress/log.jsonl"), drivetrain_sinks::progress::lines::line(&record.to_string()))
        .unwrap();
    std::fs::create_dir_all(path.join("live/driver_scores")).unwrap();
    let value = serde_json::json!({
        "driver_id": "d1", "score": 80, "trips": 3, "schema": 1, "epoch": 9, "updated_at": "2026-05-01T08:00:00Z",
        "why": {"policy": "fleetflow"}, "new_field": 1.5,
    });
    let line = serde_json::json!({"epoch": 9, "key": "d1", "value": value});
    std::fs::write(path.join("live/driver_scores/0000000001.jsonl"), format!("{line}\n")).unwrap();
    let sql = "select driver_id, l.score, l.why, l.new_field, l.updated_at, l.band, count(*) as n \
               from trips join live_driver_scores l using (driver_id) group by all";
    let sql = sql.replace("group by all", "group by driver_id, l.score, l.why, l.new_field, l.updated_at, l.band");
    assert_eq!(
        dir.query(&sql),
        "driver_id,score,why,new_field,updated_at,band,n\n\
         d1,80.0,\"{\"\"policy\"\":\"\"fleetflow\"\"}\",1.5,2026-05-01T08:00:00Z,,3\n"
    );
}

#[test]
fn the_queries_of_the_documentation_run() {
    let dir = scored_directory();
    let signals: BTreeMap<&str, SignalConfig> =
        ["speed_kmh", "engine_rpm"].map(|name| (name, SignalConfig::default())).into();
    std::fs::write(dir.path().join("catalogue.json"), serde_json::to_string(&signals).unwrap()).unwrap();
    let document = include_str!("../../../../docs/query.md");
    let queries: Vec<&str> =
        document.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect();
    assert!(queries.len() >= 10, "{}", queries.len());
    for query in queries {
        let result = values(dir.path(), query);
        assert!(result.contains(','), "{query}\n{result}");
    }
}
