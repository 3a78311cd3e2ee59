//! Tables in Arrow: the schema of a table or of its history, and record batches from rows and from readings.
//!
//! ```text
//!  Table ──schema──► SchemaRef          (history: + epoch, diff)
//!  (Row, epoch, diff)* ──batch──► RecordBatch, in the order given
//!  ReadingPart*     ──readings──► RecordBatch, sorted by (vehicle_id, at, epoch)
//! ```

use crate::row::{Cell, Row};
use crate::table::{Kind, Table};
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
    let mut columns: Vec<Builder> = table.columns.iter().map(|column| Builder::new(column.kind, rows.len())).collect();
    for (i, (row, ..)) in rows.iter().enumerate() {
        let wrong_width =
            || ArrowError::Width { table: table.name, row: i, cells: row.borrow().width(), columns: width };
        let mut cells = row.borrow().cells();
        for (builder, column) in columns.iter_mut().zip(&table.columns) {
            let cell = cells.next().ok_or_else(wrong_width)?;
            builder.push(cell, column.nullable).map_err(|expected| ArrowError::Cell {
                table: table.name,
                row: i,
                column: column.name.clone(),
                found: format!("{cell:?}").chars().take(80).collect(),
                expected,
            })?;
        }
        if cells.next().is_some() {
            return Err(wrong_width());
        }
    }
    let mut arrays: Vec<ArrayRef> = columns.into_iter().map(Builder::finish).collect();
    arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))));
    arrays.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))));
    RecordBatch::try_new(schema(table, true), arrays).map_err(|source| ArrowError::Batch { table: table.name, source })
}

/// A column while it is filled.
enum Builder {
    Text(StringBuilder),
    Json(StringBuilder),
    Int(Int64Builder),
    Time(TimestampMicrosecondBuilder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Binary(BinaryBuilder),
}

impl Builder {
    fn new(kind: Kind, n: usize) -> Self {
        match kind {
            Kind::Text => Builder::Text(StringBuilder::with_capacity(n, 16 * n)),
            Kind::Json => Builder::Json(StringBuilder::with_capacity(n, 32 * n)),
            Kind::Int => Builder::Int(Int64Builder::with_capacity(n)),
            Kind::Time => Builder::Time(TimestampMicrosecondBuilder::with_capacity(n).with_timezone(UTC)),
            Kind::Float => Builder::Float(Float64Builder::with_capacity(n)),
            Kind::Bool => Builder::Bool(BooleanBuilder::with_capacity(n)),
            Kind::Binary => Builder::Binary(BinaryBuilder::with_capacity(n, 64 * n)),
        }
    }

    /// Appends a cell, or says what belongs there.
    #[inline]
    fn push(&mut self, cell: Cell<'_>, nullable: bool) -> Result<(), &'static str> {
        macro_rules! push {
            ($builder:expr, $pattern:pat => $value:expr, $expected:literal) => {
                match cell {
                    $pattern => $builder.append_value($value),
                    Cell::Null if nullable => $builder.append_null(),
                    _ => return Err($expected),
                }
            };
        }
        match self {
            Builder::Text(b) => push!(b, Cell::Text(t) => t, "text"),
            Builder::Json(b) => push!(b, Cell::Json(t) => t, "a JSON document"),
            Builder::Int(b) => push!(b, Cell::Int(v) => v, "an integer"),
            Builder::Time(b) => push!(b, Cell::Time(v) => v, "a time"),
            Builder::Float(b) => push!(b, Cell::Float(v) => v.0, "a number"),
            Builder::Bool(b) => push!(b, Cell::Bool(v) => v, "true or false"),
            Builder::Binary(b) => push!(b, Cell::Binary(v) => v, "bytes"),
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Builder::Text(mut b) | Builder::Json(mut b) => Arc::new(b.finish()),
            Builder::Int(mut b) => Arc::new(b.finish()),
            Builder::Time(mut b) => Arc::new(b.finish()),
            Builder::Float(mut b) => Arc::new(b.finish()),
            Builder::Bool(mut b) => Arc::new(b.finish()),
            Builder::Binary(mut b) => Arc::new(b.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::table::{Column, TableId};
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
                        Kind::Json => Cell::Json(array.as_string::<i32>().value(i)),
                        Kind::Int => Cell::Int(int(c, i)),
                        Kind::Time => Cell::Time(array.as_primitive::<TimestampMicrosecondType>().value(i)),
                        Kind::Float => Cell::float(array.as_primitive::<Float64Type>().value(i)),
                        Kind::Bool => Cell::Bool(array.as_boolean().value(i)),
                        Kind::Binary => Cell::Binary(array.as_binary::<i32>().value(i)),
                    }
                });
                (Row::new(&row.collect::<Vec<_>>()), int(width, i), int(width + 1, i))
            })
            .collect()
    }

    /// The texts and bytes of a test.
    const TEXTS: [&str; 4] = ["", "a", "\"ä\0", "eight ch"];

    fn cell(column: &Column) -> BoxedStrategy<Cell<'static>> {
        let text = || proptest::sample::select(TEXTS.to_vec());
        let known = match column.kind {
            Kind::Text => text().prop_map(Cell::Text).boxed(),
            Kind::Json => Just(Cell::Json("{\"a\":1}")).boxed(),
            Kind::Int => any::<i64>().prop_map(Cell::Int).boxed(),
            Kind::Time => any::<i64>().prop_map(Cell::Time).boxed(),
            Kind::Float => any::<f64>().prop_map(Cell::float).boxed(),
            Kind::Bool => any::<bool>().prop_map(Cell::Bool).boxed(),
            Kind::Binary => text().prop_map(|t| Cell::Binary(t.as_bytes())).boxed(),
        };
        if column.nullable { prop_oneof![Just(Cell::Null), known].boxed() } else { known }
    }

    proptest! {
        #[test]
        fn every_table_reads_back(
            (id, rows_in) in proptest::sample::select(TableId::ALL.to_vec()).prop_flat_map(|id| {
                let table = Table::new(id, &Catalogue::default());
                let row = table.columns.iter().map(cell).collect::<Vec<_>>().prop_map(|cells| Row::new(&cells));
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
        let short = batch(&table, &[(Row::new(&[Cell::from("a")]), 1, 1)]).unwrap_err().to_string();
        assert_eq!(short, "table reference_problems, row 0: 1 cells for 2 columns");
        let null = batch(&table, &[(Row::new(&[Cell::from("a"), Cell::Null]), 1, 1)]).unwrap_err().to_string();
        assert_eq!(null, "table reference_problems, row 0, column problem: Null where text belongs");
        assert!(batch(&table, &[(Row::new(&[Cell::from("a"), Cell::Int(1)]), 1, 1)]).is_err());
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
