//! Records as sources write them: mostly plausible, with the odd value now and then.

use crate::random::Random;
use crate::reference::place::{self, Step};
use crate::scenarios::{MAX_ELEMENTS, Scenario, What};
use drivetrain_schemas::time::format_rfc3339;

/// A document to be written. Tokens and keys (without their quotes) are as they will stand in the record.
#[derive(Clone, Debug)]
pub(crate) enum Doc {
    Token(String),
    Object(Vec<(String, Doc)>),
    Array(Vec<Doc>),
}

/// 2026-05-01T00:00:00Z, µs: the first of the two days of all records.
pub(crate) const DAY: i64 = 1_777_593_600_000_000;

const SENSORS: &[&str] = &["speed_kmh", "t_f", "temp", "fuel_level", "ignition", "gear", "latitude", "mood", "heading"];
const TEXTS: &[&str] = &["D", "N", "R", "", "?", "n/a", "7", " x ", "Zürich", "\u{1F69A}", "a/b", "true", "[1]", "{"];
/// Pieces of strings as JSON writes them.
const ESCAPES: &[&str] =
    &["\\n", "\\\"", "\\\\", "\\/", "\\u00e9", "\\u0041", "\\ud83d\\ude9a", "\\b", "\\f", "\\u001f", "é", "\\u0000"];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "0e5",
    "0.0000005",
    "0.0000015",
    "-0.0000025",
    "2.5",
    "1e2",
    "1E+2",
    "12e-1",
    "1e400",
    "-1e400",
    "1e-400",
    "1e999999999999",
    "5e-1000000",
    "113.9952",
    "113.99520000",
    "1139952e-4",
    "65535",
    "65535.0",
    "7",
    "2",
    "255",
    "400",
    "400.0000005",
    "400.00000049999",
    "90.00000005",
    "90.000000051",
    "-90",
    "1000000000",
    "1000000000.0000000005",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890123456789",
    "0.000000000000000000000000000000000000000000000000000000000001",
    "3.14159265358979323846264338327950288419716939937510",
    "50.12345650000000000000000000000000000000000000000001",
    "99999999999999999999e-18",
    "0.1e1",
    "100000000000000000000e-20",
    "1.00",
    "1777636800",
    "1777636800000",
];

/// One record of a source; `shape` says in which order its fields stand.
pub(crate) fn record(r: &mut Random, scenario: &Scenario, shape: u64) -> Doc {
    let mut doc = Doc::Object(Vec::new());
    fill(r, &mut doc, scenario.fields);
    if let Some((path, fields)) = scenario.elements {
        let usual = r.between(1, 3) as usize;
        let count = if r.percent(1) { r.below(MAX_ELEMENTS + 3) } else { usual };
        let elements = (0..count).map(|_| {
            let mut element = Doc::Object(Vec::new());
            fill(r, &mut element, fields);
            element
        });
        let elements = Doc::Array(elements.collect());
        put(&mut doc, &place::steps(path).unwrap_or_default(), elements);
    }
    if !shape.is_multiple_of(3) {
        shuffle(&mut doc, &mut Random::new(shape));
    }
    doc
}

fn fill(r: &mut Random, doc: &mut Doc, fields: &[(&str, What)]) {
    for (path, what) in fields {
        let vital = matches!(what, What::Vehicle | What::Time | What::Local | What::Unix(_) | What::Pattern);
        if !r.percent(if vital { 1 } else { 12 }) {
            put(doc, &place::steps(path).unwrap_or_default(), Doc::Token(token(r, *what)));
        }
    }
}

/// Sets the value at a path, and makes whatever lacks on the way.
fn put(doc: &mut Doc, path: &[Step], value: Doc) {
    let Some((step, rest)) = path.split_first() else {
        *doc = value;
        return;
    };
    match (step, doc) {
        (Step::Key(key), Doc::Object(members)) => {
            let at = members.iter().position(|(k, _)| k == key).unwrap_or(members.len());
            if at == members.len() {
                members.push((key.clone(), empty(rest)));
            }
            put(&mut members[at].1, rest, value);
        }
        (Step::Index(i), Doc::Array(items)) => {
            while items.len() <= *i {
                items.push(empty(rest));
            }
            put(&mut items[*i], rest, value);
        }
        _ => {}
    }
}

fn empty(rest: &[Step]) -> Doc {
    match rest.first() {
        Some(Step::Key(_)) => Doc::Object(Vec::new()),
        Some(Step::Index(_)) => Doc::Array(Vec::new()),
        None => Doc::Token("null".into()),
    }
}

fn shuffle(doc: &mut Doc, r: &mut Random) {
    match doc {
        Doc::Object(members) => {
            for i in (1..members.len()).rev() {
                members.swap(i, r.below(i + 1));
            }
            members.iter_mut().for_each(|(_, value)| shuffle(value, r));
        }
        Doc::Array(items) => items.iter_mut().for_each(|item| shuffle(item, &mut r.clone())),
        Doc::Token(_) => {}
    }
}

fn token(r: &mut Random, what: What) -> String {
    if r.percent(2) {
        return odd(r);
    }
    match what {
        What::Vehicle if r.percent(2) => format!("\"{}\"", "v".repeat(r.between(255, 258) as usize)),
        What::Vehicle if r.percent(2) => r.pick(&["\"\"", "null", "17", "1.50", "\"a\\u002fb\"", "{}", "true"]).into(),
        What::Vehicle => format!("\"vehicle-{:05}\"", r.below(60)),
        What::Id if r.percent(80) => format!("\"{}{}\"", r.pick(&["d", "trip-", "north/"]), r.below(4)),
        What::Id => r.pick(&["\"\"", "null", "7", "-1e3", "\"\\u00e9\"", "[]", "false"]).into(),
        What::Number(low, high, decimals) => number(r, low, high, decimals),
        What::Bool => r.pick(&["true", "false", "1", "0", "\"True\"", "\" FALSE\"", "1.0", "0e9", "2", "10e-1"]).into(),
        What::Text => text(r),
        What::Sensor if r.percent(95) => format!("\"{}\"", r.pick(SENSORS)),
        What::Sensor => r.pick(&["\"\"", "null", "7", "{}", "\"speed\\u005fkmh\"", "true"]).into(),
        What::Value => match r.below(4) {
            0 => text(r),
            1 => r.pick(&["true", "false", "null"]).into(),
            _ => number(r, -100, 50_000, 2),
        },
        time => moment(r, time),
    }
}

/// A string with its quotes.
pub(crate) fn text(r: &mut Random) -> String {
    let mut out = r.pick(TEXTS).to_string();
    while r.percent(20) {
        out += r.pick(ESCAPES);
    }
    format!("\"{out}\"")
}

fn number(r: &mut Random, low: i64, high: i64, decimals: u32) -> String {
    let value = drivetrain_schemas::fixed::format(i128::from(r.between(low, high)), decimals);
    match r.below(100) {
        0..=5 => r.pick(NUMBERS).into(),
        6..=8 => format!("\"{value}\""),
        9 => format!("\"{}{value}{}\"", r.pick(&["", " ", "+", "00", "\\t"]), r.pick(&["", ".", " ", "e0", "x"])),
        10 => format!("{value}e{}", r.between(-3, 3)),
        11 if decimals > 0 => format!("{value}{}", r.bits()),
        _ => value,
    }
}

fn moment(r: &mut Random, what: What) -> String {
    let mut at = DAY + r.between(0, 2 * 86_400_000 - 1) * 1_000;
    if matches!(what, What::Sent | What::SentUnix(_)) && !r.percent(5) {
        at += 2 * 86_400_000_000;
    }
    match r.below(200) {
        0 => at = r.between(-70_000_000, 260_000_000) * 1_000_000_000,
        1 => at += r.between(1, 30) * 86_400_000_000,
        2..=40 => at += r.between(0, 999),
        _ => {}
    }
    let utc = format_rfc3339(at);
    match what {
        What::Unix(decimals) | What::SentUnix(decimals) => {
            let unix = drivetrain_schemas::fixed::format(i128::from(at), 6 - decimals.min(6));
            let whole = unix.split('.').next().unwrap_or_default().to_string();
            match r.below(10) {
                0 => format!("\"{unix}\""),
                1 => format!("{unix}{}", if unix.contains('.') { "999" } else { ".75" }),
                2..=5 => unix,
                _ => whole,
            }
        }
        What::Steps => drivetrain_schemas::fixed::format(i128::from((at - DAY) / 36_000_000), 2),
        What::Pattern => {
            let part = |from, to| utc.get(from..to).unwrap_or("??").to_string();
            format!("\"{}/{}/{} {}\"", part(8, 10), part(5, 7), part(0, 4), part(11, 19))
        }
        What::Local if r.percent(70) => format!("\"{}\"", utc.trim_end_matches('Z')),
        _ => format!("\"{}\"", rfc3339(r, &utc)),
    }
}

/// The same time, or one near to it, in another form.
fn rfc3339(r: &mut Random, utc: &str) -> String {
    let bare = utc.trim_end_matches('Z');
    let head = bare.get(..19).unwrap_or(bare);
    match r.below(30) {
        0 => format!("{head}.{}Z", r.bits()),
        1 => format!("{head}{}", r.pick(&["+02:00", "-0630", "+01", "-00:00", "+24:00", "+1", "", "Z ", "+02:60"])),
        2 => utc.replace('T', r.pick(&["t", " ", "_"])).replace('Z', "z"),
        3 => format!("{}:60Z", head.get(..16).unwrap_or(head)),
        4 => format!("{}-02-29T00:00:00Z", r.between(2000, 2030)),
        5 => format!("{head}.Z"),
        6 => utc.replacen(r.pick(&["0", "1", "2", "5"]), r.pick(&["9", "0", ":", "\\u0031"]), 1),
        7..=9 => format!("{bare}000Z"),
        _ => utc.to_string(),
    }
}

/// What one does not expect.
fn odd(r: &mut Random) -> String {
    match r.below(6) {
        0 => "null".into(),
        1 => r.pick(NUMBERS).into(),
        2 => format!("\"{}\"", r.pick(NUMBERS)),
        3 => text(r),
        4 => r
            .pick(&["true", "false", "{}", "[]", "[1,2]", "{\"a\":{\"b\":[]}}", "\"NaN\"", "\"inf\"", "\"1_0\""])
            .into(),
        _ => format!("\"{}\"", "long ".repeat(r.below(80))),
    }
}

/// Any value, also a container.
pub(crate) fn junk(r: &mut Random, depth: usize) -> Doc {
    let keys = ["a", "id", "at", "lat", "é", "a.b", "", "speed_kmh", "gps", "value", "\\u0061", "key with spaces"];
    match r.below(if depth > 3 { 8 } else { 10 }) {
        0..=7 => Doc::Token(odd(r)),
        8 => Doc::Object((0..r.below(4)).map(|_| (r.pick(&keys).to_string(), junk(r, depth + 1))).collect()),
        _ => Doc::Array((0..r.below(4)).map(|_| junk(r, depth + 1)).collect()),
    }
}
