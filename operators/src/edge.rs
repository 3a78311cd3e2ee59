//! From exact sums to floats: one rounding each.

use crate::facts::Stats;
use drivetrain_schemas::fixed::{div_round, to_f64};

/// Arithmetic mean in the signal's unit: rounded half to even at `decimals + 6`, then the nearest double. NaN without
/// a value.
pub fn mean(stats: &Stats, decimals: u32) -> f64 {
    if stats.count <= 0 {
        return f64::NAN;
    }
    to_f64(div_round(stats.sum * 1_000_000, i128::from(stats.count)), decimals + 6)
}

/// Population standard deviation in the signal's unit. NaN without a value.
///
/// With the integer m nearest to the mean and r = n·m − Σx (|r| ≤ n/2): Σ(x−m)² = Σx² − 2mΣx + nm², exact modulo
/// 2^128, and the variance is (n·Σ(x−m)² − r²) / n², whose numerator is exact where it fits 128 bits; where it does
/// not, r² is too small beside it to matter to a double.
pub fn stddev(stats: &Stats, decimals: u32) -> f64 {
    if stats.count <= 0 {
        return f64::NAN;
    }
    let n = i128::from(stats.count);
    let m = div_round(stats.sum, n);
    let twice = m.wrapping_mul(2).wrapping_mul(stats.sum);
    let squares = stats.squares.wrapping_sub(twice).wrapping_add(n.wrapping_mul(m.wrapping_mul(m))) as u128;
    let r = (n * m - stats.sum).unsigned_abs();
    let variance = match squares.checked_mul(n as u128) {
        Some(product) => product.saturating_sub(r * r) as f64 / (n * n) as f64,
        None => squares as f64 / n as f64,
    };
    variance.sqrt() / 10f64.powi(decimals as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stats(values: &[i64]) -> Stats {
        let mut stats = Stats::default();
        values.iter().for_each(|v| stats.add(*v));
        stats
    }

    #[test]
    fn by_hand() {
        let s = stats(&[2_000_000, 4_000_000, 4_000_000, 4_000_000, 5_000_000, 5_000_000, 7_000_000, 9_000_000]);
        assert_eq!(mean(&s, 6), 5.0);
        assert_eq!(stddev(&s, 6), 2.0);
        assert_eq!(mean(&stats(&[1, 1, 2]), 0), 1.333_333);
        assert_eq!(stddev(&stats(&[0, 1]), 0), 0.5);
        assert!(mean(&Stats::default(), 6).is_nan());
    }

    #[test]
    fn a_small_spread_far_from_zero_is_kept() {
        let far = 1_000_000_000_000_000;
        assert_eq!(stddev(&stats(&[far - 1, far + 1]), 6), 1e-6);
        let equal = stats(&[999_999_999_999_999; 1000]);
        assert_eq!(stddev(&equal, 6), 0.0);
    }

    proptest! {
        #[test]
        fn near_the_floating_point_formula(values in prop::collection::vec(-1_000_000_000i64..1_000_000_000, 1..200)) {
            let s = stats(&values);
            let n = values.len() as f64;
            let mean = values.iter().map(|v| *v as f64).sum::<f64>() / n;
            let variance = values.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / n;
            prop_assert!((super::mean(&s, 0) - mean).abs() <= 1e-6 + mean.abs() * 1e-12);
            prop_assert!((stddev(&s, 0) - variance.sqrt()).abs() <= 1e-6 + variance.sqrt() * 1e-9);
        }
    }
}
