//! How the value of a mapped signal is read: type, sentinels, unit, range.

use super::MappingError;
use super::frame::Slot;
use super::path::Where;
use super::view::{Raw, clip};
use crate::catalogue::{Signal, SignalType};
use crate::fixed::{self, Decimal, NumberError};
use crate::mapping::{Number, SignalField, UnitField};
use crate::unit::{Affine, Unit, unknown_unit};
use std::borrow::Cow;

/// What a raw value came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<'a> {
    /// Not there: not known, and not invalid.
    Null,
    Invalid,
    Value(i64),
    Text(Cow<'a, str>),
}

#[derive(Clone, Debug)]
struct Sentinel {
    number: Option<Decimal>,
    text: String,
}

#[derive(Clone, Debug)]
enum Conversion {
    /// The record's unit is the catalogue's.
    None,
    Always(Affine),
    /// By event time: `until` (exclusive, µs), ascending; the last one is `i64::MAX`.
    ByTime(Vec<(i64, Affine)>),
}

#[derive(Clone, Debug)]
pub(crate) struct SignalRule {
    /// Index in the catalogue.
    pub(crate) signal: u16,
    pub(crate) place: Where,
    kind: SignalType,
    decimals: u32,
    min: i64,
    max: i64,
    sentinels: Vec<Sentinel>,
    conversion: Conversion,
}

impl SignalRule {
    /// # Errors
    /// [`MappingError`] at a field below `at`, the configuration's name of this signal.
    pub(crate) fn new(
        signal: u16,
        place: Where,
        declared: &Signal,
        config: &SignalField,
        at: &str,
    ) -> Result<Self, MappingError> {
        if declared.kind != SignalType::Number
            && (config.unit.is_some() || config.scale.is_some() || config.offset.is_some())
        {
            let problem = "only numbers have unit, scale and offset; leave them out";
            return Err(MappingError::new(at.to_string(), problem.to_string()));
        }
        Ok(SignalRule {
            signal,
            place,
            kind: declared.kind,
            decimals: declared.decimals,
            min: declared.min,
            max: declared.max,
            sentinels: config.sentinels.iter().map(sentinel).collect(),
            conversion: conversion(declared, config, at)?,
        })
    }

    /// Interprets a value; `at` is the reading's event time.
    #[inline]
    pub(crate) fn read<'a>(&self, raw: Raw<'a>, at: i64) -> Outcome<'a> {
        match (&raw, self.kind) {
            (Raw::Missing | Raw::Null, _) => Outcome::Null,
            (Raw::Number(text), SignalType::Number) => self.number(text, at),
            (Raw::Text(text), SignalType::Number) => self.number(text, at),
            (Raw::Cell(text), SignalType::Number) => self.number(text, at),
            (_, SignalType::Number) => Outcome::Invalid,
            (_, SignalType::Bool) => self.bool(&raw),
            (_, SignalType::Text) => self.text(raw),
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        self.kind == SignalType::Text
    }

    #[inline]
    pub(crate) fn is_number(&self) -> bool {
        self.kind == SignalType::Number
    }

    /// A number of JSON, where it stands in its record.
    #[inline]
    pub(crate) fn json_number<'a>(&self, data: &str, slot: Slot, at: i64) -> Outcome<'a> {
        if !self.is_plain() {
            return self.converted(slot.text(data), at);
        }
        let (start, end) = (slot.start(), slot.end());
        self.judged(fixed::parse_decimal_in(data.as_bytes(), start, end, self.decimals))
    }

    /// A number by its text.
    fn number<'a>(&self, text: &str, at: i64) -> Outcome<'a> {
        let text = text.trim_ascii();
        if self.is_plain() {
            self.judged(fixed::parse_decimal(text.as_bytes(), self.decimals))
        } else {
            self.converted(text, at)
        }
    }

    /// Where nothing but the digits decides what a JSON number means: the decimals that it is read at.
    pub(crate) fn plain_decimals(&self) -> Option<u32> {
        (self.is_number() && self.is_plain()).then_some(self.decimals)
    }

    /// Values are taken as they are sent.
    fn is_plain(&self) -> bool {
        matches!(self.conversion, Conversion::None) && self.sentinels.is_empty()
    }

    /// One that may be a sentinel, or has another unit.
    fn converted<'a>(&self, text: &str, at: i64) -> Outcome<'a> {
        if self.is_sentinel(text) {
            return Outcome::Invalid;
        }
        let by = |affine: &Affine| Decimal::parse(text.as_bytes()).and_then(|d| affine.apply(&d));
        let value = match &self.conversion {
            Conversion::None => fixed::parse_decimal(text.as_bytes(), self.decimals),
            Conversion::Always(affine) => by(affine),
            Conversion::ByTime(intervals) => match intervals.iter().find(|(until, _)| at < *until) {
                Some((_, affine)) => by(affine),
                None => return Outcome::Invalid,
            },
        };
        self.judged(value)
    }

    /// Within the signal's range?
    #[inline]
    pub(crate) fn judged<'a>(&self, value: Result<i64, NumberError>) -> Outcome<'a> {
        match value {
            Ok(v) if (self.min..=self.max).contains(&v) => Outcome::Value(v),
            _ => Outcome::Invalid,
        }
    }

    fn bool<'a>(&self, raw: &Raw<'a>) -> Outcome<'a> {
        let text = match raw {
            Raw::Bool(b) => return Outcome::Value(i64::from(*b)),
            Raw::Number(text) | Raw::Cell(text) => text,
            Raw::Text(text) => text.as_ref(),
            _ => return Outcome::Invalid,
        };
        let text = text.trim_ascii();
        if self.is_sentinel(text) {
            return Outcome::Invalid;
        }
        if text.eq_ignore_ascii_case("true") {
            return Outcome::Value(1);
        }
        if text.eq_ignore_ascii_case("false") {
            return Outcome::Value(0);
        }
        match Decimal::parse(text.as_bytes()).map(Decimal::normalized) {
            Ok(Decimal { digits: 0, .. }) => Outcome::Value(0),
            Ok(Decimal { digits: 1, exponent: 0, negative: false, sticky: false }) => Outcome::Value(1),
            _ => Outcome::Invalid,
        }
    }

    fn text<'a>(&self, raw: Raw<'a>) -> Outcome<'a> {
        let text = match raw {
            Raw::Text(text) => text,
            Raw::Number(text) | Raw::Cell(text) => Cow::Borrowed(text),
            Raw::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
            Raw::Micros(t) | Raw::LocalMicros(t) => Cow::Owned(crate::time::format_rfc3339(t)),
            Raw::Missing | Raw::Null => return Outcome::Null,
            Raw::Container(_) => return Outcome::Invalid,
        };
        if text.is_empty() {
            Outcome::Null
        } else if self.sentinels.iter().any(|s| s.text == *text) {
            Outcome::Invalid
        } else {
            Outcome::Text(text)
        }
    }

    fn is_sentinel(&self, text: &str) -> bool {
        if self.sentinels.is_empty() {
            return false;
        }
        let number = Decimal::parse(text.as_bytes()).map(Decimal::normalized).ok();
        self.sentinels.iter().any(|s| if s.number.is_some() { s.number == number } else { s.text == text })
    }
}

fn number_text(n: &Number) -> String {
    match n {
        Number::Int(v) => v.to_string(),
        // The shortest text of a double is the number as it was written, up to 15 digits.
        Number::Float(v) => v.to_string(),
        Number::Text(v) => v.clone(),
    }
}

fn sentinel(n: &Number) -> Sentinel {
    let text = number_text(n);
    Sentinel { number: Decimal::parse(text.trim_ascii().as_bytes()).map(Decimal::normalized).ok(), text }
}

fn decimal(n: Option<&Number>, default: &str, field: String) -> Result<Decimal, MappingError> {
    let text = n.map_or_else(|| default.to_string(), number_text);
    Decimal::parse(text.trim_ascii().as_bytes())
        .map(Decimal::normalized)
        .map_err(|e| MappingError::new(field, format!("{:?}: {e}; give a number such as 0.1", clip(&text))))
}

fn conversion(declared: &Signal, config: &SignalField, at: &str) -> Result<Conversion, MappingError> {
    let scale = decimal(config.scale.as_ref(), "1", format!("{at}.scale"))?;
    let offset = decimal(config.offset.as_ref(), "0", format!("{at}.offset"))?;
    let field = || format!("{at}.unit");
    let parse = |name: &str| Unit::parse(name).ok_or_else(|| MappingError::new(field(), unknown_unit(name)));
    let affine = |name: Option<&str>| -> Result<Affine, MappingError> {
        let to = declared.unit.as_deref().map(parse).transpose()?;
        let from = match (name.map(parse).transpose()?, to) {
            (Some(_), None) => {
                let problem = format!("the catalogue gives {} no unit; add signals.{0}.unit there", declared.name);
                return Err(MappingError::new(field(), problem));
            }
            (from, to) => from.or(to),
        };
        let plain = Unit { name: "1", dimension: "count", num: 1, den: 1, offset_num: 0, offset_den: 1 };
        Affine::new(&scale, &offset, &from.unwrap_or(plain), &to.unwrap_or(plain), declared.decimals)
            .map_err(|e| MappingError::new(field(), e.to_string()))
    };
    let by_time = match &config.unit {
        None => return Ok(simplest(affine(None)?, declared.decimals)),
        Some(UnitField::One(name)) => return Ok(simplest(affine(Some(name))?, declared.decimals)),
        Some(UnitField::ByTime(intervals)) => intervals,
    };
    let mut out = Vec::new();
    for (i, interval) in by_time.iter().enumerate() {
        let until = match &interval.until {
            Some(text) => crate::time::parse_rfc3339(text).map_err(|e| MappingError::new(field(), e.to_string()))?,
            None => i64::MAX,
        };
        let last = i + 1 == by_time.len();
        let ascending = out.last().is_none_or(|(before, _)| *before < until);
        if last != interval.until.is_none() || !ascending {
            let problem = "intervals need `until` in ascending order, and the last one none";
            return Err(MappingError::new(field(), problem.into()));
        }
        out.push((until, affine(Some(&interval.unit))?));
    }
    if out.is_empty() {
        return Err(MappingError::new(field(), "the list is empty; name a unit or leave it out".into()));
    }
    Ok(Conversion::ByTime(out))
}

fn simplest(affine: Affine, decimals: u32) -> Conversion {
    if affine.is_identity(decimals) { Conversion::None } else { Conversion::Always(affine) }
}
