//! A row of a result table at the edge of the dataflow, where integers have become what a reader sees.
//!
//! ```text
//!  cells ──Row::new──► bytes (one allocation; some 130 B for a window) ──cells()──► cells, borrowed
//!  cell = kind u8 · nothing | zigzag varint | 8 bytes | varint length · bytes
//! ```
//!
//! Millions of rows wait for their commit and their row group, so they are kept packed. Equal cells have equal bytes,
//! so that rows can be compared, consolidated and hashed by their bytes; their order is a total one and no more.
//! [`Row::sort_key`] has the order of the cells.

use crate::varint::{self, unzigzag, zigzag};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A double with the total order of IEEE 754, so that rows can be sorted and compared bit for bit.
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell<'a> {
    Null,
    Text(&'a str),
    Int(i64),
    /// µs since 1970 UTC.
    Time(i64),
    Float(Float),
    Bool(bool),
    Binary(&'a [u8]),
    /// A JSON document as text (compact, keys in a stable order).
    Json(&'a str),
}

impl<'a> Cell<'a> {
    pub fn text(value: &'a Option<Arc<str>>) -> Self {
        value.as_deref().map_or(Cell::Null, Cell::Text)
    }

    pub fn float(value: f64) -> Self {
        Cell::Float(Float(value))
    }

    /// A fixed-point number, rounded once to a double.
    pub fn fixed(value: i128, decimals: u32) -> Self {
        Cell::float(crate::fixed::to_f64(value, decimals))
    }

    /// A fixed-point number or null.
    pub fn maybe_fixed(value: Option<i128>, decimals: u32) -> Self {
        value.map_or(Cell::Null, |v| Cell::fixed(v, decimals))
    }

    /// A time or null.
    pub fn maybe_time(value: Option<i64>) -> Self {
        value.map_or(Cell::Null, Cell::Time)
    }

    /// Appends bytes whose order is that of the cells of one column: nulls first, texts by their bytes. No key is the
    /// beginning of another.
    pub fn sort_key(&self, out: &mut Vec<u8>) {
        match self {
            Cell::Null => out.push(NULL),
            Cell::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
            Cell::Int(v) => number(INT, *v, out),
            Cell::Time(v) => number(TIME, *v, out),
            Cell::Float(f) => {
                let bits = f.0.to_bits() as i64;
                number(FLOAT, bits ^ (((bits >> 63) as u64) >> 1) as i64, out);
            }
            Cell::Text(t) => escaped(TEXT, t.as_bytes(), out),
            Cell::Binary(b) => escaped(BINARY, b, out),
            Cell::Json(t) => escaped(JSON, t.as_bytes(), out),
        }
    }
}

impl<'a> From<&'a Arc<str>> for Cell<'a> {
    fn from(value: &'a Arc<str>) -> Self {
        Cell::Text(value)
    }
}
impl<'a> From<&'a str> for Cell<'a> {
    fn from(value: &'a str) -> Self {
        Cell::Text(value)
    }
}
impl From<i64> for Cell<'_> {
    fn from(value: i64) -> Self {
        Cell::Int(value)
    }
}

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const TIME: u8 = 4;
const FLOAT: u8 = 5;
const TEXT: u8 = 6;
const BINARY: u8 = 7;
const JSON: u8 = 8;

/// The cells of a row, in the order of the table's columns (without `epoch` and `diff`). Serialized, it goes to another
/// process of the same version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(Box<[u8]>);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Row(crate::bytes::deserialize(deserializer)?.into_boxed_slice()))
    }
}

impl Row {
    pub fn new(cells: &[Cell<'_>]) -> Self {
        let size = |cell: &Cell<'_>| match cell {
            Cell::Text(t) | Cell::Json(t) => t.len() + 6,
            Cell::Binary(b) => b.len() + 6,
            _ => 10,
        };
        let mut out = Vec::with_capacity(cells.iter().map(size).sum());
        for cell in cells {
            write(cell, &mut out);
        }
        Row(out.into_boxed_slice())
    }

    /// The cells from the first to the last.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || read(&mut rest))
    }

    /// Cell `i`; it is found by reading those before it.
    pub fn get(&self, i: usize) -> Option<Cell<'_>> {
        self.cells().nth(i)
    }

    /// How many cells there are.
    pub fn width(&self) -> usize {
        self.cells().count()
    }

    /// Equal for equal cells, and for no others.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Appends the sort keys ([`Cell::sort_key`]) of these columns; a column that is not there counts as null.
    pub fn sort_key(&self, columns: &[usize], out: &mut Vec<u8>) {
        for column in columns {
            self.get(*column).unwrap_or(Cell::Null).sort_key(out);
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.cells()).finish()
    }
}

fn number(kind: u8, value: i64, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
}

/// Ends with 00 00; a 00 in it is 00 ff.
fn escaped(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn write(cell: &Cell<'_>, out: &mut Vec<u8>) {
    let fixed = |kind: u8, bits: u64, out: &mut Vec<u8>| {
        out.push(kind);
        out.extend_from_slice(&bits.to_le_bytes());
    };
    let bytes = |kind: u8, bytes: &[u8], out: &mut Vec<u8>| {
        out.push(kind);
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    match cell {
        Cell::Null => out.push(NULL),
        Cell::Bool(b) => out.push(if *b { TRUE } else { FALSE }),
        Cell::Int(v) => {
            out.push(INT);
            varint::put(out, zigzag(*v));
        }
        Cell::Time(v) => fixed(TIME, *v as u64, out),
        Cell::Float(f) => fixed(FLOAT, f.0.to_bits(), out),
        Cell::Text(t) => bytes(TEXT, t.as_bytes(), out),
        Cell::Binary(b) => bytes(BINARY, b, out),
        Cell::Json(t) => bytes(JSON, t.as_bytes(), out),
    }
}

/// The cell at the front. Rows are made by [`Row::new`] only, so that nothing is wrong with them.
fn read<'a>(rest: &mut &'a [u8]) -> Option<Cell<'a>> {
    let (kind, after) = rest.split_first()?;
    *rest = after;
    Some(match *kind {
        NULL => Cell::Null,
        FALSE => Cell::Bool(false),
        TRUE => Cell::Bool(true),
        INT => Cell::Int(unzigzag(varint::take(rest))),
        TIME => Cell::Time(read_fixed(rest)? as i64),
        FLOAT => Cell::float(f64::from_bits(read_fixed(rest)?)),
        kind => {
            let length = varint::take(rest) as usize;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            match kind {
                BINARY => Cell::Binary(bytes),
                TEXT => Cell::Text(std::str::from_utf8(bytes).ok()?),
                _ => Cell::Json(std::str::from_utf8(bytes).ok()?),
            }
        }
    })
}

fn read_fixed(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Owned {
        Cell(Cell<'static>),
        Text(String),
        Json(String),
        Binary(Vec<u8>),
    }

    impl Owned {
        fn cell(&self) -> Cell<'_> {
            match self {
                Owned::Cell(cell) => *cell,
                Owned::Text(t) => Cell::Text(t),
                Owned::Json(t) => Cell::Json(t),
                Owned::Binary(b) => Cell::Binary(b),
            }
        }
    }

    fn cell() -> impl Strategy<Value = Owned> {
        let text = || prop::collection::vec(prop_oneof![Just('\0'), Just('a'), any::<char>()], 0..4);
        let string = |chars: Vec<char>| chars.into_iter().collect::<String>();
        prop_oneof![
            Just(Owned::Cell(Cell::Null)),
            any::<bool>().prop_map(|b| Owned::Cell(Cell::Bool(b))),
            prop_oneof![any::<i64>(), -2i64..2].prop_map(|v| Owned::Cell(Cell::Int(v))),
            any::<i64>().prop_map(|v| Owned::Cell(Cell::Time(v))),
            prop::num::f64::ANY.prop_map(|v| Owned::Cell(Cell::float(v))),
            text().prop_map(move |t| Owned::Text(string(t))),
            text().prop_map(move |t| Owned::Json(string(t))),
            prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..200).prop_map(Owned::Binary),
        ]
    }

    /// As the cells are declared, kinds aside: a column has one kind, and null.
    fn kind(cell: &Cell<'_>) -> u8 {
        let mut bytes = Vec::new();
        write(cell, &mut bytes);
        bytes[0].max(TRUE)
    }

    proptest! {
        #[test]
        fn cells_return(cells in prop::collection::vec(cell(), 0..20)) {
            let cells: Vec<Cell<'_>> = cells.iter().map(Owned::cell).collect();
            let row = Row::new(&cells);
            prop_assert_eq!(row.cells().collect::<Vec<_>>(), cells.clone());
            prop_assert_eq!(row.width(), cells.len());
            prop_assert_eq!(row.get(3), cells.get(3).copied());
        }

        #[test]
        fn bytes_are_equal_when_cells_are(a in prop::collection::vec(cell(), 0..3), b in prop::collection::vec(cell(), 0..3)) {
            let of = |cells: &[Owned]| cells.iter().map(|c| format!("{:?}", c.cell())).collect::<Vec<_>>();
            let row = |cells: &[Owned]| Row::new(&cells.iter().map(Owned::cell).collect::<Vec<_>>());
            let (nan, same) = (of(&a).concat().contains("NaN"), of(&a) == of(&b));
            prop_assert!(nan || same == (row(&a) == row(&b)));
        }

        #[test]
        fn sort_keys_have_the_order_of_the_cells(a in (cell(), cell()), b in (cell(), cell())) {
            let pair = |p: &(Owned, Owned)| Row::new(&[p.0.cell(), p.1.cell()]);
            let key = |p| {
                let mut key = Vec::new();
                pair(p).sort_key(&[0, 1], &mut key);
                key
            };
            let alike = |a: &Owned, b: &Owned| {
                let (a, b) = (a.cell(), b.cell());
                kind(&a) == kind(&b) || a == Cell::Null || b == Cell::Null
            };
            if alike(&a.0, &b.0) && alike(&a.1, &b.1) {
                let expected = (a.0.cell(), a.1.cell()).cmp(&(b.0.cell(), b.1.cell()));
                prop_assert_eq!(key(&a).cmp(&key(&b)), expected);
            }
        }
    }
}
