//! Tukey's honestly significant difference: all pairs of systems at once, with a bound on the probability of one or
//! more false findings.
//!
//! The largest difference of `m` means has the distribution of the studentized range ([`studentized_range_sf`]), so a
//! pair's p-value is the probability of a range as large as its difference.

use rayon::prelude::*;
use serde::Serialize;

use super::bootstrap::check_level;
use super::{Interval, studentized_range_critical, studentized_range_sf};
use crate::{Error, Result};

/// The comparison of two of the systems.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TukeyPair {
    /// The index of the first system.
    pub first: usize,
    /// The index of the second system, which is larger.
    pub second: usize,
    /// The difference of the means, first minus second.
    pub difference: f64,
    /// The two-sided p-value, corrected for all pairs. NaN if difference and variance are both 0.
    pub p_value: f64,
    /// The interval of the difference. All intervals contain their true differences together with the given probability.
    pub interval: Interval,
}

/// Tukey's test of independent groups, as `scipy.stats.tukey_hsd` (which ranx calls).
///
/// One-way analysis of variance: `q = |x̄ᵢ - x̄ⱼ| / √(MSE (1/nᵢ + 1/nⱼ) / 2)` with the variance within
/// groups and `N - m` degrees of freedom; groups may differ in size (Tukey & Kramer). Scores of the same items are not
/// independent groups: use [`tukey_hsd_blocked`], which has more power. The order of the pairs is
/// (0, 1), (0, 2), .. (1, 2), ..
///
/// # Errors
///
/// [`Error::Input`] if there are fewer than two groups, a group has fewer than two scores, a score is not finite, or
/// `level` is not between 0 and 1.
pub fn tukey_hsd<G: AsRef<[f64]>>(groups: &[G], level: f64) -> Result<Vec<TukeyPair>> {
    let groups: Vec<&[f64]> = groups.iter().map(AsRef::as_ref).collect();
    check(&groups, level)?;
    let means: Vec<f64> = groups.iter().map(|g| mean(g)).collect();
    let squares: f64 = (groups.iter().zip(&means))
        .map(|(g, mean)| g.iter().map(|x| (x - mean).powi(2)).sum::<f64>())
        .sum();
    let scores: usize = groups.iter().map(|g| g.len()).sum();
    let degrees = (scores - groups.len()) as f64;
    let error = |i: usize, j: usize| {
        let share = 1.0 / groups[i].len() as f64 + 1.0 / groups[j].len() as f64;
        (squares / degrees * share / 2.0).sqrt()
    };
    Ok(pairs(&means, degrees, level, error))
}

/// Tukey's test of systems scored on the same items: `systems[i][j]` is system `i`'s score of item `j`.
///
/// Two-way analysis of variance without interaction, as in Carterette, "Multiple testing in statistical analysis
/// of systems-based information retrieval experiments", TOIS 30, 2012, section 3.3: the differences between items
/// are removed from the variance. `q = |x̄ᵢ - x̄ⱼ| / √(MSE / n)`, with MSE the mean square of
/// `xᵢⱼ - x̄ᵢ. - x̄.ⱼ + x̄..` with `(m - 1)(n - 1)` degrees of freedom. With two systems it is the paired
/// t-test.
///
/// # Errors
///
/// As [`tukey_hsd`], and if systems have different numbers of scores.
pub fn tukey_hsd_blocked<S: AsRef<[f64]>>(systems: &[S], level: f64) -> Result<Vec<TukeyPair>> {
    let systems: Vec<&[f64]> = systems.iter().map(AsRef::as_ref).collect();
    check(&systems, level)?;
    let items = systems[0].len();
    if let Some(i) = systems.iter().position(|s| s.len() != items) {
        return Err(Error::Input(format!(
            "system {i} has {} scores and system 0 {items}: score all systems on the same items",
            systems[i].len()
        )));
    }
    let (m, n) = (systems.len() as f64, items as f64);
    let means: Vec<f64> = systems.iter().map(|s| mean(s)).collect();
    let overall = mean(&means);
    let squares: f64 = (0..items)
        .map(|j| {
            let item = systems.iter().map(|s| s[j]).sum::<f64>() / m;
            (systems.iter().zip(&means))
                .map(|(s, mean)| (s[j] - mean - item + overall).powi(2))
                .sum::<f64>()
        })
        .sum();
    let degrees = (m - 1.0) * (n - 1.0);
    let error = (squares / degrees / n).sqrt();
    Ok(pairs(&means, degrees, level, |_, _| error))
}

fn pairs(
    means: &[f64],
    degrees: f64,
    level: f64,
    error: impl Fn(usize, usize) -> f64 + Sync,
) -> Vec<TukeyPair> {
    let m = means.len();
    let critical = studentized_range_critical(1.0 - level, m, degrees);
    (0..m * m)
        .into_par_iter()
        .map(|k| (k / m, k % m))
        .filter(|(i, j)| i < j)
        .map(|(first, second)| {
            let difference = means[first] - means[second];
            let error = error(first, second);
            let radius = critical * error;
            TukeyPair {
                first,
                second,
                difference,
                p_value: studentized_range_sf(difference.abs() / error, m, degrees),
                interval: Interval {
                    low: difference - radius,
                    high: difference + radius,
                },
            }
        })
        .collect()
}

fn check(groups: &[&[f64]], level: f64) -> Result<()> {
    check_level(level)?;
    if groups.len() < 2 {
        return Err(Error::Input(format!(
            "there are {} groups: a comparison needs two",
            groups.len()
        )));
    }
    for (i, group) in groups.iter().enumerate() {
        if group.len() < 2 {
            return Err(Error::Input(format!(
                "group {i} has {} scores: each group needs at least two",
                group.len()
            )));
        }
        if let Some(j) = group.iter().position(|x| !x.is_finite()) {
            return Err(Error::Input(format!(
                "score {j} of group {i} is {}: remove such items",
                group[j]
            )));
        }
    }
    Ok(())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::significance::paired_t_test;

    #[test]
    fn two_systems_on_the_same_items_are_the_paired_t_test() {
        let (a, b) = ([0.3, 0.5, 0.6, 0.9, 0.2], [0.2, 0.5, 0.3, 0.7, 0.3]);
        let pair = &tukey_hsd_blocked(&[a, b], 0.95).unwrap()[0];
        let t = paired_t_test(&a, &b, 0.95).unwrap();
        assert!((pair.p_value - t.p_value).abs() < 1e-12);
        assert!((pair.interval.low - t.interval.low).abs() < 1e-12);
    }

    #[test]
    fn groups_without_variance_have_a_p_value_of_zero_or_none() {
        let pairs = tukey_hsd(&[[1.0, 1.0], [1.0, 1.0], [2.0, 2.0]], 0.95).unwrap();
        assert!(pairs[0].p_value.is_nan());
        assert_eq!((pairs[1].p_value, pairs[2].p_value), (0.0, 0.0));
    }

    #[test]
    fn invalid_groups_are_errors() {
        assert!(tukey_hsd(&[[1.0, 2.0]], 0.95).is_err());
        assert!(tukey_hsd(&[&[1.0, 2.0][..], &[1.0]], 0.95).is_err());
        assert!(tukey_hsd(&[[1.0, 2.0], [f64::NAN, 1.0]], 0.95).is_err());
        assert!(tukey_hsd_blocked(&[&[1.0, 2.0][..], &[1.0, 2.0, 3.0]], 0.95).is_err());
    }
}
