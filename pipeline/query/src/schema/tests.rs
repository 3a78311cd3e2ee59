use super::*;
use crate::sql::test_support::{scored_directory, values};
use drivetrain_schemas::control::{Driver, Fleet, Vehicle};
use drivetrain_schemas::policy::Policy;

fn args(name: Option<&str>, format: SchemaFormat) -> SchemaArgs {
    SchemaArgs { name: name.map(str::to_string), format, config: None, data: None }
}

#[test]
fn markdown_has_every_table_topic_and_document() {
    let text = render(&args(None, SchemaFormat::Markdown)).unwrap();
    for subject in Subject::all() {
        assert!(text.contains(subject.name()));
    }
    let trips = render(&args(Some("trips"), SchemaFormat::Markdown)).unwrap();
    assert!(trips.contains(
        "| safety_score | float64 | yes | The policy's score, 0 to its base; while open, the score so far. |"
    ));
    assert!(trips.contains("Key: trip_id. Partitioned by the UTC day of `started_at`"));
    // A name that is a table and a topic shows both.
    let both = render(&args(Some("driver_scores"), SchemaFormat::Markdown)).unwrap();
    assert!(both.contains("## driver_scores") && both.contains("## Topic driver_scores"));
}

#[test]
fn errors_name_what_is_known() {
    let error = render(&args(Some("trip"), SchemaFormat::Markdown)).unwrap_err().to_string();
    assert!(error.starts_with("there is nothing called trip; did you mean trips?\nknown: readings, "), "{error}");
    let error = render(&args(Some("vehicles"), SchemaFormat::Duckdb)).unwrap_err().to_string();
    assert_eq!(error, "vehicles is a kind of control document, which --format duckdb does not show");
}

#[test]
fn signals_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("f.toml");
    std::fs::write(&config, "[job]\nname = \"x\"\n[signals.speed_kmh]\nunit = \"km/h\"\nvss = \"Vehicle.Speed\"\n")
        .unwrap();
    let args = SchemaArgs { config: Some(config.clone()), ..args(Some("readings"), SchemaFormat::Markdown) };
    let text = render(&args).unwrap();
    assert!(text.contains("| speed_kmh | float64 | yes | Signal, in km/h (Vehicle.Speed). |"), "{text}");
    std::fs::write(&config, "[signals.speed_kmh]\nunit = \"furlong\"\n").unwrap();
    assert!(render(&args).unwrap_err().to_string().contains("furlong"));
}

fn json_schema(name: &str) -> serde_json::Value {
    serde_json::from_str(&render(&args(Some(name), SchemaFormat::JsonSchema)).unwrap()).unwrap()
}

#[test]
fn json_schemas_name_every_field_of_the_control_documents() {
    let names = |value: serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let known = |name: &str| names(json_schema(name)["properties"].clone());
    let vehicle: Vehicle = serde_json::from_str(r#"{"vehicle_id":"v"}"#).unwrap();
    let driver: Driver = serde_json::from_str(r#"{"driver_id":"d"}"#).unwrap();
    let fleet: Fleet = serde_json::from_str(r#"{"fleet_id":"f"}"#).unwrap();
    assert_eq!(known("vehicles"), names(serde_json::to_value(vehicle).unwrap()));
    assert_eq!(known("drivers"), names(serde_json::to_value(driver).unwrap()));
    assert_eq!(known("fleets"), names(serde_json::to_value(fleet).unwrap()));
    assert_eq!(known("policies"), names(serde_json::to_value(Policy::fleetflow()).unwrap()));
}

#[test]
fn topics_have_their_tables_columns() {
    let schema = json_schema("driver_scores");
    for column in Table::new(TableId::DriverScores, &Catalogue::default()).columns {
        assert!(schema["properties"].get(&column.name).is_some(), "{}", column.name);
    }
    assert_eq!(schema["properties"]["score"]["type"], serde_json::json!(["number", "null"]));
    assert_eq!(schema["properties"]["updated_at"]["format"], "date-time");
    assert!(schema["properties"].get("why").is_some());
}

#[test]
fn views_are_of_the_tables_that_have_files() {
    let dir = scored_directory();
    let with = |format| SchemaArgs { data: Some(dir.path().into()), ..args(None, format) };
    let duckdb = render(&with(SchemaFormat::Duckdb)).unwrap();
    assert_eq!(duckdb.matches("CREATE OR REPLACE VIEW").count(), 4, "{duckdb}");
    assert!(duckdb.contains(&format!("read_parquet('{}/history/trips_log/**/*.parquet'", dir.path().display())));
    let spark = render(&with(SchemaFormat::Spark)).unwrap();
    assert_eq!(spark.matches("CREATE OR REPLACE TEMPORARY VIEW").count(), 4, "{spark}");
    let without = render(&args(None, SchemaFormat::Duckdb)).unwrap();
    assert_eq!(without.matches("CREATE OR REPLACE VIEW").count(), 2 * TableId::ALL.len());
    assert!(without.contains("'data/history/windows_log/**/*.parquet'"));
}

#[test]
fn the_views_query_gives_what_sql_gives() {
    let dir = scored_directory();
    for (table, order) in [("trips", "trip_id"), ("driver_scores", "driver_id")] {
        let id = TableId::by_name(table).unwrap();
        let columns: Vec<String> = Table::new(id, &Catalogue::default()).columns.into_iter().map(|c| c.name).collect();
        let folded = views::state_query(&format!("{table}_log"), &columns.join(", "));
        let expected = values(dir.path(), &format!("select * from {table} order by {order}"));
        assert!(expected.lines().count() > 1, "{expected}");
        assert_eq!(values(dir.path(), &format!("select * from ({folded}) order by {order}")), expected);
    }
}
