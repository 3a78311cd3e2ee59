//! Rows of Arrow batches (Parquet): a column is found by its name, a field of a struct by `column.field`.

use super::csv::Column;
use super::frame::{Frame, Kind, Slot};
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Field, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::record_batch::RecordBatch;
use std::fmt::{Display, Write};

/// A leaf column and the way to it through structs.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    way: Vec<usize>,
    pub(crate) column: Column,
}

/// The leaves of a schema; `bind` says what becomes of a name.
pub(crate) fn leaves(schema: &Schema, bind: &impl Fn(String) -> Column) -> Vec<Leaf> {
    fn walk(field: &Field, path: String, way: &[usize], bind: &impl Fn(String) -> Column, out: &mut Vec<Leaf>) {
        match field.data_type() {
            DataType::Struct(fields) => fields.iter().enumerate().for_each(|(i, f)| {
                walk(f, format!("{path}.{}", f.name()), &[way, &[i]].concat(), bind, out);
            }),
            _ => out.push(Leaf { way: way.to_vec(), column: bind(path) }),
        }
    }
    let mut out = Vec::new();
    for (i, field) in schema.fields().iter().enumerate() {
        walk(field, field.name().clone(), &[i], bind, &mut out);
    }
    out
}

/// Reads one row into the frame, its texts into `scratch`.
pub(crate) fn load(
    batch: &RecordBatch,
    row: usize,
    leaves: &[Leaf],
    scratch: &mut String,
    frame: &mut Frame,
    tags: bool,
) {
    scratch.clear();
    for leaf in leaves {
        if leaf.column.slot.is_none() && !tags {
            continue;
        }
        let value = array(batch, &leaf.way, row).map_or(Slot::new(Kind::Null, 0, 0), |a| value(a, row, scratch));
        leaf.column.put(frame, value, tags);
    }
}

/// The row as a JSON object, for rejects.
pub(crate) fn row_json(batch: &RecordBatch, row: usize) -> String {
    let all = |name| Column { name, slot: None, ignore: false };
    let mut scratch = String::new();
    let mut out = String::from("{");
    for leaf in leaves(batch.schema_ref(), &all) {
        scratch.clear();
        let value = array(batch, &leaf.way, row).map_or(Slot::new(Kind::Null, 0, 0), |a| value(a, row, &mut scratch));
        if out.len() > 1 {
            out.push(',');
        }
        crate::json::quote(&leaf.column.name, &mut out);
        out.push(':');
        value.write_json(&scratch, &mut out);
    }
    out.push('}');
    out
}

/// The leaf's array; None where it or a struct around it is null or the row does not exist.
fn array<'a>(batch: &'a RecordBatch, way: &[usize], row: usize) -> Option<&'a ArrayRef> {
    let (first, rest) = way.split_first()?;
    let mut array = batch.columns().get(*first)?;
    for i in rest {
        if row >= array.len() || array.is_null(row) {
            return None;
        }
        array = array.as_struct_opt()?.columns().get(*i)?;
    }
    (row < array.len() && !array.is_null(row)).then_some(array)
}

fn write(kind: Kind, value: impl Display, scratch: &mut String) -> Slot {
    let start = scratch.len();
    // Writing to a String cannot fail.
    let _ = write!(scratch, "{value}");
    Slot::new(kind, start, scratch.len())
}

fn value(array: &ArrayRef, row: usize, scratch: &mut String) -> Slot {
    macro_rules! number {
        ($type:ty) => {
            write(Kind::Number, array.as_primitive::<$type>().value(row), scratch)
        };
    }
    match array.data_type() {
        DataType::Null => Slot::new(Kind::Null, 0, 0),
        DataType::Boolean => Slot::new(if array.as_boolean().value(row) { Kind::True } else { Kind::False }, 0, 0),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        // The shortest text that reads back as the same float; NaN and infinities are texts that are no numbers.
        DataType::Float16 => float(f64::from(array.as_primitive::<Float16Type>().value(row).to_f32()), None, scratch),
        DataType::Float32 => {
            let v = array.as_primitive::<Float32Type>().value(row);
            float(f64::from(v), Some(v), scratch)
        }
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row), None, scratch),
        DataType::Decimal128(_, _) => {
            write(Kind::Number, array.as_primitive::<Decimal128Type>().value_as_string(row), scratch)
        }
        DataType::Utf8 => write(Kind::Text, array.as_string::<i32>().value(row), scratch),
        DataType::LargeUtf8 => write(Kind::Text, array.as_string::<i64>().value(row), scratch),
        DataType::Utf8View => write(Kind::Text, array.as_string_view().value(row), scratch),
        DataType::Binary => text(array.as_binary::<i32>().value(row), scratch),
        DataType::LargeBinary => text(array.as_binary::<i64>().value(row), scratch),
        DataType::BinaryView => text(array.as_binary_view().value(row), scratch),
        DataType::Timestamp(unit, zone) => time(array, row, *unit, zone.is_some(), scratch),
        DataType::Date32 => {
            let day = i64::from(array.as_primitive::<Date32Type>().value(row));
            write(Kind::LocalMicros, day.saturating_mul(86_400_000_000), scratch)
        }
        DataType::Date64 => {
            let millis = array.as_primitive::<Date64Type>().value(row);
            write(Kind::LocalMicros, millis.saturating_mul(1000), scratch)
        }
        DataType::Dictionary(_, _) => match array.as_any_dictionary_opt() {
            Some(dictionary) => match dictionary.normalized_keys().get(row) {
                Some(key) if *key < dictionary.values().len() && !dictionary.values().is_null(*key) => {
                    value(dictionary.values(), *key, scratch)
                }
                _ => Slot::new(Kind::Null, 0, 0),
            },
            None => Slot::new(Kind::Null, 0, 0),
        },
        // Lists and the like: as Arrow prints them.
        _ => match arrow::util::display::array_value_to_string(array, row) {
            Ok(printed) => write(Kind::Text, printed, scratch),
            Err(_) => Slot::new(Kind::Null, 0, 0),
        },
    }
}

fn float(wide: f64, narrow: Option<f32>, scratch: &mut String) -> Slot {
    let kind = if wide.is_finite() { Kind::Number } else { Kind::Text };
    match narrow {
        Some(v) => write(kind, v, scratch),
        None => write(kind, wide, scratch),
    }
}

fn text(bytes: &[u8], scratch: &mut String) -> Slot {
    write(Kind::Text, String::from_utf8_lossy(bytes), scratch)
}

fn time(array: &ArrayRef, row: usize, unit: TimeUnit, zoned: bool, scratch: &mut String) -> Slot {
    let micros = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row).saturating_mul(1_000_000),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1000),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1000),
    };
    write(if zoned { Kind::Micros } else { Kind::LocalMicros }, micros, scratch)
}
