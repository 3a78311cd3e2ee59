//! Fixed-point numbers: an `i64` at a declared number of decimals, straight from the text and never by way of a
//! float; rounded half to even. One rounding to a float happens at the edge ([`to_f64`]).

use crate::scan;
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NumberError {
    #[error("not a number")]
    Syntax,
    #[error("too large")]
    Overflow,
}

/// 10^n for n up to 18.
#[inline]
pub const fn pow10(n: u32) -> i64 {
    10i64.pow(n)
}

/// Rounds `numerator / denominator` half to even. `denominator` > 0.
pub fn div_round(numerator: i128, denominator: i128) -> i128 {
    let quotient = numerator.div_euclid(denominator);
    let twice = 2 * numerator.rem_euclid(denominator);
    match twice.cmp(&denominator) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

/// The double nearest to `value / 10^decimals`.
pub fn to_f64(value: i128, decimals: u32) -> f64 {
    const EXACT: i128 = 1 << 53;
    if (-EXACT..=EXACT).contains(&value) && decimals <= 22 {
        // Both are exact doubles, so that the division rounds once.
        return value as f64 / 10f64.powi(decimals as i32);
    }
    format(value, decimals).parse().unwrap_or(f64::NAN)
}

/// `value / 10^decimals` as decimal text, all decimals written.
pub fn format(value: i128, decimals: u32) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs().to_string();
    if decimals == 0 {
        return format!("{sign}{digits}");
    }
    let d = decimals as usize;
    let padded = format!("{digits:0>width$}", width = d + 1);
    let (whole, fraction) = padded.split_at(padded.len() - d);
    format!("{sign}{whole}.{fraction}")
}

/// Parses a decimal number as JSON writes it (also with a leading `+`, leading zeros, `.5` and `5.`, which CSV files
/// hold), with an optional exponent, into fixed point at `decimals`, rounded half to even on its exact value.
///
/// # Errors
/// [`NumberError::Syntax`] when it is no number (`NaN` and `inf` are none), [`NumberError::Overflow`] when its
/// magnitude exceeds `i64` at these decimals.
#[inline]
pub fn parse_decimal(text: &[u8], decimals: u32) -> Result<i64, NumberError> {
    match parse_short(text, decimals) {
        Some(value) => Ok(value),
        None => Decimal::parse(text)?.round(decimals as i32),
    }
}

/// The same of the number at `at..end` of a text that goes on behind it. Only for what JSON allows without an exponent.
#[inline]
pub(crate) fn parse_decimal_in(text: &[u8], at: usize, end: usize, decimals: u32) -> Result<i64, NumberError> {
    match parse_in_place(text, at, end, decimals) {
        Some(value) => Ok(value),
        None => parse_decimal(text.get(at..end).unwrap_or_default(), decimals),
    }
}

/// A number of at most 16 bytes behind its sign, with as many behind its beginning. None: take another way.
#[inline]
fn parse_in_place(text: &[u8], at: usize, end: usize, decimals: u32) -> Option<i64> {
    let negative = text.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let bytes = text.get(first..)?.first_chunk::<{ scan::WIDE }>()?;
    let length =
        u32::try_from(end.checked_sub(first)?).ok().filter(|length| (1..=scan::WIDE as u32).contains(length))?;
    let (digits, points) = scan::digits_and_points(bytes);
    let all = u32::MAX >> (32 - length);
    let points = points & all;
    if digits & all | points != all || points & points.wrapping_sub(1) != 0 {
        return None;
    }
    short(bytes, length, points, decimals).map(|value| if negative { -value } else { value })
}

/// The number that the first `length` bytes are: digits, and where `points` has a bit a point; at most one. None: it does
/// not fit.
#[inline(always)]
pub(crate) fn short(bytes: &[u8; scan::WIDE], length: u32, points: u32, decimals: u32) -> Option<i64> {
    let wide = u128::from_le_bytes(*bytes);
    if length <= 8 && points != 0 {
        // Most are. The point goes: what stands before it moves into its place.
        let (bytes, before) = (wide as u64, points.trailing_zeros() & 7);
        let kept = (1u64 << (8 * before)) - 1;
        let joined = (bytes & kept) | (bytes >> 8 & !kept);
        let mantissa = scan::short_number(joined, length - 1);
        return at_decimals(mantissa as i64, (length - 1 - before) as usize, decimals);
    }
    long(wide, length, points, decimals)
}

#[inline(never)]
fn long(wide: u128, length: u32, points: u32, decimals: u32) -> Option<i64> {
    let (mantissa, fraction) = if points == 0 {
        (scan::number(wide, length), 0)
    } else {
        let before = points.trailing_zeros();
        let kept = (1u128 << (8 * before)) - 1;
        let joined = (wide & kept) | (wide >> 8 & !kept);
        (scan::number(joined, length - 1), length - 1 - before)
    };
    at_decimals(mantissa as i64, fraction as usize, decimals)
}

/// Powers of ten that an `i64` holds.
const POW10: [i64; 19] = {
    let mut table = [1i64; 19];
    let mut i = 1;
    while i < 19 {
        table[i] = table[i - 1] * 10;
        i += 1;
    }
    table
};

/// The common case in 64-bit arithmetic: at most 18 digits, no exponent. None: take the long way.
#[inline]
fn parse_short(text: &[u8], decimals: u32) -> Option<i64> {
    let (negative, rest) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    if rest.len() > 19 {
        return None;
    }
    let (mut mantissa, mut digits, mut point) = (0u64, 0usize, None);
    for &b in rest {
        let digit = b.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
            digits += 1;
        } else if b == b'.' && point.is_none() {
            point = Some(digits);
        } else {
            return None;
        }
    }
    if digits == 0 || digits > 18 {
        return None;
    }
    let magnitude = at_decimals(mantissa as i64, point.map_or(0, |p| digits - p), decimals)?;
    Some(if negative { -magnitude } else { magnitude })
}

/// `mantissa` with so many digits behind the point, at `decimals`: rounded half to even. None: it does not fit.
#[inline(always)]
fn at_decimals(mantissa: i64, fraction: usize, decimals: u32) -> Option<i64> {
    let kept = decimals as usize;
    if fraction <= kept {
        return mantissa.checked_mul(*POW10.get(kept - fraction)?);
    }
    rounded(mantissa, fraction, kept)
}

#[inline(never)]
fn rounded(mantissa: i64, fraction: usize, kept: usize) -> Option<i64> {
    let divisor = *POW10.get(fraction - kept)?;
    let (quotient, twice) = (mantissa / divisor, 2 * (mantissa % divisor));
    Some(quotient + i64::from(twice > divisor || (twice == divisor && quotient & 1 == 1)))
}

/// A decimal number: `(-1)^negative * digits * 10^exponent`, plus a sticky flag for digits beyond the first 36.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub negative: bool,
    pub digits: u128,
    pub exponent: i32,
    /// Non-zero digits were left out behind the last of `digits`.
    pub sticky: bool,
}

impl Decimal {
    /// Parses the text; see [`parse_decimal`].
    pub fn parse(text: &[u8]) -> Result<Self, NumberError> {
        let (negative, rest) = match text.first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let mut d = Decimal { negative, digits: 0, exponent: 0, sticky: false };
        let (mut i, mut any, mut point) = (0, false, false);
        while i < rest.len() {
            match rest[i] {
                b @ b'0'..=b'9' => {
                    any = true;
                    d.push(b - b'0', point);
                }
                b'.' if !point => point = true,
                b'e' | b'E' if any => break,
                _ => return Err(NumberError::Syntax),
            }
            i += 1;
        }
        if !any {
            return Err(NumberError::Syntax);
        }
        if i < rest.len() {
            d.exponent = d.exponent.saturating_add(parse_exponent(&rest[i + 1..])?);
        }
        Ok(d)
    }

    fn push(&mut self, digit: u8, fraction: bool) {
        if self.digits < 10u128.pow(36) {
            self.digits = self.digits * 10 + u128::from(digit);
            self.exponent -= i32::from(fraction);
        } else {
            self.sticky |= digit != 0;
            self.exponent += i32::from(!fraction);
        }
    }

    /// The same value with the fewest digits, so that equal numbers are equal structures.
    pub fn normalized(mut self) -> Self {
        if self.digits == 0 {
            return Decimal { negative: false, digits: 0, exponent: 0, sticky: self.sticky };
        }
        while !self.sticky && self.digits.is_multiple_of(10) {
            self.digits /= 10;
            self.exponent = self.exponent.saturating_add(1);
        }
        self
    }

    /// The largest fixed-point number at `decimals` decimals that is not above it.
    pub fn floor(&self, decimals: u32) -> Result<i64, NumberError> {
        let shift = self.exponent.saturating_add(decimals as i32);
        if self.digits == 0 || shift >= 0 {
            return self.round(decimals as i32);
        }
        let divisor = if shift < -38 { u128::MAX } else { 10u128.pow(shift.unsigned_abs()) };
        let rest = self.sticky || !self.digits.is_multiple_of(divisor);
        let magnitude = i64::try_from(self.digits / divisor).map_err(|_| NumberError::Overflow)?;
        Ok(if self.negative { -magnitude - i64::from(rest) } else { magnitude })
    }

    /// Rounds half to even to `decimals` decimals (which may be negative).
    pub fn round(&self, decimals: i32) -> Result<i64, NumberError> {
        if self.digits == 0 {
            return Ok(0);
        }
        let shift = self.exponent.saturating_add(decimals);
        let magnitude = if shift >= 0 {
            if shift > 18 {
                return Err(NumberError::Overflow);
            }
            self.digits.checked_mul(10u128.pow(shift as u32)).ok_or(NumberError::Overflow)?
        } else if shift < -38 {
            0
        } else {
            let divisor = 10u128.pow(shift.unsigned_abs());
            let (quotient, rest) = (self.digits / divisor, self.digits % divisor);
            let up = match (rest.cmp(&(divisor / 2)), self.sticky) {
                (std::cmp::Ordering::Less, _) => false,
                (std::cmp::Ordering::Equal, false) => quotient & 1 == 1,
                _ => true,
            };
            quotient + u128::from(up)
        };
        // i64::MIN is NULL, so the range is symmetric.
        let value = i64::try_from(magnitude).map_err(|_| NumberError::Overflow)?;
        Ok(if self.negative { -value } else { value })
    }
}

fn parse_exponent(text: &[u8]) -> Result<i32, NumberError> {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Syntax);
    }
    let magnitude = digits.iter().fold(0i32, |e, b| e.saturating_mul(10).saturating_add(i32::from(b - b'0')));
    let magnitude = magnitude.min(1_000_000);
    Ok(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parses_exactly() {
        assert_eq!(parse_decimal(b"0.1", 6), Ok(100_000));
        assert_eq!(parse_decimal(b"-0.4", 6), Ok(-400_000));
        assert_eq!(parse_decimal(b"1e3", 2), Ok(100_000));
        assert_eq!(parse_decimal(b"0.0000005", 6), Ok(0));
        assert_eq!(parse_decimal(b"0.0000015", 6), Ok(2));
        assert_eq!(parse_decimal(b"0.00000050000000000000000000000000000000000000000001", 6), Ok(1));
        assert_eq!(parse_decimal(b"1e400", 6), Err(NumberError::Overflow));
        assert_eq!(parse_decimal(b"1e-400", 6), Ok(0));
        assert_eq!(parse_decimal(b"NaN", 6), Err(NumberError::Syntax));
        assert_eq!(parse_decimal(b"", 6), Err(NumberError::Syntax));
        assert_eq!(parse_decimal(b"30.3999996185", 6), Ok(30_400_000));
    }

    #[test]
    fn division_rounds_half_to_even() {
        assert_eq!(div_round(5, 2), 2);
        assert_eq!(div_round(7, 2), 4);
        assert_eq!(div_round(-5, 2), -2);
        assert_eq!(div_round(-7, 2), -4);
    }

    #[test]
    fn floats_are_the_nearest() {
        assert_eq!(to_f64(95_000_000, 6), 95.0);
        assert_eq!(to_f64(1, 1), 0.1);
        assert_eq!(format(-5, 2), "-0.05");
    }

    proptest! {
        /// In its place a number is what it is by itself, whatever stands around it.
        #[test]
        fn a_number_in_its_place(
            before in "[a-z]{0,3}",
            number in "-?(0|[1-9][0-9]{0,17})([.][0-9]{1,18})?",
            behind in "[,}][0-9.,:a-z\"]{0,20}",
            decimals in 0u32..10,
        ) {
            let text = format!("{before}{number}{behind}");
            let (at, end) = (before.len(), before.len() + number.len());
            prop_assert_eq!(
                parse_decimal_in(text.as_bytes(), at, end, decimals),
                parse_decimal(number.as_bytes(), decimals)
            );
        }
    }
}
