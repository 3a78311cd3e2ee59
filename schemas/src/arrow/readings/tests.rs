use super::*;
use crate::arrow::batch;
use crate::catalogue::SignalConfig;
use crate::reading::{Head, Origin};
use crate::row::{Cell, Row};
use ::arrow::array::AsArray;
use ::arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use proptest::prelude::*;

fn catalogue() -> Catalogue {
    let signal = |kind, decimals| SignalConfig { kind, decimals, ..SignalConfig::default() };
    let configs = [
        ("door", signal(SignalType::Bool, None)),
        ("g", signal(SignalType::Number, Some(3))),
        ("gear", signal(SignalType::Text, None)),
        ("speed", signal(SignalType::Number, Some(6))),
    ];
    Catalogue::new(&configs.map(|(n, c)| (n.to_string(), c)).into()).unwrap()
}

/// A reading in plain words: vehicle, at, driver, door, g, gear, speed.
type Plain = (u8, i64, Option<u8>, Option<bool>, Option<i64>, Option<u8>, i64);

fn part(epoch: i64, diff: i64, plain: &[Plain]) -> ReadingPart {
    let origin = Arc::new(Origin { source: "s".into(), name: "t".into(), partition: 0 });
    let mut batch = ReadingBatch::new(origin, 4);
    for (i, (vehicle, at, driver, door, g, gear, speed)) in plain.iter().enumerate() {
        let meta = Meta {
            vehicle: format!("v{vehicle}").into(),
            texts: gear.map(|n| (2, Arc::from(n.to_string()))).into_iter().collect(),
            driver: driver.map(|d| Arc::from(format!("d{d}"))),
            trip: None,
            fleet: Some("f".into()),
            quality: None,
            tags: Some("{}".into()),
        };
        let head = Head { at: *at, position: i as i64, record_time: NULL, meta: 0, element: 0 };
        let values = [door.map_or(NULL, i64::from), g.unwrap_or(NULL), NULL, *speed];
        batch.push(head, &Arc::new(meta), &values);
    }
    ReadingPart { epoch, diff, batch: Arc::new(batch) }
}

/// Vehicle, at, epoch, values, circumstances, row.
type Sorted = (String, i64, i64, [i64; 3], String, Row);

/// The same by way of rows, the slow and obvious way.
fn reference(catalogue: &Catalogue, parts: &[(i64, i64, Vec<Plain>)]) -> RecordBatch {
    let mut rows: BTreeMap<Sorted, i64> = BTreeMap::new();
    for (epoch, diff, plain) in parts {
        for (vehicle, at, driver, door, g, gear, speed) in plain {
            let (vehicle, driver) = (format!("v{vehicle}"), driver.map(|d| format!("d{d}")));
            let gear = gear.map(|g| g.to_string());
            let row = Row::new(&[
                Cell::from(vehicle.as_str()),
                Cell::Time(*at),
                driver.as_deref().map_or(Cell::Null, Cell::Text),
                Cell::Null,
                Cell::from("f"),
                door.map_or(Cell::Null, Cell::Bool),
                Cell::maybe_fixed(g.map(i128::from), 3),
                gear.as_deref().map_or(Cell::Null, Cell::Text),
                Cell::fixed(i128::from(*speed), 6),
                Cell::Null,
                Cell::Json("{}"),
            ]);
            let values = [door.map_or(NULL, i64::from), g.unwrap_or(NULL), *speed];
            let circumstances = format!("{gear:?}{driver:?}");
            *rows.entry((vehicle, *at, *epoch, values, circumstances, row)).or_default() += diff;
        }
    }
    let mut out = Vec::new();
    for ((_, _, epoch, .., row), diff) in rows {
        for _ in 0..diff.abs() {
            out.push((row.clone(), epoch, diff.signum()));
        }
    }
    batch(&Table::new(TableId::Readings, catalogue), &out).unwrap()
}

fn plain() -> impl Strategy<Value = Plain> {
    let small = || proptest::option::of(0u8..2);
    (0u8..12, -2i64..3, small(), any::<Option<bool>>(), proptest::option::of(-1i64..2), small(), 0i64..2)
}

/// Rows as text, sorted: the order of ties is checked apart. Times are shown without their zone, whose name arrow knows
/// only with a feature that nothing else here needs.
fn lines(batch: &RecordBatch) -> Vec<String> {
    let schema = batch.schema();
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let time = column.as_primitive_opt::<TimestampMicrosecondType>();
        let plain = time.map(|t| Arc::new(t.clone().with_timezone_opt(None::<&str>)) as ArrayRef);
        (field.name().clone(), plain.unwrap_or_else(|| column.clone()))
    });
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let text = ::arrow::util::pretty::pretty_format_batches(&[batch]).unwrap().to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    lines.sort();
    lines
}

proptest! {
    #[test]
    fn equals_the_slow_way(
        parts in proptest::collection::vec((5i64..7, prop_oneof![Just(1i64), Just(-1)], proptest::collection::vec(plain(), 0..8)), 0..6)
    ) {
        let catalogue = catalogue();
        let table = Table::new(TableId::Readings, &catalogue);
        let fast: Vec<ReadingPart> = parts.iter().map(|(e, d, p)| part(*e, *d, p)).collect();
        let got = readings(&catalogue, &table, &fast).unwrap();
        let expected = reference(&catalogue, &parts);
        prop_assert_eq!(got.schema(), expected.schema());
        for column in ["vehicle_id", "at", "epoch"] {
            prop_assert_eq!(got.column_by_name(column).unwrap(), expected.column_by_name(column).unwrap());
        }
        prop_assert_eq!(lines(&got), lines(&expected));
    }
}

#[test]
fn another_catalogue_is_refused() {
    let wide = part(1, 1, &[(1, 5, None, None, None, None, 7)]);
    let other = Catalogue::default();
    let error = readings(&other, &Table::new(TableId::Readings, &other), &[wide]).unwrap_err();
    assert_eq!(error.to_string(), "readings of 4 signals where the catalogue has 0");
}

#[test]
fn large_numbers_are_the_nearest_doubles() {
    let catalogue = catalogue();
    let table = Table::new(TableId::Readings, &catalogue);
    for speed in [i64::MAX, i64::MIN + 1, (1 << 53) + 1, -1, 0] {
        let batch = readings(&catalogue, &table, &[part(1, 1, &[(1, 5, None, None, None, None, speed)])]).unwrap();
        let got = batch.column_by_name("speed").unwrap().as_primitive::<Float64Type>().value(0);
        assert_eq!(got.to_bits(), fixed::to_f64(i128::from(speed), 6).to_bits());
    }
}
