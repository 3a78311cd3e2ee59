//! How event times are read, by jiff's calendar.

use super::number::{Line, Number, Rounding};
use super::place::{Place, Raw};
use drivetrain_schemas::mapping::{TimeField, TimeFormat};
use drivetrain_schemas::time::{self, Strptime};
use jiff::civil::Date;
use jiff::tz::TimeZone;

#[derive(Clone, Debug)]
enum Format {
    Auto,
    Rfc3339,
    /// The decimals of its unit to the second.
    Unix(u32),
    Pattern(Strptime),
    /// base and step in µs
    Steps(i64, i64),
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) place: Place,
    format: Format,
    zone: Option<TimeZone>,
}

impl Rule {
    /// The mapping is one that the decoder takes, else None.
    pub(crate) fn new(config: &TimeField) -> Option<Rule> {
        let config = match config {
            TimeField::Path(field) => &TimeFormat { field: field.clone(), ..TimeFormat::default() },
            TimeField::Full(format) => format,
        };
        let zone = match &config.zone {
            Some(name) => Some(TimeZone::get(name).ok()?),
            None => None,
        };
        let format = match (&config.base, &config.step, config.format.as_deref()) {
            (Some(base), Some(step), _) => Format::Steps(rfc3339(base, None)?, time::parse_duration(step).ok()?),
            (_, _, None) => Format::Auto,
            (_, _, Some("rfc3339")) => Format::Rfc3339,
            (_, _, Some("unix_s")) => Format::Unix(0),
            (_, _, Some("unix_ms")) => Format::Unix(3),
            (_, _, Some("unix_us")) => Format::Unix(6),
            (_, _, Some("unix_ns")) => Format::Unix(9),
            (_, _, Some(pattern)) => Format::Pattern(Strptime::new(pattern, zone.clone()).ok()?),
        };
        Some(Rule { place: Place::parse(&config.field)?, format, zone })
    }

    /// The time in µs; None where there is none.
    ///
    /// # Errors
    /// The reason for which the record is rejected.
    pub(crate) fn read(&self, raw: &Raw<'_>) -> Result<Option<i64>, &'static str> {
        let read = match raw {
            Raw::Missing | Raw::Null => return Ok(None),
            Raw::Micros(t) => Some(*t),
            Raw::Number(text) => self.number(text),
            Raw::Text(text) => self.text(text.trim_ascii()),
            Raw::Cell(text) => self.text(text.trim_ascii()),
            Raw::Bool(_) | Raw::Container => None,
        };
        match read {
            None => Err("bad_time"),
            Some(t) if !(time::MIN..=time::MAX).contains(&t) => Err("time_implausible"),
            Some(t) => Ok(Some(t)),
        }
    }

    fn text(&self, text: &str) -> Option<i64> {
        match &self.format {
            Format::Rfc3339 => rfc3339(text, self.zone.as_ref()),
            Format::Auto => rfc3339(text, self.zone.as_ref()).or_else(|| self.number(text)),
            _ => self.number(text),
        }
    }

    /// A number out of the calendar is `i64::MAX`.
    fn number(&self, text: &str) -> Option<i64> {
        let unix = |decimals| {
            let seconds = Number::parse(text)?.moved(decimals);
            Some(seconds.fixed(Line::IDENTITY, 6, Rounding::Down).unwrap_or(i64::MAX))
        };
        match &self.format {
            Format::Rfc3339 => None,
            Format::Auto => unix(0),
            Format::Unix(decimals) => unix(*decimals),
            Format::Pattern(pattern) => pattern.parse(text).ok(),
            Format::Steps(base, step) => {
                // Steps are counted in millionths.
                let steps = Number::parse(text)?.fixed(Line::IDENTITY, 6, Rounding::HalfEven)?;
                let micros = Number::parse(&(i128::from(steps) * i128::from(*step)).to_string())?.moved(6);
                let micros = micros.fixed(Line::IDENTITY, 0, Rounding::HalfEven);
                Some(micros.and_then(|m| m.checked_add(*base)).unwrap_or(i64::MAX))
            }
        }
    }
}

/// `2026-05-01T12:00:00.25+02:00`: also with `t` or a space, `z`, an offset without its colon or minutes, or none.
pub(crate) fn rfc3339(text: &str, zone: Option<&TimeZone>) -> Option<i64> {
    let digits = |from: usize, to: usize| {
        let part = text.get(from..to).filter(|p| p.bytes().all(|b| b.is_ascii_digit()))?;
        part.parse::<i16>().ok()
    };
    let marks: String = [4, 7, 13, 16].iter().map(|i| text.as_bytes().get(*i).map_or(' ', |b| *b as char)).collect();
    if marks != "--::" || !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let date = Date::new(digits(0, 4)?, digits(5, 7)? as i8, digits(8, 10)? as i8).ok()?;
    let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, rest) = match rest.strip_prefix('.') {
        None => (String::new(), rest),
        Some(more) => {
            let end = more.find(|c: char| !c.is_ascii_digit()).unwrap_or(more.len());
            (more.get(..end).filter(|f| !f.is_empty())?.to_string(), &more[end..])
        }
    };
    let micros: i32 = format!("{fraction}000000").get(..6)?.parse().ok()?;
    let civil = date.at(hour as i8, minute as i8, second.min(59) as i8, micros * 1000);
    let at = match (offset(rest)?, zone) {
        (Some(offset), _) => civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_microsecond() - offset,
        (None, zone) => zone?.to_timestamp(civil).ok()?.as_microsecond(),
    };
    (time::MIN..=time::MAX).contains(&at).then_some(at)
}

/// µs; Some(None) where there is nothing.
fn offset(text: &str) -> Option<Option<i64>> {
    let (minus, digits) = match text {
        "" => return Some(None),
        "Z" | "z" => return Some(Some(0)),
        _ => match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+')?),
        },
    };
    let digits = match digits.len() {
        5 if digits.as_bytes()[2] == b':' => digits.replacen(':', "", 1),
        4 => digits.to_string(),
        2 => format!("{digits}00"),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    let micros = (hours * 60 + minutes) * 60_000_000;
    (hours < 24 && minutes < 60).then_some(Some(if minus { -micros } else { micros }))
}
