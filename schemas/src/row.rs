//! A row of a result table at the edge of the dataflow, where integers have become what a reader sees.
//!
//! Rows are compared and ordered (never hashed into an order), so that the committer can consolidate them.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::sync::Arc;

/// A double with the total order of IEEE 754, so that rows can be sorted and compared bit for bit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Float(pub f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Float {}
impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}
impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One value of a row. The kind must be that of the column (see [`crate::table::Kind`]) or `Null`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cell {
    Null,
    Text(Arc<str>),
    Int(i64),
    /// µs since 1970 UTC.
    Time(i64),
    Float(Float),
    Bool(bool),
    Binary(Vec<u8>),
    /// A JSON document as text (compact, keys in a stable order).
    Json(String),
}

/// The cells of a row, in the order of the table's columns (without `epoch` and `diff`).
pub type Row = Vec<Cell>;

impl Cell {
    pub fn text(value: &Option<Arc<str>>) -> Cell {
        value.as_ref().map_or(Cell::Null, |v| Cell::Text(v.clone()))
    }

    pub fn float(value: f64) -> Cell {
        Cell::Float(Float(value))
    }

    /// A fixed-point number, rounded once to a double.
    pub fn fixed(value: i128, decimals: u32) -> Cell {
        Cell::float(crate::fixed::to_f64(value, decimals))
    }

    /// A fixed-point number or null.
    pub fn maybe_fixed(value: Option<i128>, decimals: u32) -> Cell {
        value.map_or(Cell::Null, |v| Cell::fixed(v, decimals))
    }

    /// A time or null.
    pub fn maybe_time(value: Option<i64>) -> Cell {
        value.map_or(Cell::Null, Cell::Time)
    }
}

impl From<&Arc<str>> for Cell {
    fn from(value: &Arc<str>) -> Self {
        Cell::Text(value.clone())
    }
}
impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Cell::Text(value.into())
    }
}
impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}
