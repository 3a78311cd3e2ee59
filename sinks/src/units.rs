//! Sizes and durations in a configuration, as a person writes them: `"128MB"`, `"60s"`.

use drivetrain_schemas::time::parse_duration;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes: `"128MB"`, `"64MiB"`, `"4096"`. KB, MB and GB are powers of 1000, KiB, MiB and GiB of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time, µs: `"20ms"`, `"60s"`, `"2m"`, `"25h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub i64);

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl ByteSize {
    /// Parses a size; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..split].parse().ok()?;
        let unit = text[split..].trim();
        let factor = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1;
        number.checked_mul(factor).map(ByteSize)
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let exact = UNITS.iter().filter(|(_, factor)| self.0.is_multiple_of(*factor) && self.0 >= *factor);
        let (name, factor) = exact.max_by_key(|(_, factor)| *factor).unwrap_or(&UNITS[0]);
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        ByteSize::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is not a size such as \"128MB\" or \"64MiB\"")))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl Span {
    /// As the standard library's duration; negative ones are zero.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(&str, i64); 5] =
            [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
        let exact = UNITS.iter().find(|(_, factor)| self.0 % factor == 0 && self.0 >= *factor);
        let (name, factor) = exact.unwrap_or(&("us", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        parse_duration(&text).map(Span).map_err(D::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, printed) in [
            ("128MB", 128_000_000, "128MB"),
            ("64 MiB", 64 << 20, "64MiB"),
            ("4096", 4096, "4KiB"),
            ("1gb", 1_000_000_000, "1GB"),
            ("0", 0, "0"),
        ] {
            assert_eq!(ByteSize::parse(text), Some(ByteSize(bytes)), "{text}");
            assert_eq!(ByteSize(bytes).to_string(), printed);
        }
        for text in ["", "MB", "-1MB", "1XB", "99999999999GB"] {
            assert_eq!(ByteSize::parse(text), None, "{text}");
        }
    }

    #[test]
    fn spans() {
        let span: Span = serde_json::from_str("\"60s\"").unwrap();
        assert_eq!((span, span.to_string().as_str()), (Span(60_000_000), "1m"));
        assert!(serde_json::from_str::<Span>("\"soon\"").unwrap_err().to_string().contains("not a duration"));
    }
}
