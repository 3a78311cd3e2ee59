//! Tables in Arrow: the schema of a table or of its history, and record batches from rows and from readings.
//!
//! ```text
//!  Table ──schema──► SchemaRef          (history: + epoch, diff)
//!  (Row, epoch, diff)* ──batch──► RecordBatch, in the order given
//!  ReadingPart*     ──readings──► RecordBatch, sorted by (vehicle_id, at, epoch)
//! ```

use crate::row::{Cell, Row};
use crate::table::{Column, Kind, Table};
use ::arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Array, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use ::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use ::arrow::record_batch::RecordBatch;
use std::borrow::Borrow;
use std::sync::Arc;
use thiserror::Error;

mod readings;

pub use readings::{ReadingPart, readings};

/// Why rows did not fit their table: a fault of the program, never of the data.
#[derive(Debug, Error)]
pub enum ArrowError {
    #[error("table {table}, row {row}: {cells} cells for {columns} columns")]
    Width { table: &'static str, row: usize, cells: usize, columns: usize },
    #[error("table {table}, row {row}, column {column}: {found} where {expected} belongs")]
    Cell { table: &'static str, row: usize, column: String, found: String, expected: &'static str },
    #[error("table {table}: {source}")]
    Batch { table: &'static str, source: ::arrow::error::ArrowError },
    #[error("readings of {found} signals where the catalogue has {expected}")]
    Signals { found: usize, expected: usize },
}

/// The time zone of all times.
const UTC: &str = "UTC";

/// The Arrow type of a column.
pub fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Int => DataType::Int64,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())),
        Kind::Float => DataType::Float64,
        Kind::Bool => DataType::Boolean,
        Kind::Binary => DataType::Binary,
    }
}

/// The Arrow schema of a table; with `history` the columns `epoch` and `diff` follow. Each field's metadata has its
/// `doc`, the schema's the table's.
pub fn schema(table: &Table, history: bool) -> SchemaRef {
    let field = |name: &str, data_type, nullable, doc: &str| {
        Field::new(name, data_type, nullable).with_metadata([("doc".to_string(), doc.to_string())].into())
    };
    let mut fields: Vec<Field> =
        table.columns.iter().map(|c| field(&c.name, data_type(c.kind), c.nullable, &c.doc)).collect();
    if history {
        fields.push(field("epoch", DataType::Int64, false, "The epoch at which the row became or ceased to be true."));
        fields.push(field("diff", DataType::Int64, false, "+1: it became true; -1: it ceased to be."));
    }
    let metadata = [("table".to_string(), table.name.to_string()), ("doc".to_string(), table.doc.to_string())];
    Arc::new(Schema::new_with_metadata(fields, metadata.into()))
}

/// Rows with their (epoch, diff) as a batch of the table's history schema, in the order given.
///
/// # Errors
/// When a row has not the table's shape, or a null stands in a column that has none.
pub fn batch<R: Borrow<Row>>(table: &Table, rows: &[(R, i64, i64)]) -> Result<RecordBatch, ArrowError> {
    let width = table.columns.len();
    for (i, (row, ..)) in rows.iter().enumerate() {
        let cells = row.borrow().len();
        if cells != width {
            return Err(ArrowError::Width { table: table.name, row: i, cells, columns: width });
        }
    }
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(width + 2);
    for (i, column) in table.columns.iter().enumerate() {
        arrays.push(column_array(table, column, i, rows)?);
    }
    arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))));
    arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))));
    RecordBatch::try_new(schema(table, true), arrays).map_err(|source| ArrowError::Batch { table: table.name, source })
}

/// One column of the rows. Every row is known to be wide enough.
fn column_array<R: Borrow<Row>>(
    table: &Table,
    column: &Column,
    index: usize,
    rows: &[(R, i64, i64)],
) -> Result<ArrayRef, ArrowError> {
    let cells = || rows.iter().map(|r| &r.0.borrow()[index]);
    let error = |row: usize, found: &Cell, expected| ArrowError::Cell {
        table: table.name,
        row,
        column: column.name.clone(),
        found: format!("{found:?}").chars().take(80).collect(),
        expected,
    };
    macro_rules! build {
        ($builder:expr, $expected:literal, $($pattern:pat => $value:expr),+) => {{
            let mut builder = $builder;
            for (row, cell) in cells().enumerate() {
                match cell {
                    Cell::Null if column.nullable => builder.append_null(),
                    $($pattern => builder.append_value($value),)+
                    other => return Err(error(row, other, $expected)),
                }
            }
            Arc::new(builder.finish()) as ArrayRef
        }};
    }
    let n = rows.len();
    Ok(match column.kind {
        Kind::Text => build!(StringBuilder::with_capacity(n, 16 * n), "text", Cell::Text(t) => t.as_ref()),
        Kind::Json => build!(StringBuilder::with_capacity(n, 32 * n), "a JSON document", Cell::Json(t) => t),
        Kind::Int => build!(Int64Builder::with_capacity(n), "an integer", Cell::Int(v) => *v),
        Kind::Time => build!(
            TimestampMicrosecondBuilder::with_capacity(n).with_timezone(UTC), "a time", Cell::Time(v) => *v),
        Kind::Float => build!(Float64Builder::with_capacity(n), "a number", Cell::Float(v) => v.0),
        Kind::Bool => build!(BooleanBuilder::with_capacity(n), "true or false", Cell::Bool(v) => *v),
        Kind::Binary => build!(BinaryBuilder::with_capacity(n, 64 * n), "bytes", Cell::Binary(v) => v),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::table::TableId;
    use ::arrow::array::{Array, AsArray};
    use ::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
    use proptest::prelude::*;

    /// The cells that a batch holds, read back column by column.
    fn rows(table: &Table, batch: &RecordBatch) -> Vec<(Row, i64, i64)> {
        let width = table.columns.len();
        let int = |c: usize, i: usize| batch.column(c).as_primitive::<Int64Type>().value(i);
        (0..batch.num_rows())
            .map(|i| {
                let row = table.columns.iter().enumerate().map(|(c, column)| {
                    let array = batch.column(c);
                    if array.is_null(i) {
                        return Cell::Null;
                    }
                    match column.kind {
                        Kind::Text => Cell::from(array.as_string::<i32>().value(i)),
                        Kind::Json => Cell::Json(array.as_string::<i32>().value(i).to_string()),
                        Kind::Int => Cell::Int(int(c, i)),
                        Kind::Time => Cell::Time(array.as_primitive::<TimestampMicrosecondType>().value(i)),
                        Kind::Float => Cell::float(array.as_primitive::<Float64Type>().value(i)),
                        Kind::Bool => Cell::Bool(array.as_boolean().value(i)),
                        Kind::Binary => Cell::Binary(array.as_binary::<i32>().value(i).to_vec()),
                    }
                });
                (row.collect(), int(width, i), int(width + 1, i))
            })
            .collect()
    }

    fn cell(column: &Column) -> BoxedStrategy<Cell> {
        let known = match column.kind {
            Kind::Text => ".{0,8}".prop_map(|t| Cell::from(t.as_str())).boxed(),
            Kind::Json => Just(Cell::Json("{\"a\":1}".into())).boxed(),
            Kind::Int => any::<i64>().prop_map(Cell::Int).boxed(),
            Kind::Time => any::<i64>().prop_map(Cell::Time).boxed(),
            Kind::Float => any::<f64>().prop_map(Cell::float).boxed(),
            Kind::Bool => any::<bool>().prop_map(Cell::Bool).boxed(),
            Kind::Binary => proptest::collection::vec(any::<u8>(), 0..8).prop_map(Cell::Binary).boxed(),
        };
        if column.nullable { prop_oneof![Just(Cell::Null), known].boxed() } else { known }
    }

    proptest! {
        #[test]
        fn every_table_reads_back(
            (id, rows_in) in proptest::sample::select(TableId::ALL.to_vec()).prop_flat_map(|id| {
                let table = Table::new(id, &Catalogue::default());
                let row = table.columns.iter().map(cell).collect::<Vec<_>>();
                (Just(id), proptest::collection::vec((row, any::<i64>(), any::<i64>()), 0..6))
            })
        ) {
            let table = Table::new(id, &Catalogue::default());
            let batch = batch(&table, &rows_in).unwrap();
            prop_assert_eq!(batch.schema(), schema(&table, true));
            prop_assert_eq!(rows(&table, &batch), rows_in);
        }
    }

    #[test]
    fn wrong_rows_are_refused() {
        let table = Table::new(TableId::ReferenceProblems, &Catalogue::default());
        let short = batch(&table, &[(vec![Cell::from("a")], 1, 1)]).unwrap_err().to_string();
        assert_eq!(short, "table reference_problems, row 0: 1 cells for 2 columns");
        let null = batch(&table, &[(vec![Cell::from("a"), Cell::Null], 1, 1)]).unwrap_err().to_string();
        assert_eq!(null, "table reference_problems, row 0, column problem: Null where text belongs");
        assert!(batch(&table, &[(vec![Cell::from("a"), Cell::Int(1)], 1, 1)]).is_err());
    }

    #[test]
    fn fields_say_what_they_are() {
        let table = Table::new(TableId::Windows, &Catalogue::default());
        let schema = schema(&table, false);
        let start = schema.field_with_name("window_start").unwrap();
        assert_eq!(start.data_type(), &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
        assert_eq!(start.metadata()["doc"], "Start of the window, inclusive, aligned to UTC.");
        assert!(schema.field_with_name("epoch").is_err());
    }
}
