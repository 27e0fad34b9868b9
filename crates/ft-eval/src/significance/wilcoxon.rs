//! Wilcoxon's signed-rank test on paired differences.
//!
//! The differences that are not 0 are ranked by size (ties have their mean rank). The statistic is the sum of the ranks of
//! the positive ones, `R⁺` (Wilcoxon, *Biometrics Bulletin* 1, 1945).

use serde::Serialize;

use super::{differences, normal_two_sided};
use crate::Result;

/// The result of [`wilcoxon_test`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wilcoxon {
    /// The smaller of the sums of ranks of positive and of negative differences.
    pub statistic: f64,
    /// The two-sided p-value. NaN if there are more than 13 items and none differs.
    pub p_value: f64,
    /// Whether the p-value is exact rather than a normal approximation.
    pub exact: bool,
}

/// Wilcoxon's signed-rank test with the defaults of `scipy.stats.wilcoxon`.
///
/// The p-value is exact for up to 50 items without ties and zeros, and for up to 13 items in any case. Otherwise it is
/// the normal approximation with the variance corrected for ties.
///
/// # Errors
///
/// [`Error::Input`](crate::Error::Input) if the lists differ in length, are empty or not finite.
///
/// ```
/// # use ft_eval::significance::wilcoxon_test;
/// // All five differences are positive: 2 of 32 signs are as extreme.
/// let test = wilcoxon_test(&[1.0, 2.0, 3.0, 4.0, 5.0], &[0.0; 5])?;
/// assert_eq!(test.p_value, 0.0625);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn wilcoxon_test(first: &[f64], second: &[f64]) -> Result<Wilcoxon> {
    let mut differences = differences(first, second)?;
    let items = differences.len();
    differences.retain(|d| *d != 0.0);
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let n = differences.len();

    // Twice the mean ranks, so that they are whole numbers.
    let mut ranks = Vec::with_capacity(n);
    let mut tie_correction = 0.0;
    for tied in differences.chunk_by(|a, b| a.abs() == b.abs()) {
        let t = tied.len();
        let twice = 2 * ranks.len() + t + 1;
        ranks.extend(std::iter::repeat_n(twice, t));
        tie_correction += (t as f64).powi(3) - t as f64;
    }
    let all: usize = ranks.iter().sum();
    let positive: usize = (differences.iter().zip(&ranks))
        .filter(|(d, _)| **d > 0.0)
        .map(|(_, r)| r)
        .sum();

    let plain = n == items && tie_correction == 0.0;
    let exact = items <= 13 || (items <= 50 && plain);
    let p_value = if exact {
        exact_p(&ranks, positive)
    } else {
        let n = n as f64;
        let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - tie_correction / 2.0) / 24.0;
        normal_two_sided((positive as f64 / 2.0 - n * (n + 1.0) / 4.0) / variance.sqrt())
    };
    Ok(Wilcoxon {
        statistic: positive.min(all - positive) as f64 / 2.0,
        p_value,
        exact,
    })
}

/// Twice the smaller tail of the sum of ranks with random signs, at most 1.
fn exact_p(ranks: &[usize], positive: usize) -> f64 {
    // The number of sign vectors for each sum; up to 2^50, which a float represents exactly.
    let all: usize = ranks.iter().sum();
    let mut ways = vec![0.0; all + 1];
    ways[0] = 1.0;
    let mut reached = 0;
    for &rank in ranks {
        for sum in (0..=reached).rev() {
            ways[sum + rank] += ways[sum];
        }
        reached += rank;
    }
    let below: f64 = ways[..=positive].iter().sum();
    let above: f64 = ways[positive..].iter().sum();
    (2.0 * below.min(above) / (ranks.len() as f64).exp2()).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_systems_have_a_p_value_only_with_few_items() {
        let of = |n: usize| wilcoxon_test(&vec![1.0; n], &vec![1.0; n]).unwrap();
        assert_eq!(of(13).p_value, 1.0);
        assert!(of(14).p_value.is_nan());
        assert_eq!(of(14).statistic, 0.0);
    }

    #[test]
    fn tied_ranks_are_shared() {
        // Ranks 1.5, 1.5, 3: sums of positive ranks 0, 1.5, 1.5, 3, 3, 4.5, 4.5, 6. Twice P(R⁺ ≤ 1.5).
        let test = wilcoxon_test(&[1.0, -1.0, -2.0], &[0.0; 3]).unwrap();
        assert_eq!((test.statistic, test.p_value), (1.5, 0.75));
    }
}
