//! Units of measurement and their exact conversion (rational factors, no floats).
//!
//! ```text
//!  raw ──× scale + offset──► value in `from` ──► base unit of the dimension ──► value in `to` ──► 10^-decimals
//!  └───────────────── composed once to (raw × p + q) / r, in integers ────────────────────────┘
//! ```
//!
//! A raw value keeps all its digits; the only rounding, half to even, is that of the last step.

use crate::fixed::{Decimal, NumberError, div_round};
use std::cmp::Ordering;
use thiserror::Error;

/// A unit, by its dimension and its exact relation to the dimension's base: base = value × num/den + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub name: &'static str,
    pub dimension: &'static str,
    /// Factor to the base unit of the dimension, as a fraction in lowest terms.
    pub num: i64,
    pub den: i64,
    /// Added after the factor, as a fraction (for temperatures).
    pub offset_num: i64,
    pub offset_den: i64,
}

const fn unit(name: &'static str, dimension: &'static str, num: i64, den: i64) -> Unit {
    Unit { name, dimension, num, den, offset_num: 0, offset_den: 1 }
}

/// All known units. Sources: the SI brochure; the international yard and pound agreement (1 mi = 1609.344 m,
/// 1 lb = 0.45359237 kg); standard gravity 9.80665 m/s2, which also makes the pound-force of 1 psi; the US gallon of
/// 231 cubic inches.
pub const UNITS: &[Unit] = &[
    unit("m/s", "speed", 1, 1),
    unit("km/h", "speed", 5, 18),
    unit("mph", "speed", 1397, 3125),
    unit("kn", "speed", 463, 900),
    unit("ft/s", "speed", 381, 1250),
    unit("cm/s", "speed", 1, 100),
    unit("m/s2", "acceleration", 1, 1),
    unit("g", "acceleration", 980_665, 100_000),
    unit("mg", "acceleration", 980_665, 100_000_000),
    unit("ft/s2", "acceleration", 381, 1250),
    unit("m", "length", 1, 1),
    unit("km", "length", 1000, 1),
    unit("mi", "length", 201_168, 125),
    unit("ft", "length", 381, 1250),
    unit("cm", "length", 1, 100),
    unit("mm", "length", 1, 1000),
    unit("deg", "angle", 1, 1),
    unit("s", "time", 1, 1),
    unit("ms", "time", 1, 1000),
    unit("us", "time", 1, 1_000_000),
    unit("min", "time", 60, 1),
    unit("h", "time", 3600, 1),
    unit("rpm", "rotation", 1, 1),
    unit("percent", "ratio", 1, 1),
    unit("%", "ratio", 1, 1),
    unit("ratio", "ratio", 100, 1),
    unit("l", "volume", 1, 1),
    unit("ml", "volume", 1, 1000),
    unit("l/h", "flow", 1, 1),
    unit("gal/h", "flow", 473_176_473, 125_000_000),
    unit("gal", "volume", 473_176_473, 125_000_000),
    unit("V", "voltage", 1, 1),
    unit("mV", "voltage", 1, 1000),
    unit("A", "current", 1, 1),
    unit("mA", "current", 1, 1000),
    unit("kW", "power", 1, 1),
    unit("W", "power", 1, 1000),
    unit("kWh", "energy", 1, 1),
    unit("Wh", "energy", 1, 1000),
    unit("Nm", "torque", 1, 1),
    unit("kg", "mass", 1, 1),
    unit("t", "mass", 1000, 1),
    unit("lb", "mass", 45_359_237, 100_000_000),
    unit("kPa", "pressure", 1, 1),
    unit("Pa", "pressure", 1, 1000),
    unit("hPa", "pressure", 1, 10),
    unit("mbar", "pressure", 1, 10),
    unit("bar", "pressure", 100, 1),
    unit("deg/s", "angular_speed", 1, 1),
    unit("psi", "pressure", 8_896_443_230_521, 1_290_320_000_000),
    unit("celsius", "temperature", 1, 1),
    Unit { name: "fahrenheit", dimension: "temperature", num: 5, den: 9, offset_num: -160, offset_den: 9 },
    Unit { name: "kelvin", dimension: "temperature", num: 1, den: 1, offset_num: -5463, offset_den: 20 },
    unit("1", "count", 1, 1),
];

impl Unit {
    pub fn parse(name: &str) -> Option<Unit> {
        UNITS.iter().find(|u| u.name == name).copied()
    }
}

/// The message for a unit that is not known.
pub fn unknown_unit(name: &str) -> String {
    let known: Vec<_> = UNITS.iter().map(|u| u.name).collect();
    format!("{name:?} is not a known unit; known are {}", known.join(", "))
}

/// Why two units cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("{from} is a unit of {from_dimension}, but {to} is one of {to_dimension}")]
    Dimension { from: &'static str, from_dimension: &'static str, to: &'static str, to_dimension: &'static str },
    #[error("the factors of scale, offset and unit have too many digits to be exact; use fewer")]
    TooLong,
}

/// A composed conversion: `(raw × p + q) / r` is the value in units of `10^-decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affine {
    p: i128,
    q: i128,
    /// Positive.
    r: i128,
}

/// Converts one value: `raw × scale + offset` in `from` becomes fixed point at `decimals` in `to`, rounded once.
///
/// # Errors
/// [`UnitError`] for incompatible units; the inner [`NumberError::Overflow`] when the result is no `i64`.
pub fn convert(
    raw: &Decimal,
    scale: &Decimal,
    offset: &Decimal,
    from: &Unit,
    to: &Unit,
    decimals: u32,
) -> Result<Result<i64, NumberError>, UnitError> {
    Ok(Affine::new(scale, offset, from, to, decimals)?.apply(raw))
}

impl Affine {
    /// Composes scale, offset, the two units and the decimals.
    pub fn new(scale: &Decimal, offset: &Decimal, from: &Unit, to: &Unit, decimals: u32) -> Result<Self, UnitError> {
        if from.dimension != to.dimension {
            return Err(UnitError::Dimension {
                from: from.name,
                from_dimension: from.dimension,
                to: to.name,
                to_dimension: to.dimension,
            });
        }
        Self::compose(scale, offset, from, to, decimals).ok_or(UnitError::TooLong)
    }

    fn compose(scale: &Decimal, offset: &Decimal, from: &Unit, to: &Unit, decimals: u32) -> Option<Self> {
        let ratio = |n: i64, d: i64| Fraction { num: n.into(), den: d.into() };
        // Both factors and 10^decimals in one, so that whatever cancels does so before it can overflow.
        let units = ratio(from.num, from.den).times(ratio(to.den, to.num))?;
        let grid = Fraction { num: 10i128.checked_pow(decimals)?, den: 1 };
        let factor = Fraction::of(scale)?.times(units)?.times(grid)?;
        let moved = ratio(from.offset_num, from.offset_den).minus(ratio(to.offset_num, to.offset_den))?;
        let moved = moved.times(ratio(to.den, to.num))?;
        let shift = Fraction::of(offset)?.times(units)?.plus(moved)?.times(grid)?;
        let common = factor.den.checked_mul(shift.den / gcd(factor.den, shift.den))?;
        Some(Affine {
            p: factor.num.checked_mul(common / factor.den)?,
            q: shift.num.checked_mul(common / shift.den)?,
            r: common,
        })
    }

    /// Whether a number at `decimals` comes out as it is.
    pub fn is_identity(&self, decimals: u32) -> bool {
        self.q == 0 && self.r == 1 && Some(self.p) == 10i128.checked_pow(decimals)
    }

    /// The converted value, rounded half to even. A raw value of more than 36 digits counts as a little more than
    /// its first 36.
    ///
    /// # Errors
    /// [`NumberError::Overflow`] when it does not fit `i64`.
    pub fn apply(&self, raw: &Decimal) -> Result<i64, NumberError> {
        match self.narrow(raw) {
            Some(value) => i64::try_from(value).ok().filter(|v| *v != i64::MIN).ok_or(NumberError::Overflow),
            None => self.wide(raw),
        }
    }

    /// In 128 bits; None where they do not suffice.
    fn narrow(&self, raw: &Decimal) -> Option<i128> {
        if raw.sticky {
            return None;
        }
        let digits = i128::try_from(raw.digits).ok()?;
        let power = 10i128.checked_pow(raw.exponent.unsigned_abs())?;
        let product = digits.checked_mul(if raw.negative { -self.p } else { self.p })?;
        let (n, d) = if raw.exponent >= 0 {
            (product.checked_mul(power)?.checked_add(self.q)?, self.r)
        } else {
            (product.checked_add(self.q.checked_mul(power)?)?, self.r.checked_mul(power)?)
        };
        (d < i128::MAX / 4).then(|| div_round(n, d))
    }

    /// In 512 bits, which hold every case: 120 bits of digits, 127 of each factor, 200 of the power of ten.
    #[cold]
    fn wide(&self, raw: &Decimal) -> Result<i64, NumberError> {
        const FAR: i32 = 60;
        let length = if raw.digits == 0 { 0 } else { raw.digits.ilog10() as i32 + 1 };
        // Nothing but its sign matters of a number so small that no factor brings it near the grid.
        let tiny = raw.exponent < -FAR - length;
        if raw.digits != 0 && raw.exponent > FAR {
            return if self.p == 0 { self.wide(&Decimal { exponent: 0, ..*raw }) } else { Err(NumberError::Overflow) };
        }
        let (digits, exponent) = if tiny || raw.digits == 0 { (0, 0) } else { (raw.digits, raw.exponent) };
        let sticky = self.p != 0 && (raw.sticky || (tiny && raw.digits != 0));
        let power = |n: Wide| n.times_pow10(exponent.unsigned_abs());
        let product = Wide::new(digits).times(self.p.unsigned_abs());
        let shift = Wide::new(self.q.unsigned_abs());
        let divisor = Wide::new(self.r.unsigned_abs());
        let (product, shift, divisor) =
            if exponent >= 0 { (power(product), shift, divisor) } else { (product, power(shift), power(divisor)) };
        let upward = raw.negative == (self.p < 0);
        let (negative, magnitude) = Wide::signed_sum(product, !upward, shift, self.q < 0);
        let grows = sticky.then_some(negative != upward);
        let value = magnitude.divide_round(&divisor, grows).ok_or(NumberError::Overflow)?;
        Ok(if negative { -value } else { value })
    }
}

/// A fraction in lowest terms with a positive denominator.
#[derive(Clone, Copy)]
struct Fraction {
    num: i128,
    den: i128,
}

impl Fraction {
    fn of(d: &Decimal) -> Option<Self> {
        let d = d.normalized();
        let digits = i128::try_from(d.digits).ok().filter(|_| !d.sticky)?;
        let power = 10i128.checked_pow(d.exponent.unsigned_abs())?;
        let digits = if d.negative { -digits } else { digits };
        Some(if d.exponent >= 0 {
            Fraction { num: digits.checked_mul(power)?, den: 1 }
        } else {
            Fraction { num: digits, den: power }.reduced()
        })
    }

    fn reduced(self) -> Self {
        let g = gcd(self.num, self.den);
        Fraction { num: self.num / g, den: self.den / g }
    }

    fn times(self, o: Fraction) -> Option<Self> {
        let (a, b) = (gcd(self.num, o.den), gcd(o.num, self.den));
        Some(Fraction { num: (self.num / a).checked_mul(o.num / b)?, den: (self.den / b).checked_mul(o.den / a)? })
    }

    fn plus(self, o: Fraction) -> Option<Self> {
        let num = self.num.checked_mul(o.den)?.checked_add(o.num.checked_mul(self.den)?)?;
        Some(Fraction { num, den: self.den.checked_mul(o.den)? }.reduced())
    }

    fn minus(self, o: Fraction) -> Option<Self> {
        self.plus(Fraction { num: -o.num, den: o.den })
    }
}

/// The greatest common divisor; at least 1.
fn gcd(a: i128, b: i128) -> i128 {
    let (mut a, mut b) = (a.unsigned_abs(), b.unsigned_abs());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    i128::try_from(a.max(1)).unwrap_or(1)
}

/// An unsigned number of 512 bits, lowest limb first. Overflow does not occur for the sizes given at
/// [`Affine::wide`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wide([u64; 8]);

impl Wide {
    fn new(v: u128) -> Self {
        Wide([v as u64, (v >> 64) as u64, 0, 0, 0, 0, 0, 0])
    }

    fn times_word(mut self, word: u64) -> Self {
        let mut carry = 0u128;
        for limb in &mut self.0 {
            carry += u128::from(*limb) * u128::from(word);
            *limb = carry as u64;
            carry >>= 64;
        }
        self
    }

    fn times(self, v: u128) -> Self {
        self.times_word(v as u64).plus(self.times_word((v >> 64) as u64).shifted(64))
    }

    fn times_pow10(mut self, mut n: u32) -> Self {
        while n > 0 {
            let step = n.min(19);
            self = self.times_word(10u64.pow(step));
            n -= step;
        }
        self
    }

    /// `self << bits`, bits up to 64.
    fn shifted(self, bits: u32) -> Self {
        let mut out = [0; 8];
        let mut carry = 0u64;
        for (limb, o) in self.0.iter().zip(&mut out) {
            let wide = u128::from(*limb) << bits;
            *o = wide as u64 | carry;
            carry = (wide >> 64) as u64;
        }
        Wide(out)
    }

    fn plus(mut self, o: Wide) -> Self {
        let mut carry = false;
        for (a, b) in self.0.iter_mut().zip(o.0) {
            (*a, carry) = a.carrying_add(b, carry);
        }
        self
    }

    fn minus(mut self, o: Wide) -> Self {
        let mut borrow = false;
        for (a, b) in self.0.iter_mut().zip(o.0) {
            (*a, borrow) = a.borrowing_sub(b, borrow);
        }
        self
    }

    fn compare(&self, o: &Wide) -> Ordering {
        self.0.iter().rev().cmp(o.0.iter().rev())
    }

    /// (negative, magnitude) of the sum of two numbers given by magnitude and sign.
    fn signed_sum(a: Wide, a_negative: bool, b: Wide, b_negative: bool) -> (bool, Wide) {
        if a_negative == b_negative {
            return (a_negative, a.plus(b));
        }
        match a.compare(&b) {
            Ordering::Less => (b_negative, b.minus(a)),
            _ => (a_negative, a.minus(b)),
        }
    }

    /// Rounds `self / divisor` half to even; `grows` says that the true magnitude is a little above (true) or below.
    fn divide_round(self, divisor: &Wide, grows: Option<bool>) -> Option<i64> {
        if self.compare(&divisor.shifted(63)) != Ordering::Less {
            return None;
        }
        let (mut rest, mut quotient) = (self, 0i64);
        for bit in (0..63).rev() {
            let part = divisor.shifted(bit);
            if rest.compare(&part) != Ordering::Less {
                rest = rest.minus(part);
                quotient |= 1 << bit;
            }
        }
        let up = match rest.shifted(1).compare(divisor) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => grows.unwrap_or(quotient & 1 == 1),
        };
        quotient.checked_add(i64::from(up))
    }
}
