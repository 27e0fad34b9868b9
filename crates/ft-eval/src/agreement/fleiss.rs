//! Fleiss' kappa: items with the same number of ratings, from any raters.
//!
//! `κ = (P̄ - P̄ₑ) / (1 - P̄ₑ)`: the share of agreeing pairs of ratings of an item, and the share expected of
//! pairs drawn from all ratings (Fleiss, *Psychological Bulletin* 76, 1971).

use serde::Serialize;

use crate::significance::normal_two_sided;
use crate::{Error, Result};

/// Fleiss' kappa with its standard error under agreement by chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FleissKappa {
    /// 0 is agreement by chance, 1 the maximum.
    pub value: f64,
    /// The standard error under agreement by chance, for a test and not for an interval (Fleiss, Nee & Landis,
    /// *Psychological Bulletin* 86, 1979, equation 12; statsmodels has none). For an interval, resample items.
    pub null_standard_error: f64,
}

impl FleissKappa {
    /// Two-sided p-value of `κ / SE₀`, for the hypothesis of agreement by chance.
    pub fn p_value(&self) -> f64 {
        normal_two_sided(self.value / self.null_standard_error)
    }
}

/// Fleiss' kappa, as `statsmodels.stats.inter_rater.fleiss_kappa`: `table[i][j]` is the number of ratings of item `i` with
/// category `j`.
///
/// `None` if there is one rating per item, or all ratings are in one category (statsmodels: NaN).
///
/// # Errors
///
/// [`Error::Input`] if there are no items or no ratings, or rows differ in length. As in statsmodels, also if items differ
/// in the number of ratings: use Krippendorff's alpha for those.
///
/// ```
/// # use ft_eval::agreement::fleiss_kappa;
/// let kappa = fleiss_kappa(&[[3, 0], [2, 1], [0, 3], [1, 2]])?.expect("two categories");
/// assert!((kappa.value - 1.0 / 3.0).abs() < 1e-12);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn fleiss_kappa<R: AsRef<[u64]>>(table: &[R]) -> Result<Option<FleissKappa>> {
    let Some(first) = table.first().map(AsRef::as_ref) else {
        return Err(Error::Input("no items: give at least one".to_string()));
    };
    // 128 bits, so that no table overflows.
    let sum = |row: &[u64]| row.iter().map(|c| u128::from(*c)).sum::<u128>();
    let ratings = sum(first);
    if ratings == 0 {
        return Err(Error::Input(
            "item 0 has no ratings: remove such items".to_string(),
        ));
    }
    for (i, row) in table.iter().map(AsRef::as_ref).enumerate() {
        let (here, categories) = (sum(row), row.len());
        if here != ratings || categories != first.len() {
            return Err(Error::Input(format!(
                "item {i} has {here} ratings in {categories} categories, and item 0 {ratings} in {}: Fleiss' kappa \
                 needs the same of each; Krippendorff's alpha does not",
                first.len()
            )));
        }
    }
    let mut totals = vec![0; first.len()];
    let mut squares = 0.0;
    for row in table.iter().map(AsRef::as_ref) {
        for (total, count) in totals.iter_mut().zip(row) {
            *total += u128::from(*count);
            squares += (*count as f64).powi(2);
        }
    }
    Ok(kappa(table.len() as u128, ratings, &totals, squares))
}

/// Fleiss' kappa of `items` with `ratings` each, from the number of ratings of each category and the sum of the squared
/// counts.
pub(super) fn kappa(
    items: u128,
    ratings: u128,
    totals: &[u128],
    squares: f64,
) -> Option<FleissKappa> {
    if ratings < 2 || totals.contains(&(items * ratings)) {
        return None;
    }
    let (n, m) = (items as f64, ratings as f64);
    let seen = (squares - n * m) / (n * m * (m - 1.0));
    let shares = || totals.iter().map(|t| *t as f64 / (n * m));
    let expected: f64 = shares().map(|p| p * p).sum();
    // Σ p q and Σ p q (q - p), q = 1 - p.
    let spread: f64 = shares().map(|p| p * (1.0 - p)).sum();
    let skew: f64 = shares().map(|p| p * (1.0 - p) * (1.0 - 2.0 * p)).sum();
    let variance = 2.0 * (spread * spread - skew) / (n * m * (m - 1.0) * spread * spread);
    Some(FleissKappa {
        value: (seen - expected) / (1.0 - expected),
        null_standard_error: variance.max(0.0).sqrt(),
    })
}

/// The table of counts of ratings (a row per item, a column per rater): the number of ratings of each item with each
/// category, in the order of the categories, as statsmodels' `aggregate_raters`.
///
/// ```
/// # use ft_eval::agreement::fleiss_table;
/// assert_eq!(fleiss_table(&[["b", "a", "b"], ["c", "c", "c"]]), [[1, 2, 0], [0, 0, 3]]);
/// ```
pub fn fleiss_table<L: Ord, R: AsRef<[L]>>(items: &[R]) -> Vec<Vec<u64>> {
    let mut categories: Vec<&L> = items.iter().flat_map(|i| i.as_ref()).collect();
    categories.sort_unstable();
    categories.dedup();
    let count = |item: &R| {
        let mut row = vec![0; categories.len()];
        for rating in item.as_ref() {
            if let Ok(place) = categories.binary_search(&rating) {
                row[place] += 1;
            }
        }
        row
    };
    items.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratings_have_no_kappa() {
        assert_eq!(fleiss_kappa(&[[3, 0], [3, 0]]).unwrap(), None);
        assert_eq!(fleiss_kappa(&[[1, 0], [0, 1]]).unwrap(), None);
    }

    #[test]
    fn an_invalid_table_is_an_error() {
        assert!(fleiss_kappa::<[u64; 2]>(&[]).is_err());
        assert!(fleiss_kappa(&[[0, 0]]).is_err());
        let unequal = fleiss_kappa(&[[2, 1], [2, 0]]).unwrap_err().to_string();
        assert!(unequal.contains("item 1 has 2 ratings"), "{unequal}");
        assert!(fleiss_kappa(&[&[1, 1][..], &[1, 1, 0]]).is_err());
    }

    #[test]
    fn the_standard_error_is_the_deviation_of_kappa_by_chance() {
        // 4,000 tables of random ratings: 40 items, 3 raters, shares 1/2, 1/4, 1/4.
        let mut random = crate::random::SplitMix::new(5, 0);
        let (mut squares, mut error) = (0.0, 0.0);
        for _ in 0..4_000 {
            let items: Vec<[usize; 3]> = (0..40)
                .map(|_| std::array::from_fn(|_| [0, 0, 1, 2][random.below(4)]))
                .collect();
            let kappa = fleiss_kappa(&fleiss_table(&items)).unwrap().unwrap();
            squares += kappa.value.powi(2);
            error += kappa.null_standard_error;
        }
        let (spread, error) = ((squares / 4_000.0_f64).sqrt(), error / 4_000.0);
        assert!((spread / error - 1.0).abs() < 0.05, "{spread} {error}");
    }
}
