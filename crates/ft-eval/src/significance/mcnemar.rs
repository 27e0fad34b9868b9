//! McNemar's test of whether two systems have the same number of correct items.
//!
//! Only the items count that exactly one system gets right: `b` for the first and `c` for the second. If the systems
//! are equal, `b` is binomial with `n = b + c` and 1/2 (McNemar, *Psychometrika* 12, 1947).

use serde::Serialize;

/// The result of a test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct McNemar {
    /// `min(b, c)` for the exact test, or chi-square.
    pub statistic: f64,
    /// The two-sided p-value.
    pub p_value: f64,
}

/// The exact test, as statsmodels' `mcnemar(exact=True)`: `p = 2 P(X ≤ min(b, c))`, at most 1.
///
/// `only_first` is the number of items that only the first system gets right, `only_second` that of the second.
///
/// ```
/// # use ft_eval::significance::mcnemar_exact;
/// // (1 + 6) · 2 / 2^6: zero or one head in six tosses, and the same for tails.
/// assert!((mcnemar_exact(5, 1).p_value - 0.21875).abs() < 1e-14);
/// ```
pub fn mcnemar_exact(only_first: u64, only_second: u64) -> McNemar {
    let few = only_first.min(only_second);
    let p_value = if only_first == only_second {
        1.0
    } else {
        (2.0 * binomial_tail(few, only_first.max(only_second))).min(1.0)
    };
    McNemar {
        statistic: few as f64,
        p_value,
    }
}

/// The chi-square test, as statsmodels' `mcnemar(exact=False)`: `(|b - c| - 1)² / (b + c)` on one degree of
/// freedom; without `correction` the 1 is not subtracted.
///
/// If no items count, both numbers are NaN (statsmodels: infinity and 0 with the correction).
///
/// ```
/// # use ft_eval::significance::mcnemar_test;
/// assert_eq!(mcnemar_test(9, 3, true).statistic, 25.0 / 12.0);
/// ```
pub fn mcnemar_test(only_first: u64, only_second: u64, correction: bool) -> McNemar {
    let n = only_first as f64 + only_second as f64;
    if n == 0.0 {
        return McNemar {
            statistic: f64::NAN,
            p_value: f64::NAN,
        };
    }
    let apart = only_first.abs_diff(only_second) as f64 - f64::from(u8::from(correction));
    let statistic = apart * apart / n;
    McNemar {
        statistic,
        p_value: super::normal_two_sided(statistic.sqrt()),
    }
}

/// `P(X ≤ few)` of a fair coin tossed `few + many` times, `few < many`: the largest term, and those below
/// it as a shrinking product.
fn binomial_tail(few: u64, many: u64) -> f64 {
    let (k, m) = (few as f64, many as f64);
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut i = 0.0;
    while i < k {
        term *= (k - i) / (m + i + 1.0);
        sum += term;
        i += 1.0;
        if term < 1e-18 * sum {
            break;
        }
    }
    sum * mass(k, m)
}

/// `C(k + m, k) / 2^(k + m)` by Loader's saddle-point expansion ("Fast and accurate computation of binomial
/// probabilities", 2000), which keeps its digits where factorials overflow.
fn mass(k: f64, m: f64) -> f64 {
    let n = k + m;
    if k == 0.0 {
        return (-n).exp2();
    }
    let exponent = stirling_error(n)
        - stirling_error(k)
        - stirling_error(m)
        - deviance(k, n / 2.0)
        - deviance(m, n / 2.0);
    (n / (2.0 * std::f64::consts::PI * k * m)).sqrt() * exponent.exp()
}

/// `x ln(x / mean) + mean - x`.
fn deviance(x: f64, mean: f64) -> f64 {
    let e = (x - mean) / mean;
    mean * ((1.0 + e) * e.ln_1p() - e)
}

/// `ln n! - ln(√(2πn) (n/e)^n)`.
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        let factorial: f64 = (1..=n as u32).map(f64::from).product();
        return factorial.ln() - 0.5 * (2.0 * std::f64::consts::PI * n).ln() - n * n.ln() + n;
    }
    let i = 1.0 / (n * n);
    (1.0 / 12.0 - i * (1.0 / 360.0 - i * (1.0 / 1260.0 - i * (1.0 / 1680.0 - i / 1188.0)))) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_are_sums_of_binomials() {
        for n in 1..60_u64 {
            let mut row = vec![1.0_f64];
            for i in 0..n {
                row.push(row[i as usize] * (n - i) as f64 / (i + 1) as f64);
            }
            for few in 0..n.div_ceil(2) {
                let expected: f64 = row[..=few as usize].iter().sum::<f64>() / (n as f64).exp2();
                let tail = binomial_tail(few, n - few);
                assert!(
                    (tail - expected).abs() < 1e-13 * expected,
                    "{few} of {n}: {tail} {expected}"
                );
            }
        }
    }

    #[test]
    fn equal_systems_have_a_p_value_of_one_or_none() {
        assert_eq!(mcnemar_exact(0, 0).p_value, 1.0);
        assert!(mcnemar_test(0, 0, true).p_value.is_nan());
        assert!(mcnemar_test(0, 0, false).p_value.is_nan());
    }

    #[test]
    fn counts_whose_sum_overflows_are_supported() {
        assert!(mcnemar_exact(u64::MAX, u64::MAX).p_value == 1.0);
        assert!(mcnemar_test(u64::MAX, 1, true).p_value == 0.0);
    }
}
