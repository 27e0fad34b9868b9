//! Student's t-test on paired differences.

use serde::Serialize;

use super::bootstrap::check_level;
use super::{Interval, differences, student_t_critical, student_t_two_sided};
use crate::Result;

/// The result of [`paired_t_test`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedT {
    /// Mean of the differences, first minus second.
    pub difference: f64,
    /// `difference / (s / √n)`. NaN if it is 0/0.
    pub statistic: f64,
    /// `n - 1`.
    pub degrees_of_freedom: f64,
    /// The two-sided p-value. NaN if the statistic is NaN.
    pub p_value: f64,
    /// The interval of the mean difference. NaN for a single item.
    pub interval: Interval,
}

/// Student's t-test of whether the mean of paired differences is 0, as `scipy.stats.ttest_rel`.
///
/// `t = d̄ / (s/√n)` with `s` the standard deviation by `n - 1`; the interval is `d̄ ± t* s/√n`. For one item,
/// or if all differences are 0, statistic and p-value are NaN, as in SciPy. If all differences are the same number, p is
/// 0, or close to 0 if rounding gives a small variance. SciPy's rounding may differ.
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lists differ in length, are empty or not finite, or
/// `level` is not between 0 and 1.
///
/// ```
/// # use ft_eval::significance::paired_t_test;
/// let test = paired_t_test(&[0.3, 0.5, 0.6, 0.9], &[0.2, 0.5, 0.3, 0.7], 0.95)?;
/// assert!((test.statistic - 2.3237900077244507).abs() < 1e-12);
/// assert!((test.p_value - 0.10272807885839894).abs() < 1e-12);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn paired_t_test(first: &[f64], second: &[f64], level: f64) -> Result<PairedT> {
    check_level(level)?;
    let differences = differences(first, second)?;
    let n = differences.len() as f64;
    let difference = mean(&differences);
    let degrees_of_freedom = n - 1.0;
    let squares: f64 = differences.iter().map(|d| (d - difference).powi(2)).sum();
    let error = (squares / degrees_of_freedom / n).sqrt();
    let statistic = difference / error;
    let radius = student_t_critical(1.0 - level, degrees_of_freedom) * error;
    Ok(PairedT {
        difference,
        statistic,
        degrees_of_freedom,
        p_value: student_t_two_sided(statistic, degrees_of_freedom),
        interval: Interval {
            low: difference - radius,
            high: difference + radius,
        },
    })
}

/// The mean, which is exact if all numbers are equal.
fn mean(values: &[f64]) -> f64 {
    let (n, first) = (values.len() as f64, values[0]);
    first + values.iter().map(|v| v - first).sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_and_equal_systems_have_no_p_value() {
        assert!(
            paired_t_test(&[1.0], &[0.5], 0.95)
                .unwrap()
                .p_value
                .is_nan()
        );
        let same = paired_t_test(&[1.0, 2.0], &[1.0, 2.0], 0.95).unwrap();
        assert!(same.p_value.is_nan() && same.difference == 0.0);
    }

    #[test]
    fn a_constant_difference_is_certain() {
        let test = paired_t_test(&[1.0, 2.0, 3.0], &[0.5, 1.5, 2.5], 0.95).unwrap();
        assert_eq!((test.statistic, test.p_value), (f64::INFINITY, 0.0));
        assert_eq!(
            test.interval,
            Interval {
                low: 0.5,
                high: 0.5
            }
        );
    }

    #[test]
    fn invalid_scores_are_errors() {
        for (a, b) in [
            (&[1.0][..], &[][..]),
            (&[], &[]),
            (&[1.0, f64::NAN], &[1.0, 2.0]),
        ] {
            assert!(paired_t_test(a, b, 0.95).is_err());
        }
        assert!(paired_t_test(&[1.0], &[2.0], 1.0).is_err());
    }
}
