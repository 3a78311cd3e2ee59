//! Times and durations: µs since 1970 UTC as `i64`, read from and written as text.
//!
//! A time is a point between the years 1 and 9999 ([`MIN`], [`MAX`]); digits beyond the microsecond are cut off.

use jiff::tz::TimeZone;
use std::cell::Cell;
use thiserror::Error;

/// 0001-01-01T00:00:00Z in µs.
pub const MIN: i64 = -62_135_596_800_000_000;
/// 9999-12-31T23:59:59.999999Z in µs.
pub const MAX: i64 = 253_402_300_799_999_999;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimeError {
    #[error("{0:?} is not a duration such as \"20ms\", \"5s\", \"2m\", \"25h\" or \"28d\"")]
    Duration(String),
    #[error("{0:?} is not a time such as 2026-05-01T12:00:00Z")]
    Time(String),
}

/// Parses `20ms`, `5s`, `2m`, `25h`, `28d`, `10us` (a whole number and a unit) into µs.
pub fn parse_duration(text: &str) -> Result<i64, TimeError> {
    let error = || TimeError::Duration(text.to_string());
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
    let number: i64 = text[..split].parse().map_err(|_| error())?;
    let factor = match text[split..].trim() {
        "us" | "µs" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return Err(error()),
    };
    number.checked_mul(factor).ok_or_else(error)
}

/// Parses an RFC 3339 time with its offset into µs.
pub fn parse_rfc3339(text: &str) -> Result<i64, TimeError> {
    parse_rfc3339_in(text, None)
}

/// As [`parse_rfc3339`]; a time without an offset is one of `zone`, where that is given.
///
/// # Errors
/// [`TimeError::Time`] for anything else, and for times without an offset when there is no zone.
pub fn parse_rfc3339_in(text: &str, zone: Option<&TimeZone>) -> Result<i64, TimeError> {
    let parsed = read_rfc3339(text.as_bytes()).and_then(|(local, offset)| match (offset, zone) {
        (Some(offset), _) => Some(local - offset),
        (None, Some(zone)) => from_local(local, zone),
        (None, None) => None,
    });
    parsed.filter(|t| (MIN..=MAX).contains(t)).ok_or_else(|| TimeError::Time(text.to_string()))
}

/// The minute and the day of the time that was read last, since most times are of the same: then only what is below is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct RecentTime {
    minute: Cell<Option<([u8; 16], i64)>>,
    day: Cell<Option<([u8; 10], i64)>>,
}

impl RecentTime {
    /// As [`parse_rfc3339`], of the most common form: `2026-05-01T12:00:00Z`, also with up to 6 digits of a fraction. None: it
    /// is another form, the last second of a minute that has 61, or no time.
    #[inline]
    pub(crate) fn utc(&self, text: &[u8]) -> Option<i64> {
        let (minute, rest) = text.split_first_chunk::<16>()?;
        let start = match self.minute.get() {
            Some((known, start)) if known == *minute => start,
            _ => self.remember_minute(*minute)?,
        };
        let (&[colon, tens, ones], rest) = rest.split_first_chunk::<3>()?;
        let [tens, ones] = [tens, ones].map(|digit| digit.wrapping_sub(b'0'));
        if colon != b':' || tens > 5 || ones > 9 {
            return None;
        }
        Some(start + i64::from(tens * 10 + ones) * SECOND + utc_fraction(rest)?)
    }

    #[cold]
    fn remember_minute(&self, text: [u8; 16]) -> Option<i64> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        let [b'T', a, b, colon, c, d] = *rest else { return None };
        let within = time_of_day(&[a, b, colon, c, d, b':', b'0', b'0'])? * SECOND;
        let start = match self.day.get() {
            Some((known, start)) if known == *date => start,
            _ => self.remember_day(*date)?,
        };
        self.minute.set(Some((text, start + within)));
        Some(start + within)
    }

    fn remember_day(&self, date: [u8; 10]) -> Option<i64> {
        let midnight = [&date[..], b"T00:00:00"].concat();
        let (start, _) = read_rfc3339(&midnight)?;
        // What the calendar here does not have is left to the other way.
        let start = Some(start).filter(|t| (MIN..=MAX).contains(t))?;
        self.day.set(Some((date, start)));
        Some(start)
    }
}

/// Seconds since midnight of `12:34:56`.
#[inline]
fn time_of_day(clock: &[u8; 8]) -> Option<i64> {
    const FORM: u64 = u64::from_le_bytes(*b"00:00:00");
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    // Each byte is its digit's value then, and 0 for the colons; else it has a high bit, or gets one.
    let values = u64::from_le_bytes(*clock) ^ FORM;
    let are_digits =
        (values | ((values & !HIGH) + 0x0606_0606_0606_0606)) & HIGH == 0 && values & 0x0000_ff00_00ff_0000 == 0;
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let [hour, minute, second] = [0, 24, 48].map(|shift| (pairs >> shift & 0xff) as i64);
    (are_digits && hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)
}

/// µs of `Z` or `.25Z`, with at most 6 digits.
#[inline]
fn utc_fraction(rest: &[u8]) -> Option<i64> {
    let (b'Z', rest) = rest.split_last()? else { return None };
    let Some((b'.', digits)) = rest.split_first() else { return rest.is_empty().then_some(0) };
    if digits.is_empty() || digits.len() > 6 {
        return None;
    }
    let mut value = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(value * crate::fixed::pow10(6 - digits.len() as u32))
}

/// µs of a wall clock that is read as if it were UTC, as the instant at which `zone`'s clock shows it. Of an hour that
/// comes twice the first; an hour that is skipped is read with the offset before it.
pub fn from_local(local: i64, zone: &TimeZone) -> Option<i64> {
    let civil = jiff::Timestamp::from_microsecond(local).ok()?.to_zoned(TimeZone::UTC).datetime();
    zone.to_timestamp(civil).ok().map(|t| t.as_microsecond())
}

/// (µs of the wall clock, offset in µs).
#[inline]
fn read_rfc3339(b: &[u8]) -> Option<(i64, Option<i64>)> {
    let head = b.first_chunk::<19>()?;
    let separators = head[4] == b'-'
        && head[7] == b'-'
        && matches!(head[10], b'T' | b't' | b' ')
        && head[13] == b':'
        && head[16] == b':';
    if !separators {
        return None;
    }
    let year = two(head[0], head[1])? * 100 + two(head[2], head[3])?;
    let (month, day) = (two(head[5], head[6])?, two(head[8], head[9])?);
    let (hour, minute, second) = (two(head[11], head[12])?, two(head[14], head[15])?, two(head[17], head[18])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // A leap second is the last second of its minute once more.
    let seconds = (days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second.min(59);
    let (fraction, rest) = read_fraction(&b[19..])?;
    Some((seconds * SECOND + fraction, read_offset(rest)?))
}

/// µs of `.25…`, and what follows.
#[inline]
fn read_fraction(b: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = b.split_first() else { return Some((0, b)) };
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if count == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(count);
    let kept = digits.iter().take(6).fold(0, |n, b| n * 10 + i64::from(b - b'0'));
    Some((kept * crate::fixed::pow10(6u32.saturating_sub(count as u32)), rest))
}

/// `Z`, `+01:00`, `+0100`, `+01` or nothing.
#[inline]
fn read_offset(b: &[u8]) -> Option<Option<i64>> {
    let (sign, digits) = match b {
        [] => return Some(None),
        [b'Z' | b'z'] => return Some(Some(0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [a, b, b':', c, d] | [a, b, c, d] => (two(*a, *b)?, two(*c, *d)?),
        [a, b] => (two(*a, *b)?, 0),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then_some(Some(sign * (hours * 60 + minutes) * 60 * SECOND))
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<i64> {
    let digit = |b: u8| i64::from(b.wrapping_sub(b'0'));
    let (tens, ones) = (digit(tens), digit(ones));
    (tens < 10 && ones < 10).then_some(tens * 10 + ones)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar (years counted from March, so that leap days come last).
#[inline]
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// (year, month, day) of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, doe) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC with as many decimals as are needed, such as `2026-05-01T12:00:00.25Z`; beyond [`MIN`] and [`MAX`]
/// the number with `us` behind it.
pub fn format_rfc3339(micros: i64) -> String {
    if !(MIN..=MAX).contains(&micros) {
        return format!("{micros}us");
    }
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let rest = micros.rem_euclid(DAY);
    let (seconds, mut fraction) = (rest / SECOND, rest % SECOND);
    let mut out = String::with_capacity(27);
    push_digits(&mut out, year, 4);
    for (mark, value) in
        [('-', month), ('-', day), ('T', seconds / 3600), (':', seconds / 60 % 60), (':', seconds % 60)]
    {
        out.push(mark);
        push_digits(&mut out, value, 2);
    }
    if fraction != 0 {
        let mut width = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        out.push('.');
        push_digits(&mut out, fraction, width);
    }
    out.push('Z');
    out
}

fn push_digits(out: &mut String, value: i64, width: u32) {
    for place in (0..width).rev() {
        out.push((b'0' + (value / crate::fixed::pow10(place) % 10) as u8) as char);
    }
}

/// The UTC day as `YYYY-MM-DD`.
pub fn format_date(micros: i64) -> String {
    format_rfc3339(micros - micros.rem_euclid(DAY)).chars().take(10).collect()
}

/// A `strptime` pattern with the zone of times that bear no offset.
#[derive(Clone, Debug)]
pub struct Strptime {
    pattern: String,
    zone: Option<TimeZone>,
}

impl Strptime {
    /// Checks the pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn new(pattern: &str, zone: Option<TimeZone>) -> Result<Self, String> {
        let probe = jiff::Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        if let Err(e) = jiff::fmt::strtime::format(pattern, &probe) {
            return Err(format!("{pattern:?} is not a strptime pattern: {e}"));
        }
        let fixed = ["%z", "%:z", "%s", "%Q", "%:Q", "%c"].iter().any(|directive| pattern.contains(directive));
        if zone.is_none() && !fixed {
            return Err(format!("{pattern:?} reads no offset (%z): name the time zone, such as zone = \"UTC\""));
        }
        Ok(Self { pattern: pattern.to_string(), zone })
    }

    /// The time that `text` means, µs.
    pub fn parse(&self, text: &str) -> Result<i64, TimeError> {
        let error = || TimeError::Time(text.to_string());
        let parts = jiff::fmt::strtime::parse(&self.pattern, text).map_err(|_| error())?;
        let stamp = match (&self.zone, parts.offset()) {
            (Some(zone), None) if parts.iana_time_zone().is_none() && parts.timestamp().is_none() => {
                zone.to_timestamp(parts.to_datetime().map_err(|_| error())?).map_err(|_| error())?
            }
            _ => parts.to_timestamp().map_err(|_| error())?,
        };
        let nanos = stamp.as_nanosecond();
        i64::try_from(nanos.div_euclid(1000)).map_err(|_| error())
    }
}

/// The IANA time zone of this name.
///
/// # Errors
/// A sentence that names what was asked for.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name)
        .map_err(|_| format!("{name:?} is not a known time zone; give an IANA name, such as \"America/Chicago\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The short way, whatever was read before, gives what the long one gives, or nothing.
        #[test]
        fn a_recent_day_changes_nothing(
            texts in prop::collection::vec(
                (0i64..4, 0i64..90_000_000_000, prop::option::of("[0-9]{1,7}"), "(Z|z|\\+01:00|)", prop::option::of((0usize..22, any::<char>()))),
                1..20,
            ),
        ) {
            let recent = RecentTime::default();
            for (day, within, fraction, zone, change) in texts {
                let mut text = format_rfc3339(day * DAY + within - within % SECOND);
                text.truncate(19);
                let fraction = fraction.map_or(String::new(), |digits| format!(".{digits}"));
                text = format!("{text}{fraction}{zone}");
                if let Some((place, with)) = change {
                    text = text.chars().enumerate().map(|(i, c)| if i == place { with } else { c }).collect();
                }
                if let Some(found) = recent.utc(text.as_bytes()) {
                    prop_assert_eq!(parse_rfc3339(&text), Ok(found), "{}", text);
                }
            }
        }
    }

    #[test]
    fn the_usual_form_goes_the_short_way() {
        let recent = RecentTime::default();
        for text in
            ["2026-05-01T00:00:00Z", "2026-05-01T23:59:59.999999Z", "2024-02-29T08:00:48.269Z", "9999-12-31T12:00:00Z"]
        {
            assert_eq!(recent.utc(text.as_bytes()), parse_rfc3339(text).ok(), "{text}");
        }
        for text in ["2026-02-29T00:00:00Z", "2026-05-01T24:00:00Z", "2026-05-01T00:60:00Z", "2026-13-01T00:00:00Z", ""]
        {
            assert_eq!(recent.utc(text.as_bytes()), None, "{text}");
        }
    }
}
