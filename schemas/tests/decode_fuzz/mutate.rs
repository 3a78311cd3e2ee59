//! Damage: to a document's structure, which leaves it JSON, and to its bytes, which mostly does not.

use crate::random::Random;
use crate::records::{Doc, junk};
use crate::scenarios::MAX_RECORD;

/// Keys that mean something in some scenario, or resemble one that does.
const KEYS: &[&str] = &[
    "vehicle_id",
    "at",
    "t",
    "gps",
    "gps.lat",
    "lat",
    "coords",
    "device",
    "device.id",
    "id",
    "driver_id",
    "speed_kmh",
    "value",
    "sensor_type",
    "name",
    "reading",
    "sensors",
    "payload",
    "rows",
    "data",
    "trips",
    "hub",
    "debug",
    "",
    "é\\\"",
    "a\\u002eb",
    "Vehicle.Temp",
    "when",
    "latitude",
    "gear",
    "temp",
    "speed_kmh ",
    "Speed_kmh",
    "pos",
    "\\u0061t",
    "log",
];
/// Pieces that break documents, or nearly do.
const PIECES: &[&[u8]] = &[
    b"NaN",
    b"Infinity",
    b"-",
    b"+1",
    b"01",
    b"1.",
    b".5",
    b"1e",
    b"\\",
    b"\"",
    b"\\ud800",
    b"\\udc00",
    b"\\u12",
    b"\\x",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\x0b",
    b"\x0c",
    b"\x00",
    b"\x1f",
    b"\x7f",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xc2\xa0",
    b"null",
    b"true",
    b"fals",
    b"nulll",
    b"//",
    b"'",
    b"\"a\":1,",
    b"{}",
    b"[]",
    b"0",
    b"e9",
    b"-0",
    b"\xf0\x9f\x9a\x9a",
    b"\\u0000",
    b"\\\"",
    b",,",
];

/// Damages the structure once.
pub(crate) fn structure(r: &mut Random, doc: &mut Doc) {
    match doc {
        Doc::Object(members) if !members.is_empty() => {
            let at = r.below(members.len());
            // Mostly further down where there is something.
            if r.percent(60) && !matches!(members[at].1, Doc::Token(_)) {
                return structure(r, &mut members[at].1);
            }
            members_of(r, members, at);
        }
        Doc::Array(items) if !items.is_empty() => {
            let at = r.below(items.len());
            if r.percent(75) && !matches!(items[at], Doc::Token(_)) {
                return structure(r, &mut items[at]);
            }
            match r.below(4) {
                0 => items[at] = junk(r, 0),
                1 => items.insert(at, items[at].clone()),
                2 => drop(items.remove(at)),
                _ => items.insert(at, junk(r, 0)),
            }
        }
        other => *other = junk(r, 0),
    }
}

fn members_of(r: &mut Random, members: &mut Vec<(String, Doc)>, at: usize) {
    let other = r.below(members.len());
    let place = r.below(members.len() + 1);
    let key = members[at].0.clone();
    match r.below(14) {
        // The same key once more, before or behind.
        0 => members.insert(place, (key, junk(r, 0))),
        1 => {
            let mut again = members[at].1.clone();
            structure(r, &mut again);
            members.insert(place, (key, again));
        }
        2 => members.insert(place, (escaped(r, &key), members[other].1.clone())),
        3 => drop(members.remove(at)),
        4 => members.swap(at, other),
        5 => {
            let value = std::mem::replace(&mut members[at].1, Doc::Token("null".into()));
            members[at].1 = std::mem::replace(&mut members[other].1, value);
        }
        6 | 7 => members[at].1 = junk(r, 0),
        8 => members[at].0 = escaped(r, &key),
        9 | 10 => members.insert(place, (r.pick(KEYS).to_string(), junk(r, 0))),
        11 => members[at].0 = r.pick(KEYS).to_string(),
        12 => {
            let value = members[at].1.clone();
            members[at].1 =
                if r.percent(50) { Doc::Array(vec![value]) } else { Doc::Object(vec![(r.pick(KEYS).into(), value)]) };
        }
        _ => members[at].1 = deep(r, members[at].1.clone()),
    }
}

/// The key with one of its letters as an escape.
fn escaped(r: &mut Random, key: &str) -> String {
    let at = r.below(key.len());
    match key.chars().nth(at) {
        Some(c) if c.is_ascii_alphanumeric() && !key.contains('\\') => {
            format!("{}\\u{:04x}{}", &key[..at], c as u32, &key[at + 1..])
        }
        _ => key.to_string(),
    }
}

/// Wrapped many times, now and then too often.
fn deep(r: &mut Random, mut doc: Doc) -> Doc {
    let levels = if r.percent(30) { r.between(120, 132) } else { r.between(2, 9) };
    let object = r.percent(30);
    for _ in 0..levels {
        doc = if object { Doc::Object(vec![("a".into(), doc)]) } else { Doc::Array(vec![doc]) };
    }
    doc
}

/// The document's bytes, in `percent` % of the possible places with white space.
pub(crate) fn write(r: &mut Random, doc: &Doc, percent: usize, out: &mut Vec<u8>) {
    space(r, percent, out);
    match doc {
        Doc::Token(token) => out.extend_from_slice(token.as_bytes()),
        Doc::Object(members) => {
            out.push(b'{');
            for (i, (key, value)) in members.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"," } else { b"" });
                space(r, percent, out);
                out.push(b'"');
                out.extend_from_slice(key.as_bytes());
                out.push(b'"');
                space(r, percent, out);
                out.push(b':');
                write(r, value, percent, out);
            }
            space(r, percent, out);
            out.push(b'}');
        }
        Doc::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"," } else { b"" });
                write(r, item, percent, out);
            }
            space(r, percent, out);
            out.push(b']');
        }
    }
    space(r, percent, out);
}

fn space(r: &mut Random, percent: usize, out: &mut Vec<u8>) {
    if percent > 0 && r.percent(percent) {
        out.push(*r.pick(&[b" ", b"\n", b"\t", b"\r"]).first().unwrap_or(&b' '));
    }
}

/// Damages the bytes once.
pub(crate) fn bytes(r: &mut Random, record: &mut Vec<u8>) {
    let at = r.below(record.len() + 1);
    let to = (at + 1 + r.below(6)).min(record.len());
    match r.below(12) {
        0 => drop(record.drain(at..to)),
        1 => {
            let again = record[at..to].to_vec();
            record.splice(at..at, again);
        }
        2 | 3 => drop(record.splice(at..at, r.pick(PIECES).iter().copied())),
        4 | 5 => drop(record.splice(at..to.min(at + 1), r.pick(PIECES).iter().copied())),
        6 => record.truncate(at),
        7 => {
            if let Some(b) = record.get_mut(at) {
                *b = (r.bits() & 0x7f) as u8;
            }
        }
        8 => {
            if let Some(b) = record.get_mut(at) {
                *b ^= 1 << r.below(8);
            }
        }
        9 => swap_tokens(r, record),
        10 if r.percent(5) => record.resize(record.len().max(r.between(0, 2 * MAX_RECORD as i64) as usize), b' '),
        10 => drop(record.splice(at..to, record.clone().into_iter().skip(r.below(record.len())).take(9))),
        _ if r.percent(10) => *record = r.pick(&["", " \n", "null", "[]", "17", "\"text\"", "{}", "\x0c"]).into(),
        _ => record.insert(at, *r.pick(&[b"\"", b"0", b",", b"}", b"\\"]).first().unwrap_or(&b'"')),
    }
}

/// Swaps the stretches between commas.
fn swap_tokens(r: &mut Random, record: &mut Vec<u8>) {
    let mut parts: Vec<Vec<u8>> = record.split(|b| *b == b',').map(<[u8]>::to_vec).collect();
    let (a, b) = (r.below(parts.len()), r.below(parts.len()));
    parts.swap(a, b);
    *record = parts.join(&b',');
}
