//! Cohen's kappa of two raters.
//!
//! `κ = 1 - Σ w n / Σ w e`: observed disagreement over the disagreement expected of independent raters with the same
//! frequencies, `eᵢⱼ = rᵢ cⱼ / n` (Cohen, *Educational and Psychological
//! Measurement* 20, 1960; weighted: *Psychological Bulletin* 70, 1968). The large-sample standard error is
//! that of Fleiss, Cohen & Everitt, *Psychological Bulletin* 72, 1969, equations 8 and 13.
//!
//! Both sums are exact integers here. No table of categories by categories is needed: the expected sum has a
//! closed form in the raters' frequencies for every choice of weights.

use serde::Serialize;

use crate::significance::{Interval, normal_quantile};
use crate::{Error, Result};

/// The weights of disagreements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Equal weights: categories without order.
    #[default]
    Equal,
    /// The distance of the categories, `|i - j|`.
    Linear,
    /// The squared distance, `(i - j)²`.
    Quadratic,
}

/// Cohen's kappa with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kappa {
    /// From -1 to 1; 0 is agreement by chance.
    pub value: f64,
    /// Large-sample standard error, as statsmodels' `cohens_kappa` (`std_kappa`). It is 0 if raters agree on everything
    /// or one of them uses a single category. By rounding, statsmodels may return 1e-8 or NaN in these cases.
    pub standard_error: f64,
}

impl Kappa {
    /// `κ ± z SE`: the interval of the normal approximation.
    pub fn interval(&self, level: f64) -> Interval {
        let radius = normal_quantile(1.0 - level) * self.standard_error;
        Interval {
            low: self.value - radius,
            high: self.value + radius,
        }
    }
}

/// Cohen's kappa, as `sklearn.metrics.cohen_kappa_score`: `first[i]` and `second[i]` rate item `i`.
///
/// Categories are the values that occur, in their order. Weights depend on the positions in this order, not on the values
/// (1, 2 and 9 have the same distances as 1, 2 and 3). `None` if both raters use only one and the same category
/// (scikit-learn: NaN). Fractional numbers are categories as well (scikit-learn refuses them).
///
/// # Errors
///
/// [`Error::Input`] if the lists differ in length or are empty.
///
/// ```
/// # use ft_eval::agreement::{Weights, cohen_kappa};
/// let first = ["negative", "positive", "negative", "neutral", "positive"];
/// let second = ["negative", "positive", "negative", "neutral", "negative"];
/// let kappa = cohen_kappa(&first, &second, Weights::Equal)?.expect("two categories");
/// assert!((kappa.value - 0.6875).abs() < 1e-12);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn cohen_kappa<L: Ord>(first: &[L], second: &[L], weights: Weights) -> Result<Option<Kappa>> {
    check(first, second)?;
    let mut labels: Vec<&L> = first.iter().chain(second).collect();
    labels.sort_unstable();
    labels.dedup();
    let place = |l: &L| labels.binary_search(&l).ok();
    Ok(of_places(first, second, labels.len(), weights, place))
}

/// The same with given categories in a given order. Items with other ratings are ignored.
///
/// # Errors
///
/// [`Error::Input`] if the lists differ in length or are empty. As in scikit-learn, also if there are no labels or
/// none of them occurs in `first`.
pub fn cohen_kappa_with_labels<L: PartialEq>(
    first: &[L],
    second: &[L],
    labels: &[L],
    weights: Weights,
) -> Result<Option<Kappa>> {
    check(first, second)?;
    // The last position of a duplicate label, as in scikit-learn.
    let place = |l: &L| labels.iter().rposition(|known| known == l);
    if !first.iter().any(|l| place(l).is_some()) {
        return Err(Error::Input(
            "none of the labels is among the first rater's ratings: give labels that occur"
                .to_string(),
        ));
    }
    Ok(of_places(first, second, labels.len(), weights, place))
}

fn check<L>(first: &[L], second: &[L]) -> Result<()> {
    if first.len() == second.len() && !first.is_empty() {
        return Ok(());
    }
    Err(Error::Input(format!(
        "{} ratings of the first rater and {} of the second: each needs one rating per item, for at least one item",
        first.len(),
        second.len()
    )))
}

fn of_places<L>(
    first: &[L],
    second: &[L],
    categories: usize,
    weights: Weights,
    place: impl Fn(&L) -> Option<usize>,
) -> Option<Kappa> {
    let pairs: Vec<(usize, usize)> = (first.iter().zip(second))
        .filter_map(|(a, b)| Some((place(a)?, place(b)?)))
        .collect();
    let value = kappa(pairs.iter().copied(), categories, weights)?;
    Some(Kappa {
        value,
        standard_error: standard_error(value, &pairs, categories, weights),
    })
}

/// Kappa of pairs of categories `0..categories`; `None` if no disagreement is expected.
pub(super) fn kappa(
    pairs: impl Iterator<Item = (usize, usize)>,
    categories: usize,
    weights: Weights,
) -> Option<f64> {
    let (mut n, mut seen) = (0_u128, 0_u128);
    let (mut rows, mut columns) = (vec![0_u128; categories], vec![0_u128; categories]);
    for (i, j) in pairs {
        n += 1;
        seen += weight(i, j, weights);
        rows[i] += 1;
        columns[j] += 1;
    }
    // n times the expected disagreement.
    let expected: u128 = match weights {
        Weights::Equal => {
            n * n
                - (rows.iter().zip(&columns))
                    .map(|(r, c)| r * c)
                    .sum::<u128>()
        }
        // A step between two categories is crossed by pairs with one category below it and the other above it.
        Weights::Linear => {
            let (mut r, mut c, mut sum) = (0, 0, 0);
            for i in 0..categories {
                r += rows[i];
                c += columns[i];
                sum += r * (n - c) + c * (n - r);
            }
            sum
        }
        // Σ (i - j)² r c, expanded.
        Weights::Quadratic => {
            let moment = |counts: &[u128], power| -> u128 {
                (0..)
                    .zip(counts)
                    .map(|(i, c): (u128, _)| i.pow(power) * c)
                    .sum()
            };
            n * (moment(&rows, 2) + moment(&columns, 2))
                - 2 * moment(&rows, 1) * moment(&columns, 1)
        }
    };
    (expected > 0).then(|| 1.0 - (n * seen) as f64 / expected as f64)
}

fn weight(i: usize, j: usize, weights: Weights) -> u128 {
    let apart = i.abs_diff(j) as u128;
    match weights {
        Weights::Equal => apart.min(1),
        Weights::Linear => apart,
        Weights::Quadratic => apart * apart,
    }
}

fn standard_error(
    kappa: f64,
    pairs: &[(usize, usize)],
    categories: usize,
    weights: Weights,
) -> f64 {
    let n = pairs.len() as f64;
    let largest = weight(0, categories - 1, weights) as f64;
    let agreement = |i, j| 1.0 - weight(i, j, weights) as f64 / largest;
    let (mut rows, mut columns) = (vec![0.0; categories], vec![0.0; categories]);
    for &(i, j) in pairs {
        rows[i] += 1.0 / n;
        columns[j] += 1.0 / n;
    }
    // Mean agreement of a category of one rater with the other's frequencies.
    let with = |frequencies: &[f64]| -> Vec<f64> {
        if weights == Weights::Equal {
            return frequencies.to_vec();
        }
        (0..categories)
            .map(|i| {
                (0..)
                    .zip(frequencies)
                    .map(|(j, f)| agreement(i, j) * f)
                    .sum()
            })
            .collect()
    };
    let (row_means, column_means) = (with(&columns), with(&rows));
    let expected: f64 = row_means.iter().zip(&rows).map(|(w, r)| w * r).sum();
    let square: f64 = pairs
        .iter()
        .map(|&(i, j)| (agreement(i, j) - (row_means[i] + column_means[j]) * (1.0 - kappa)).powi(2))
        .sum::<f64>()
        / n;
    let variance = square - (kappa - expected * (1.0 - kappa)).powi(2);
    if variance < 1e-14 * square {
        return 0.0;
    }
    (variance / n).sqrt() / (1.0 - expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_category_has_no_kappa() {
        assert_eq!(
            cohen_kappa(&[1, 1], &[1, 1], Weights::Quadratic).unwrap(),
            None
        );
        // Two categories, one for each rater: all disagreement is expected.
        let kappa = cohen_kappa(&[1, 1], &[2, 2], Weights::Equal)
            .unwrap()
            .unwrap();
        assert_eq!(kappa.value, 0.0);
    }

    #[test]
    fn weights_count_places() {
        let value =
            |a: &[i32], b: &[i32], weights| cohen_kappa(a, b, weights).unwrap().unwrap().value;
        for weights in [Weights::Linear, Weights::Quadratic] {
            let near = value(&[1, 2, 3, 1], &[1, 3, 3, 2], weights);
            assert_eq!(near, value(&[1, 2, 9, 1], &[1, 9, 9, 2], weights));
        }
    }

    #[test]
    fn lists_of_different_lengths_are_an_error() {
        assert!(cohen_kappa(&[1, 2], &[1], Weights::Equal).is_err());
        assert!(cohen_kappa::<u8>(&[], &[], Weights::Equal).is_err());
        assert!(cohen_kappa_with_labels(&[1, 2], &[1, 2], &[3], Weights::Equal).is_err());
        assert!(cohen_kappa_with_labels(&[1, 2], &[1, 2], &[], Weights::Equal).is_err());
    }
}
