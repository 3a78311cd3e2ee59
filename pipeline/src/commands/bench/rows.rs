//! The history's batch of readings the slow and obvious way: each reading a row of cells, the rows sorted, then columns.

use drivetrain_schemas::arrow::{self, ArrowError, ReadingPart};
use drivetrain_schemas::catalogue::{Catalogue, SignalType};
use drivetrain_schemas::reading::{Meta, NULL};
use drivetrain_schemas::row::{Cell, Row};
use drivetrain_schemas::table::Table;

/// What [`arrow::readings`] gives for parts that only begin to be true.
pub(super) fn readings(
    catalogue: &Catalogue,
    table: &Table,
    parts: &[ReadingPart],
) -> Result<::arrow::record_batch::RecordBatch, ArrowError> {
    let mut rows = Vec::new();
    for part in parts {
        for i in 0..part.batch.len() {
            let (meta, at) = (part.batch.meta(i), part.batch.heads[i].at);
            let row = row(catalogue, meta, at, part.batch.row(i));
            rows.push(((meta.vehicle.clone(), at, part.epoch), row));
        }
    }
    rows.sort();
    let rows: Vec<(Row, i64, i64)> = rows.into_iter().map(|((_, _, epoch), row)| (row, epoch, 1)).collect();
    arrow::batch(table, &rows)
}

fn row(catalogue: &Catalogue, meta: &Meta, at: i64, values: &[i64]) -> Row {
    let mut cells = vec![
        Cell::from(&meta.vehicle),
        Cell::Time(at),
        Cell::text(&meta.driver),
        Cell::text(&meta.trip),
        Cell::text(&meta.fleet),
    ];
    for (index, (signal, value)) in catalogue.signals.iter().zip(values).enumerate() {
        let text = || meta.texts.iter().find(|(signal, _)| usize::from(*signal) == index);
        cells.push(match signal.kind {
            SignalType::Text => text().map_or(Cell::Null, |(_, text)| Cell::from(text)),
            _ if *value == NULL => Cell::Null,
            SignalType::Bool => Cell::Bool(*value != 0),
            SignalType::Number => Cell::fixed(i128::from(*value), signal.decimals),
        });
    }
    cells.push(Cell::text(&meta.quality));
    cells.push(meta.tags.as_ref().map_or(Cell::Null, |tags| Cell::Json(tags)));
    Row::new(&cells)
}
