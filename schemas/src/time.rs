//! Times and durations: µs since 1970 UTC as `i64`, read from and written as text.

use thiserror::Error;

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
    text.parse::<jiff::Timestamp>().map(|t| t.as_microsecond()).map_err(|_| TimeError::Time(text.to_string()))
}

/// RFC 3339 in UTC with as many decimals as are needed, such as `2026-05-01T12:00:00.25Z`.
pub fn format_rfc3339(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| format!("{micros}us"), |t| t.to_string())
}

/// The UTC day as `YYYY-MM-DD`.
pub fn format_date(micros: i64) -> String {
    format_rfc3339(micros - micros.rem_euclid(86_400_000_000)).chars().take(10).collect()
}
