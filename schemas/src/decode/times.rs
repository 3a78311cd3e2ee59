//! How a mapped time is read.

use super::path::Where;
use super::view::{Raw, View};
use super::{Flaw, MappingError};
use crate::fixed::{Decimal, NumberError};
use crate::mapping::TimeFormat;
use crate::time::{self, RecentTime, Strptime};
use jiff::tz::TimeZone;

#[derive(Clone, Debug)]
enum Format {
    /// RFC 3339; a number is Unix seconds.
    Auto,
    Rfc3339,
    /// Unix time with this many decimals in its unit to the second: 0, 3, 6 or 9.
    Unix(u32),
    Strptime(Strptime),
    Steps {
        base: i64,
        step: i64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct TimeRule {
    pub(crate) place: Where,
    /// As configured, for messages.
    pub(crate) name: String,
    format: Format,
    zone: Option<TimeZone>,
    recent: RecentTime,
}

impl TimeRule {
    /// A time whose format is recognised.
    pub(crate) fn auto(place: Where, name: &str) -> Self {
        TimeRule { place, name: name.to_string(), format: Format::Auto, zone: None, recent: RecentTime::default() }
    }

    /// # Errors
    /// [`MappingError`] at `field`, the configuration's name of this time.
    pub(crate) fn new(place: Where, config: &TimeFormat, field: &str) -> Result<Self, MappingError> {
        let wrong = |part: &str, problem: String| MappingError::new(format!("{field}.{part}"), problem);
        let zone = config.zone.as_deref().map(time::zone).transpose().map_err(|e| wrong("zone", e))?;
        let format = match (&config.base, &config.step, config.format.as_deref()) {
            (None, None, None) => Format::Auto,
            (None, None, Some("rfc3339")) => Format::Rfc3339,
            (None, None, Some("unix_s")) => Format::Unix(0),
            (None, None, Some("unix_ms")) => Format::Unix(3),
            (None, None, Some("unix_us")) => Format::Unix(6),
            (None, None, Some("unix_ns")) => Format::Unix(9),
            (None, None, Some(pattern)) if pattern.contains('%') => {
                Format::Strptime(Strptime::new(pattern, zone.clone()).map_err(|e| wrong("format", e))?)
            }
            (None, None, Some(other)) => {
                let known = "rfc3339, unix_s, unix_ms, unix_us, unix_ns and strptime patterns, which contain %";
                return Err(wrong("format", format!("{other:?} is unknown; known are {known}")));
            }
            (Some(base), Some(step), None) => Format::Steps {
                base: time::parse_rfc3339(base).map_err(|e| wrong("base", e.to_string()))?,
                step: time::parse_duration(step).map_err(|e| wrong("step", e.to_string()))?,
            },
            (Some(_), Some(_), Some(_)) => {
                return Err(wrong("format", "base and step make the time; leave format out".into()));
            }
            _ => return Err(wrong("base", "base and step go together: time = base + step × column".into())),
        };
        Ok(TimeRule { place, name: config.field.clone(), format, zone, recent: RecentTime::default() })
    }

    /// Whether the time comes out of the record itself, and not from Kafka or the configuration.
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self.place, Where::Timestamp | Where::Const(_))
    }

    /// The time in µs; None when it is missing or null.
    ///
    /// # Errors
    /// `bad_time`, or `time_implausible` when it is out of the calendar.
    #[inline]
    pub(crate) fn read<'a>(&'a self, view: &View<'a>) -> Result<Option<i64>, Flaw> {
        let raw = view.raw(&self.place);
        let parsed = match &raw {
            Raw::Missing | Raw::Null => return Ok(None),
            Raw::Micros(t) => Some(*t),
            Raw::LocalMicros(t) => match &self.zone {
                Some(zone) => time::from_local(*t, zone),
                None => Some(*t),
            },
            Raw::Number(text) => self.number(text),
            Raw::Text(text) => self.text(text),
            Raw::Cell(text) => self.text(text),
            Raw::Bool(_) | Raw::Container(_) => None,
        };
        match parsed {
            Some(t) if (time::MIN..=time::MAX).contains(&t) => Ok(Some(t)),
            Some(_) => Err(Flaw::new("time_implausible", || {
                let hint = "beyond the year 9999: is its format unix_ms, unix_us or unix_ns?";
                format!("{}: {} is {hint}", self.name, raw.show())
            })),
            None => Err(Flaw::new("bad_time", || format!("{}: {} is not {}", self.name, raw.show(), self.expected()))),
        }
    }

    /// The time of a plain text of the most common form. None: take the long way.
    #[inline]
    pub(crate) fn of_text(&self, text: &[u8]) -> Option<i64> {
        matches!(self.format, Format::Auto | Format::Rfc3339).then(|| self.recent.utc(text))?
    }

    fn expected(&self) -> String {
        match &self.format {
            Format::Auto if self.zone.is_none() => {
                "a time such as 2026-05-01T12:00:00Z or Unix seconds; other forms need a format, and times without an \
                 offset a zone"
                    .into()
            }
            Format::Auto => "a time such as 2026-05-01T12:00:00Z or Unix seconds; other forms need a format".into(),
            Format::Rfc3339 if self.zone.is_none() => {
                "a time such as 2026-05-01T12:00:00Z; times without an offset need a zone".into()
            }
            Format::Rfc3339 => "a time such as 2026-05-01T12:00:00".into(),
            Format::Unix(_) => "a number as the format says".into(),
            Format::Strptime(_) => "a time as the format says".into(),
            Format::Steps { .. } => "a number of steps".into(),
        }
    }

    /// A number out of the calendar comes out as one (`i64::MAX`), so that it is told from a text that is no time.
    fn number(&self, text: &str) -> Option<i64> {
        let decimal = |text: &str| Decimal::parse(text.as_bytes()).ok();
        let beyond = |r: Result<i64, NumberError>| match r {
            Err(NumberError::Overflow) => Some(i64::MAX),
            other => other.ok(),
        };
        match &self.format {
            Format::Auto => beyond(decimal(text)?.floor(6)),
            Format::Unix(scale) => {
                let mut d = decimal(text)?;
                d.exponent = d.exponent.saturating_sub(*scale as i32);
                beyond(d.floor(6))
            }
            Format::Steps { base, step } => {
                let fine = crate::fixed::parse_decimal(text.as_bytes(), 6).ok()?;
                let micros = crate::fixed::div_round(i128::from(fine) * i128::from(*step), 1_000_000);
                Some(i64::try_from(micros + i128::from(*base)).unwrap_or(i64::MAX))
            }
            // A pattern may read bare digits, such as %Y%m%d%H%M%S.
            Format::Strptime(pattern) => pattern.parse(text).ok(),
            Format::Rfc3339 => None,
        }
    }

    #[inline]
    fn rfc3339(&self, text: &str) -> Option<i64> {
        self.recent.utc(text.as_bytes()).or_else(|| time::parse_rfc3339_in(text, self.zone.as_ref()).ok())
    }

    #[inline]
    fn text(&self, text: &str) -> Option<i64> {
        let text = text.trim_ascii();
        match &self.format {
            Format::Auto => match self.rfc3339(text) {
                None => self.number(text),
                found => found,
            },
            Format::Rfc3339 => self.rfc3339(text),
            _ => self.number(text),
        }
    }
}
