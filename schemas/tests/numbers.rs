//! Fixed point and unit conversion against schoolbook arithmetic on decimal digits, and times against jiff.

use drivetrain_schemas::fixed::{self, Decimal, NumberError};
use drivetrain_schemas::time;
use drivetrain_schemas::unit::{UNITS, Unit, UnitError, convert};
use proptest::prelude::*;
use std::cmp::Ordering;

/// A natural number as decimal digits, lowest first, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(Vec<u8>);

impl Natural {
    fn new(text: &str) -> Self {
        Natural(text.bytes().rev().map(|b| b - b'0').collect()).trimmed()
    }

    fn trimmed(mut self) -> Self {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    fn times(&self, o: &Natural) -> Natural {
        let mut out = vec![0u32; self.0.len() + o.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            for (j, b) in o.0.iter().enumerate() {
                out[i + j] += u32::from(a * b);
            }
        }
        for i in 0..out.len() - 1 {
            out[i + 1] += out[i] / 10;
            out[i] %= 10;
        }
        Natural(out.into_iter().map(|d| d as u8).collect()).trimmed()
    }

    fn shifted(&self, zeros: usize) -> Natural {
        Natural([vec![0; zeros], self.0.clone()].concat()).trimmed()
    }

    fn plus(&self, o: &Natural) -> Natural {
        let mut out = Vec::new();
        let mut carry = 0;
        for i in 0..self.0.len().max(o.0.len()) + 1 {
            let sum = self.0.get(i).unwrap_or(&0) + o.0.get(i).unwrap_or(&0) + carry;
            out.push(sum % 10);
            carry = sum / 10;
        }
        Natural(out).trimmed()
    }

    fn compare(&self, o: &Natural) -> Ordering {
        self.0.len().cmp(&o.0.len()).then_with(|| self.0.iter().rev().cmp(o.0.iter().rev()))
    }
}

/// A signed sum of terms, positives and negatives apart.
#[derive(Clone)]
struct Sum(Natural, Natural);

impl Sum {
    fn zero() -> Self {
        Sum(Natural(vec![]), Natural(vec![]))
    }

    fn add(self, negative: bool, n: &Natural) -> Self {
        if negative { Sum(self.0, self.1.plus(n)) } else { Sum(self.0.plus(n), self.1) }
    }
}

/// Whether `value` is `sum / divisor` rounded half to even: |2 × (sum - value × divisor)| ≤ divisor, a tie being even.
fn is_rounded(sum: &Sum, divisor: &Natural, value: i64) -> bool {
    let product = divisor.times(&Natural::new(&value.unsigned_abs().to_string()));
    let rest = sum.clone().add(value >= 0, &product);
    let two = Natural::new("2");
    let (up, down) = (rest.0.times(&two), rest.1.times(&two));
    let below = up.compare(&down.plus(divisor));
    let above = down.compare(&up.plus(divisor));
    match (below, above) {
        (Ordering::Less, Ordering::Less) => true,
        (Ordering::Greater, _) | (_, Ordering::Greater) => false,
        _ => value % 2 == 0,
    }
}

/// The digits of a decimal text and how many of them stand behind the point.
fn parts(text: &str) -> (bool, Natural, usize) {
    let negative = text.starts_with('-');
    let plain = text.trim_start_matches(['-', '+']);
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    (negative, Natural::new(&format!("{whole}{fraction}")), fraction.len())
}

/// Ties and their neighbours come up often.
fn decimals_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[-+]?[0-9]{1,9}(\\.[0-9]{0,30})?",
        "-?[0-9]{0,3}\\.[0-9]{0,9}(5|50{1,20}|50{1,20}1|49{1,20})",
        "-?[0-9]{15,22}(\\.[0-9]{0,3})?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn parsing_is_exact(text in decimals_text(), decimals in 0u32..10) {
        let (negative, digits, places) = parts(&text);
        let sum = Sum::zero().add(negative, &digits.shifted(decimals as usize));
        match fixed::parse_decimal(text.as_bytes(), decimals) {
            Ok(v) => prop_assert!(is_rounded(&sum, &Natural::new("1").shifted(places), v), "{text} {decimals}: {v}"),
            Err(e) => {
                prop_assert_eq!(e, NumberError::Overflow);
                prop_assert!(!is_rounded(&sum, &Natural::new("1").shifted(places), i64::MAX / 2));
                let limit = Natural::new(&i64::MAX.to_string()).shifted(places);
                prop_assert_eq!(digits.shifted(decimals as usize).compare(&limit), Ordering::Greater);
            }
        }
    }

    #[test]
    fn an_exponent_only_moves_the_point(digits in 0u64..1_000_000_000, exponent in -12i32..9, decimals in 0u32..10) {
        let text = format!("{digits}e{exponent}");
        let moved = if exponent >= 0 {
            format!("{digits}{}", "0".repeat(exponent as usize))
        } else {
            fixed::format(i128::from(digits), exponent.unsigned_abs())
        };
        prop_assert_eq!(
            fixed::parse_decimal(text.as_bytes(), decimals),
            fixed::parse_decimal(moved.as_bytes(), decimals),
            "{} {}", text, moved
        );
    }

    #[test]
    fn floor_is_the_integer_below(text in "-?[0-9]{1,6}(\\.[0-9]{0,12})?", decimals in 0u32..8) {
        let floor = Decimal::parse(text.as_bytes()).unwrap().floor(decimals).unwrap();
        let (negative, digits, places) = parts(&text);
        let one = Natural::new("1").shifted(places);
        // floor × 10^places ≤ value < (floor + 1) × 10^places
        let scaled = digits.shifted(decimals as usize);
        let below = |n: i64| {
            let rest = Sum::zero().add(negative, &scaled).add(n >= 0, &one.times(&Natural::new(&n.unsigned_abs().to_string())));
            rest.0.compare(&rest.1)
        };
        prop_assert_ne!(below(floor), Ordering::Less, "{} {}", &text, floor);
        prop_assert_eq!(below(floor + 1), Ordering::Less, "{} {}", text, floor);
    }

    /// value in `to` = ((raw × scale + offset) × from.num/from.den + from.offset - to.offset) × to.den/to.num, all
    /// brought to one denominator.
    #[test]
    fn conversion_is_exact(
        raw in decimals_text(),
        scale in prop_oneof![Just("1".to_string()), "-?[0-9]{1,3}\\.[0-9]{1,5}"],
        offset in prop_oneof![Just("0".to_string()), "-?[0-9]{1,4}(\\.[0-9]{1,4})?"],
        from in 0..UNITS.len(),
        to in 0..UNITS.len(),
        decimals in 0u32..10,
    ) {
        let from = UNITS[from];
        let same: Vec<Unit> = UNITS.iter().filter(|u| u.dimension == from.dimension).copied().collect();
        let to = same[to % same.len()];
        let d = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
        let converted = convert(&d(&raw), &d(&scale), &d(&offset), &from, &to, decimals).unwrap();
        let n = |v: i64| Natural::new(&v.unsigned_abs().to_string());
        let ((rs, r, rp), (ss, s, sp), (os, o, op)) = (parts(&raw), parts(&scale), parts(&offset));
        // Everything over from.den × from.offset_den × to.offset_den × to.num × 10^(rp + sp + op).
        let tail = |x: Natural| x.times(&n(to.den)).shifted(decimals as usize);
        let common = n(from.offset_den).times(&n(to.offset_den));
        let product = tail(r.times(&s).shifted(op).times(&n(from.num)).times(&common));
        let shifted = tail(o.shifted(rp + sp).times(&n(from.num)).times(&common));
        let plus = tail(n(from.offset_num).times(&n(from.den)).times(&n(to.offset_den)).shifted(rp + sp + op));
        let minus = tail(n(to.offset_num).times(&n(from.den)).times(&n(from.offset_den)).shifted(rp + sp + op));
        let sum = Sum::zero()
            .add(rs != ss, &product)
            .add(os, &shifted)
            .add(from.offset_num < 0, &plus)
            .add(to.offset_num >= 0, &minus);
        let divisor = n(from.den).times(&common).times(&n(to.num)).shifted(rp + sp + op);
        match converted {
            Ok(v) => prop_assert!(is_rounded(&sum, &divisor, v), "{raw} × {scale} + {offset} {} in {}: {v}", from.name, to.name),
            Err(_) => {
                let (big, small) = if sum.0.compare(&sum.1) == Ordering::Less { (&sum.1, &sum.0) } else { (&sum.0, &sum.1) };
                let limit = small.plus(&divisor.times(&Natural::new(&i64::MAX.to_string())));
                prop_assert_eq!(big.compare(&limit), Ordering::Greater);
            }
        }
    }

    #[test]
    fn times_are_jiffs(micros in time::MIN..=time::MAX, cut in 0u32..7) {
        let unit = 10i64.pow(cut);
        let micros = (micros.div_euclid(unit) * unit).max(time::MIN);
        let stamp = jiff::Timestamp::from_microsecond(micros).unwrap();
        let text = time::format_rfc3339(micros);
        prop_assert_eq!(&text, &stamp.to_string());
        prop_assert_eq!(time::parse_rfc3339(&text), Ok(micros));
    }

    #[test]
    fn offsets_are_jiffs(seconds in -60_000_000_000i64..250_000_000_000, minutes in -1439i64..1440, text in "[0-9]{1,6}") {
        let sign = if minutes < 0 { '-' } else { '+' };
        let (h, m) = (minutes.abs() / 60, minutes.abs() % 60);
        let local = time::format_rfc3339(seconds * 1_000_000);
        let text = format!("{}.{text}{sign}{h:02}:{m:02}", local.trim_end_matches('Z'));
        let expected = text.parse::<jiff::Timestamp>().unwrap();
        prop_assert_eq!(time::parse_rfc3339(&text), Ok(expected.as_nanosecond().div_euclid(1000) as i64));
    }

    #[test]
    fn damaged_times_are_no_times(at in 0usize..20, with in "[-:TZ a9.+]") {
        let mut text: Vec<char> = "2026-05-01T12:00:00Z".chars().collect();
        text[at] = with.chars().next().unwrap();
        let text: String = text.into_iter().collect();
        // What jiff and we accept is the same, but for the forms that only jiff knows.
        if let Ok(ours) = time::parse_rfc3339(&text) {
            prop_assert_eq!(text.parse::<jiff::Timestamp>().unwrap().as_microsecond(), ours);
        }
    }
}

#[test]
fn numbers_of_many_digits() {
    let d = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
    let unit = |name: &str| Unit::parse(name).unwrap();
    let go = |raw: &str, from: &str, to: &str| convert(&d(raw), &d("1"), &d("0"), &unit(from), &unit(to), 6).unwrap();
    assert_eq!(go("0.0088148407743224", "mi", "km"), Ok(14_186));
    assert_eq!(go("1", "g", "m/s2"), Ok(9_806_650));
    assert_eq!(go("-40", "fahrenheit", "celsius"), Ok(-40_000_000));
    assert_eq!(go("1", "psi", "kPa"), Ok(6_894_757));
    assert_eq!(go("1e-4000", "fahrenheit", "celsius"), Ok(-17_777_778));
    assert_eq!(go("1e4000", "m", "m"), Err(NumberError::Overflow));
    assert_eq!(go("0e4000", "m", "m"), Ok(0));
    // A tie that only the 40th digit breaks, and one that nothing breaks.
    assert_eq!(go("0.0000005000000000000000000000000000000001", "m", "m"), Ok(1));
    assert_eq!(go("0.0000005000000000000000000000000000000000", "m", "m"), Ok(0));
    assert_eq!(go("-0.0000005000000000000000000000000000000001", "m", "m"), Ok(-1));
    assert!(matches!(
        convert(&d("1"), &d("1"), &d("0"), &unit("g"), &unit("km/h"), 6),
        Err(UnitError::Dimension { .. })
    ));
    let long = "1.2345678901234567890123456789012345";
    assert_eq!(
        convert(&d("1"), &d(long), &d("0.0000000000000001"), &unit("psi"), &unit("mbar"), 9),
        Err(UnitError::TooLong)
    );
}
