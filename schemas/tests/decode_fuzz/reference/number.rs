//! Schoolbook arithmetic on decimal digits: exact, and of any length.

use std::cmp::Ordering;

/// ±digits × 10^exponent. Neither leading nor trailing zeros; the digits of 0 are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

/// (raw × factor + offset) / divisor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) factor: u64,
    pub(crate) offset: i64,
    pub(crate) divisor: u64,
}

impl Line {
    pub(crate) const IDENTITY: Line = Line { factor: 1, offset: 0, divisor: 1 };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rounding {
    HalfEven,
    Down,
}

impl Number {
    /// A number as JSON or a CSV file writes it: a sign, leading zeros, `.5` and `5.` are fine.
    pub(crate) fn parse(text: &str) -> Option<Number> {
        let (negative, text) = sign(text);
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(i) => {
                let (negative, digits) = sign(&text[i + 1..]);
                if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let magnitude = digits.parse().unwrap_or(i64::MAX).min(1_000_000_000);
                (&text[..i], if negative { -magnitude } else { magnitude })
            }
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = digits.bytes().map(|b| b - b'0').collect();
        Some(Number { negative, digits, exponent: exponent - fraction.len() as i64 }.trimmed())
    }

    fn trimmed(mut self) -> Number {
        let zeros = self.digits.iter().take_while(|d| **d == 0).count();
        self.digits.drain(..zeros);
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.exponent += 1;
        }
        if self.digits.is_empty() {
            return Number { negative: false, digits: Vec::new(), exponent: 0 };
        }
        self
    }

    /// The same number × 10^-places.
    pub(crate) fn moved(mut self, places: u32) -> Number {
        self.exponent -= i64::from(places);
        self.trimmed()
    }

    /// The number on the line, as an integer of 10^-decimals; None beyond ±`i64::MAX`.
    pub(crate) fn fixed(&self, line: Line, decimals: u32, rounding: Rounding) -> Option<i64> {
        let magnitude = self.digits.len() as i64 + self.exponent;
        if magnitude > 60 {
            return None;
        }
        // Of a number so small nothing matters but that it is not 0.
        let tiny = magnitude < -60 && !self.digits.is_empty();
        let (digits, exponent) = if tiny { (vec![1], -60) } else { (self.digits.clone(), self.exponent) };
        let places = (-exponent).max(0) as usize;
        let raw = padded(times(digits, line.factor), exponent.max(0) as usize);
        let offset = padded(digits_of(line.offset.unsigned_abs()), places);
        let (negative, sum) = add((self.negative, raw), (line.offset < 0, offset));
        let (mut whole, rest) = divide(padded(sum, decimals as usize), line.divisor);
        let cut = if whole.len() < places {
            let zeros = vec![0; places - whole.len()];
            [zeros, std::mem::take(&mut whole)].concat()
        } else {
            whole.split_off(whole.len() - places)
        };
        let up = match rounding {
            Rounding::Down => negative && (rest > 0 || cut.iter().any(|d| *d > 0)),
            Rounding::HalfEven => match half(&cut, rest, line.divisor) {
                Ordering::Less => false,
                Ordering::Equal => whole.last().is_some_and(|d| d % 2 == 1),
                Ordering::Greater => true,
            },
        };
        let mut value = 0i64;
        for digit in whole {
            value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
        }
        value = value.checked_add(i64::from(up))?;
        Some(if negative { -value } else { value })
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// How `0.cut` + `rest / divisor` of the last of its digits stands to one half.
fn half(cut: &[u8], rest: u64, divisor: u64) -> Ordering {
    let Some((first, others)) = cut.split_first() else {
        return (2 * u128::from(rest)).cmp(&u128::from(divisor));
    };
    let more = rest > 0 || others.iter().any(|d| *d > 0);
    first.cmp(&5).then(if more { Ordering::Greater } else { Ordering::Equal })
}

fn digits_of(n: u64) -> Vec<u8> {
    if n == 0 { Vec::new() } else { n.to_string().bytes().map(|b| b - b'0').collect() }
}

fn padded(mut digits: Vec<u8>, zeros: usize) -> Vec<u8> {
    if !digits.is_empty() {
        digits.resize(digits.len() + zeros, 0);
    }
    digits
}

fn times(digits: Vec<u8>, factor: u64) -> Vec<u8> {
    let (mut out, mut carry) = (Vec::new(), 0u128);
    for digit in digits.iter().rev() {
        carry += u128::from(*digit) * u128::from(factor);
        out.push((carry % 10) as u8);
        carry /= 10;
    }
    while carry > 0 {
        out.push((carry % 10) as u8);
        carry /= 10;
    }
    out.reverse();
    out
}

fn divide(digits: Vec<u8>, divisor: u64) -> (Vec<u8>, u64) {
    let (mut out, mut rest) = (Vec::new(), 0u128);
    for digit in digits {
        rest = rest * 10 + u128::from(digit);
        out.push((rest / u128::from(divisor)) as u8);
        rest %= u128::from(divisor);
    }
    (out, rest as u64)
}

type Signed = (bool, Vec<u8>);

/// The sum; of equal lengths first, so that digits stand above digits.
fn add((a_negative, mut a): Signed, (b_negative, mut b): Signed) -> Signed {
    let length = a.len().max(b.len());
    for digits in [&mut a, &mut b] {
        let zeros = vec![0; length - digits.len()];
        digits.splice(0..0, zeros);
    }
    if a_negative != b_negative && a < b {
        (a, b) = (b, a);
        return (b_negative, subtract(a, &b));
    }
    if a_negative != b_negative {
        return (a_negative, subtract(a, &b));
    }
    let mut carry = 0;
    for (x, y) in a.iter_mut().zip(&b).rev() {
        carry += *x + y;
        (*x, carry) = (carry % 10, carry / 10);
    }
    if carry > 0 {
        a.insert(0, carry);
    }
    (a_negative, a)
}

/// `a` is not below `b`, and both are equally long.
fn subtract(mut a: Vec<u8>, b: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    for (x, y) in a.iter_mut().zip(b).rev() {
        let digit = 10 + *x - y - borrow;
        (*x, borrow) = (digit % 10, u8::from(digit < 10));
    }
    a
}
