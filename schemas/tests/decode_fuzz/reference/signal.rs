//! How the value of a signal is read: type, sentinels, unit, range.

use super::number::{Line, Number, Rounding};
use super::place::{Place, Raw};
use super::time::rfc3339;
use drivetrain_schemas::catalogue::{Signal, SignalType};
use drivetrain_schemas::mapping::{self, SignalField, UnitField};
use drivetrain_schemas::time::format_rfc3339;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Invalid,
    Fixed(i64),
    Text(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) signal: u16,
    pub(crate) place: Place,
    kind: SignalType,
    decimals: u32,
    range: (i64, i64),
    sentinels: Vec<String>,
    /// Until when (exclusive, µs) which conversion holds.
    lines: Vec<(i64, Line)>,
}

impl Rule {
    /// None: a unit that these tests do not know.
    pub(crate) fn new(signal: u16, place: Place, declared: &Signal, config: &SignalField) -> Option<Rule> {
        let to = declared.unit.as_deref();
        let lines = match &config.unit {
            None => vec![(i64::MAX, line(to, to, config)?)],
            Some(UnitField::One(unit)) => vec![(i64::MAX, line(Some(unit), to, config)?)],
            Some(UnitField::ByTime(intervals)) => {
                let until = |text: &Option<String>| text.as_deref().map_or(Some(i64::MAX), |t| rfc3339(t, None));
                let interval = |i: &mapping::UnitInterval| Some((until(&i.until)?, line(Some(&i.unit), to, config)?));
                intervals.iter().map(interval).collect::<Option<_>>()?
            }
        };
        let sentinels = config.sentinels.iter().map(text_of).collect();
        let range = (declared.min, declared.max);
        Some(Rule { signal, place, kind: declared.kind, decimals: declared.decimals, range, sentinels, lines })
    }

    /// `at` is the reading's event time.
    pub(crate) fn read(&self, raw: &Raw<'_>, at: i64) -> Value {
        if matches!(raw, Raw::Missing | Raw::Null) {
            return Value::Null;
        }
        match self.kind {
            SignalType::Text => self.text(raw),
            SignalType::Bool => self.bool(raw),
            SignalType::Number => self.number(raw, at),
        }
    }

    fn number(&self, raw: &Raw<'_>, at: i64) -> Value {
        let text = match raw {
            Raw::Number(text) | Raw::Cell(text) => text,
            Raw::Text(text) => text.as_ref(),
            _ => return Value::Invalid,
        };
        let text = text.trim_ascii();
        let line = self.lines.iter().find(|(until, _)| at < *until);
        let (Some(number), Some((_, line)), false) = (Number::parse(text), line, self.is_sentinel(text)) else {
            return Value::Invalid;
        };
        match number.fixed(*line, self.decimals, Rounding::HalfEven) {
            Some(v) if v >= self.range.0 && v <= self.range.1 => Value::Fixed(v),
            _ => Value::Invalid,
        }
    }

    fn bool(&self, raw: &Raw<'_>) -> Value {
        let text = match raw {
            Raw::Bool(b) => return Value::Fixed(i64::from(*b)),
            Raw::Number(text) | Raw::Cell(text) => text,
            Raw::Text(text) => text.as_ref(),
            _ => return Value::Invalid,
        };
        let text = text.trim_ascii();
        let number = Number::parse(text);
        if self.is_sentinel(text) {
            Value::Invalid
        } else if text.eq_ignore_ascii_case("true") || (number.is_some() && number == Number::parse("1")) {
            Value::Fixed(1)
        } else if text.eq_ignore_ascii_case("false") || (number.is_some() && number == Number::parse("0")) {
            Value::Fixed(0)
        } else {
            Value::Invalid
        }
    }

    fn text(&self, raw: &Raw<'_>) -> Value {
        let text = match raw {
            Raw::Text(text) => text.to_string(),
            Raw::Number(text) | Raw::Cell(text) => text.to_string(),
            Raw::Bool(b) => b.to_string(),
            Raw::Micros(t) => format_rfc3339(*t),
            _ => return Value::Invalid,
        };
        if text.is_empty() {
            Value::Null
        } else if self.sentinels.contains(&text) {
            Value::Invalid
        } else {
            Value::Text(text)
        }
    }

    /// By value where it is a number, else by its text.
    fn is_sentinel(&self, text: &str) -> bool {
        let number = Number::parse(text);
        self.sentinels.iter().any(|s| match Number::parse(s.trim_ascii()) {
            Some(sentinel) => number.as_ref() == Some(&sentinel),
            None => s == text,
        })
    }
}

fn text_of(n: &mapping::Number) -> String {
    match n {
        mapping::Number::Int(v) => v.to_string(),
        mapping::Number::Float(v) => v.to_string(),
        mapping::Number::Text(v) => v.clone(),
    }
}

/// `raw × scale + offset` in `from`, converted to `to`; scale and offset have at most 6 decimals here.
fn line(from: Option<&str>, to: Option<&str>, config: &SignalField) -> Option<Line> {
    const MILLION: i64 = 1_000_000;
    let millionths = |n: &Option<mapping::Number>, default: i64| match n {
        Some(n) => Number::parse(&text_of(n))?.fixed(Line::IDENTITY, 6, Rounding::HalfEven),
        None => Some(default * MILLION),
    };
    let (scale, shift) = (millionths(&config.scale, 1)?, millionths(&config.offset, 0)?);
    let unit = match (from, to) {
        _ if from == to => Line::IDENTITY,
        (Some("mph"), Some("km/h")) => Line { factor: 1_609_344, offset: 0, divisor: 1_000_000 },
        (Some("m/s"), Some("km/h")) => Line { factor: 18, offset: 0, divisor: 5 },
        (Some("ratio"), Some("percent")) => Line { factor: 100, offset: 0, divisor: 1 },
        (Some("fahrenheit"), Some("celsius")) => Line { factor: 5, offset: -160, divisor: 9 },
        (Some("kelvin"), Some("celsius")) => Line { factor: 100, offset: -27_315, divisor: 100 },
        _ => return None,
    };
    Some(Line {
        factor: u64::try_from(scale).ok()? * unit.factor,
        offset: shift * unit.factor as i64 + unit.offset * MILLION,
        divisor: unit.divisor * MILLION as u64,
    })
}
