//! Records that are broken on purpose, each in its own way, at the two levels of bad input: such that the whole record
//! must be rejected, and such that one value must become null while the reading lives.
//!
//! They come on top of the good records and take nothing from them: those whose vehicle or values can be read bear
//! vehicle ids of their own (`veh-broken-<kind>`), without driver, trip and fleet.

use super::fleet;

/// What must become of a broken record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The record is rejected.
    Rejected,
    /// The record is rejected if the job has a bound for it: its time is far ahead, so `limits.not_after` or a record
    /// time is needed (Kafka's timestamp will do).
    RejectedByTime,
    /// The value of this signal becomes null; the reading is used.
    Invalid(&'static str),
}

/// One kind of broken record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// A stable word, such as `truncated`.
    pub kind: &'static str,
    pub expect: Expect,
    make: Make,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    /// The good record's first half.
    Half,
    /// These bytes instead of the record.
    Instead(&'static [u8]),
    /// The good record in brackets.
    InArray,
    /// The good record and this.
    Followed(&'static [u8]),
    /// A null value: only in Kafka.
    Tombstone,
    /// More than 1 MiB.
    Huge,
    /// This text for the vehicle's field, the comma included; nothing else changes.
    Vehicle(&'static str),
    /// This text for the time's field, the comma included.
    Time(&'static str),
    /// This text for the value of `speed_kmh`.
    Speed(&'static [u8]),
}

const fn rejected(kind: &'static str, make: Make) -> Broken {
    Broken { kind, expect: Expect::Rejected, make }
}

const fn invalid(kind: &'static str, value: &'static [u8]) -> Broken {
    Broken { kind, expect: Expect::Invalid("speed_kmh"), make: Make::Speed(value) }
}

/// All kinds, in the order in which they come.
pub const KINDS: [Broken; 30] = [
    rejected("truncated", Make::Half),
    invalid("text_for_number", br#""fast""#),
    rejected("not_utf8", Make::Followed(&[b' ', 0xff, 0xfe])),
    rejected("no_vehicle", Make::Vehicle("")),
    invalid("nan_text", br#""NaN""#),
    rejected("no_time", Make::Time("")),
    rejected("empty", Make::Instead(b"")),
    rejected("tombstone", Make::Tombstone),
    invalid("above_range", b"9999.5"),
    rejected("array", Make::InArray),
    rejected("null_vehicle", Make::Vehicle(r#""vehicle_id":null,"#)),
    rejected("vehicle_object", Make::Vehicle(r#""vehicle_id":{"id":7},"#)),
    rejected("vehicle_array", Make::Vehicle(r#""vehicle_id":["veh-000001"],"#)),
    rejected("empty_vehicle", Make::Vehicle(r#""vehicle_id":"","#)),
    invalid("1e400", b"1e400"),
    rejected("null_time", Make::Time(r#""at":null,"#)),
    rejected("unreadable_time", Make::Time(r#""at":"yesterday noon","#)),
    rejected("time_1970", Make::Time(r#""at":"1970-01-01T00:00:07Z","#)),
    Broken { kind: "time_2099", expect: Expect::RejectedByTime, make: Make::Time(r#""at":"2099-12-31T23:59:59Z","#) },
    rejected("time_object", Make::Time(r#""at":{"s":1},"#)),
    invalid("below_range", b"-300"),
    rejected("too_large", Make::Huge),
    rejected("trailing_garbage", Make::Followed(b"}]")),
    rejected("plain_text", Make::Instead(b"connection reset by peer")),
    rejected("bare_nan", Make::Instead(b"NaN")),
    rejected("bare_number", Make::Instead(b"42")),
    invalid("object_for_number", br#"{"value":50.1}"#),
    invalid("array_for_number", b"[50.1]"),
    rejected("html", Make::Instead(b"<html><body><h1>502 Bad Gateway</h1></body></html>")),
    rejected("control_bytes", Make::Instead(&[0x00, 0x01, 0x02, 0x7f, 0x00])),
];

/// The largest record that is accepted by default (DESIGN §5).
const MIB: usize = 1 << 20;
/// Of the kinds that are large only one in this many rounds is made, so that a large share of broken records does not
/// fill the disk.
const HUGE_EVERY: usize = 64;

/// Deals the kinds out in turn.
#[derive(Debug, Default)]
pub(super) struct Deck {
    next: usize,
}

impl Deck {
    /// The next kind.
    pub(super) fn deal(&mut self) -> Broken {
        loop {
            let (round, kind) = (self.next / KINDS.len(), KINDS[self.next % KINDS.len()]);
            self.next += 1;
            if kind.make != Make::Huge || round.is_multiple_of(HUGE_EVERY) {
                return kind;
            }
        }
    }
}

impl Broken {
    /// True for the one that is a null value, which no file can hold.
    pub fn is_tombstone(&self) -> bool {
        self.make == Make::Tombstone
    }

    /// Writes the broken form of `good` (a whole record of the simulator) to `out`, which is cleared.
    pub(super) fn write(&self, good: &[u8], out: &mut Vec<u8>) {
        out.clear();
        match self.make {
            Make::Half => out.extend_from_slice(&good[..good.len() / 2]),
            Make::Instead(bytes) => out.extend_from_slice(bytes),
            Make::InArray => {
                out.push(b'[');
                out.extend_from_slice(good);
                out.push(b']');
            }
            Make::Followed(bytes) => {
                out.extend_from_slice(good);
                out.extend_from_slice(bytes);
            }
            Make::Tombstone => {}
            Make::Huge => {
                out.extend_from_slice(&good[..good.len() - 1]);
                out.extend_from_slice(br#","note":""#);
                out.resize(MIB + 64, b'x');
                out.extend_from_slice(br#""}"#);
            }
            Make::Vehicle(field) => {
                out.push(b'{');
                out.extend_from_slice(field.as_bytes());
                out.extend_from_slice(from(good, br#""at":"#));
            }
            Make::Time(field) => {
                self.head(out);
                out.extend_from_slice(field.as_bytes());
                out.extend_from_slice(from(good, br#""speed_kmh":"#));
            }
            Make::Speed(value) => {
                self.head(out);
                let rest = from(good, br#""at":"#);
                let (time, rest) = rest.split_at(rest.len() - from(rest, br#""speed_kmh":"#).len());
                out.extend_from_slice(time);
                out.extend_from_slice(br#""speed_kmh":"#);
                out.extend_from_slice(value);
                out.extend_from_slice(from(rest, br#","g_force_long""#));
            }
        }
    }

    fn head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"vehicle_id":""#);
        out.extend_from_slice(fleet::BROKEN_VEHICLE.as_bytes());
        out.extend_from_slice(self.kind.as_bytes());
        out.extend_from_slice(br#"","#);
    }
}

/// The record from the first occurrence of `mark` on; empty when there is none.
fn from<'a>(record: &'a [u8], mark: &[u8]) -> &'a [u8] {
    let at = record.windows(mark.len()).position(|w| w == mark).unwrap_or(record.len());
    &record[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const GOOD: &[u8] = br#"{"vehicle_id":"veh-000001","driver_id":"drv-000001","trip_id":"t","fleet_id":"f","at":"2026-05-01T08:00:00.000Z","speed_kmh":50.10,"g_force_long":-0.012,"g_force_lat":0.001}"#;

    /// What is wrong with a record, read by serde_json and independently of the job's decoder; `None`: nothing.
    fn wrong(bytes: &[u8]) -> Option<String> {
        if bytes.len() > MIB {
            return Some("too large".into());
        }
        let text = std::str::from_utf8(bytes).map_err(|e| e.to_string());
        let text = match text {
            Ok(text) => text,
            Err(e) => return Some(e),
        };
        // serde_json reports 1e400 as an error; as a value it is a number, only too large.
        let value: Value = match serde_json::from_str(&text.replace("1e400", "null")) {
            Ok(value) => value,
            Err(e) => return Some(e.to_string()),
        };
        let Value::Object(fields) = value else { return Some("not an object".into()) };
        match fields.get("vehicle_id") {
            Some(Value::String(v)) if !v.is_empty() => {}
            other => return Some(format!("vehicle {other:?}")),
        }
        let Some(Value::String(at)) = fields.get("at") else { return Some("no time".into()) };
        match drivetrain_schemas::time::parse_rfc3339(at) {
            Err(e) => Some(e.to_string()),
            Ok(t) if !(946_684_800_000_000..4_000_000_000_000_000).contains(&t) => Some("implausible".into()),
            Ok(_) => None,
        }
    }

    #[test]
    fn each_kind_is_broken_as_it_says() {
        assert_eq!(wrong(GOOD), None);
        let mut out = Vec::new();
        for kind in KINDS {
            kind.write(GOOD, &mut out);
            assert!(!out.contains(&b'\n'), "{} would be two lines", kind.kind);
            match kind.expect {
                Expect::Rejected | Expect::RejectedByTime => {
                    let wrong = wrong(&out);
                    assert!(wrong.is_some(), "{} is a good record: {}", kind.kind, String::from_utf8_lossy(&out));
                }
                Expect::Invalid(signal) => {
                    assert_eq!(wrong(&out), None, "{}", kind.kind);
                    let value: Value = serde_json::from_slice(&out).unwrap_or(Value::Null);
                    let ok = value[signal].as_f64().is_some_and(|v| (0.0..=400.0).contains(&v));
                    assert!(!ok, "{}: {value}", kind.kind);
                    assert!(out.windows(14).any(|w| w == br#""g_force_long""#), "the rest of the reading is there");
                }
            }
        }
    }

    #[test]
    fn the_deck_deals_all_kinds_and_few_huge_ones() {
        let mut deck = Deck::default();
        let dealt: Vec<_> = (0..KINDS.len() * 10).map(|_| deck.deal().kind).collect();
        for kind in KINDS {
            assert!(dealt.contains(&kind.kind), "{}", kind.kind);
        }
        assert_eq!(dealt.iter().filter(|k| **k == "too_large").count(), 1);
    }
}
