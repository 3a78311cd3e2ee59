//! Rows as JSON objects: what a live topic's value, `--format json` and a test print.
//!
//! Fields have the table's column names, in the table's order. Times are RFC 3339 in UTC, floats the shortest decimal
//! text that reads back as the same double (with `.0` when whole), bytes base64, JSON columns as the document that
//! they hold; what is not known is `null`, never left out.

use crate::row::{Cell, Row};
use crate::table::{Kind, Table};
use crate::time::format_rfc3339;
use std::fmt::Write;

/// A row as one compact JSON object. Cells beyond the table's columns are left out, missing ones are null.
///
/// ```
/// # use drivetrain_schemas::{catalogue::Catalogue, document, row::{Cell, Row}, table::{Table, TableId}};
/// let table = Table::new(TableId::ReferenceProblems, &Catalogue::default());
/// let row = Row::new(&[Cell::from("fleets/f1"), Cell::Null]);
/// assert_eq!(document::document(&table, &row), r#"{"document":"fleets/f1","problem":null}"#);
/// ```
pub fn document(table: &Table, row: &Row) -> String {
    let mut out = String::with_capacity(32 * table.columns.len());
    out.push('{');
    let mut cells = row.cells();
    for (i, column) in table.columns.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_string(&mut out, &column.name);
        out.push(':');
        write_cell(&mut out, cells.next().unwrap_or(Cell::Null), column.kind);
    }
    out.push('}');
    out
}

/// One cell as a JSON value. A JSON document in a column of another kind than [`Kind::Json`] is written as a string.
pub fn write_cell(out: &mut String, cell: Cell<'_>, kind: Kind) {
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::Text(text) => write_string(out, text),
        Cell::Int(n) => {
            let _ = write!(out, "{n}");
        }
        Cell::Time(micros) => write_string(out, &format_rfc3339(micros)),
        Cell::Float(f) => write_float(out, f.0),
        Cell::Bool(b) => out.push_str(if b { "true" } else { "false" }),
        Cell::Binary(bytes) => {
            out.push('"');
            out.push_str(&base64(bytes));
            out.push('"');
        }
        Cell::Json(text) if kind == Kind::Json => out.push_str(text),
        Cell::Json(text) => write_string(out, text),
    }
}

/// A double as JSON: the shortest text that reads back the same, `95.0` for a whole one; `null` for NaN and infinities,
/// which JSON has no word for.
pub fn write_float(out: &mut String, value: f64) {
    if value.is_finite() {
        let _ = write!(out, "{value:?}");
    } else {
        out.push_str("null");
    }
}

/// A string in quotes, with JSON's escapes.
pub fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[rest..i]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        rest = i + 1;
    }
    out.push_str(&text[rest..]);
    out.push('"');
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as base64 (RFC 4648, with padding).
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[((word >> (18 - 6 * i)) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Base64 back into bytes; `None` when the text is none.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for (n, chunk) in text.chunks(4).enumerate() {
        let last = (n + 1) * 4 == text.len();
        let padding = chunk.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && !last) {
            return None;
        }
        let mut word = 0u32;
        for &byte in &chunk[..4 - padding] {
            let digit = ALPHABET.iter().position(|a| *a == byte)?;
            word = (word << 6) | digit as u32;
        }
        word <<= 6 * padding;
        out.extend_from_slice(&word.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::table::TableId;
    use proptest::prelude::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(from_base64(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(from_base64("Zg="), None);
        assert_eq!(from_base64("Z==="), None);
        assert_eq!(from_base64("Zg==Zg=="), None);
    }

    #[test]
    fn floats_and_times() {
        let mut out = String::new();
        for f in [95.0, 0.1, -0.0, 1e-7, f64::NAN] {
            write_float(&mut out, f);
            out.push(' ');
        }
        assert_eq!(out, "95.0 0.1 -0.0 1e-7 null ");
        let table = Table::new(TableId::FleetAggregates, &Catalogue::default());
        let mut row = vec![Cell::Null; table.columns.len()];
        row[table.column("worst_drivers").unwrap()] = Cell::Json(r#"[{"driver_id":"d"}]"#);
        let json: serde_json::Value = serde_json::from_str(&document(&table, &Row::new(&row))).unwrap();
        assert_eq!(json["worst_drivers"][0]["driver_id"], "d");
        assert_eq!(json.as_object().unwrap().len(), table.columns.len());
    }

    proptest! {
        #[test]
        fn reads_back(text in ".*", float in proptest::num::f64::NORMAL, bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut out = String::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            out.clear();
            write_float(&mut out, float);
            prop_assert_eq!(out.parse::<f64>().unwrap().to_bits(), float.to_bits());
            prop_assert_eq!(from_base64(&base64(&bytes)), Some(bytes));
        }
    }
}
