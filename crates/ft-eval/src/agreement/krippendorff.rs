//! Krippendorff's alpha: any number of raters, with missing ratings.
//!
//! `α = 1 - Dₒ / Dₑ`: the mean distance of two ratings of the same item over that of any two ratings
//! (Krippendorff, *Content Analysis*, 4th edition, 2019, chapter 12; "Computing Krippendorff's
//! alpha-reliability", 2011). An item with m ratings adds its distances divided by `m - 1`; items with fewer
//! than two ratings are ignored.
//!
//! The usual implementation has a matrix of all values by all values. Here the function [`spread`], the sum of the
//! distances of all ordered pairs of a list, is applied to each item and to all ratings. It has a closed form for all
//! levels except ratio, and the ordinal distance is the interval distance of mean ranks. Many different values
//! therefore need no memory, and resampling is cheap.

use crate::{Error, Result};

/// The level of measurement, which defines the distance of two ratings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Names: 0 or 1.
    Nominal,
    /// Ranks: the squared number of ratings between.
    Ordinal,
    /// Numbers: `(a - b)²`. The reference's default.
    #[default]
    Interval,
    /// Numbers with a true zero: `((a - b) / (a + b))²`, and 0 if `a + b` is 0.
    Ratio,
}

/// Krippendorff's alpha, as the Python package krippendorff: `items[i]` has the ratings of item `i`, with `None` for a
/// missing one (the package has the transpose, a row per rater).
///
/// `None` if all ratings with a pair are equal, or no rating has a pair (the package: NaN or an error).
///
/// # Errors
///
/// [`Error::Input`] if there are no items, or a rating is not finite.
///
/// ```
/// # use ft_eval::agreement::{Level, krippendorff_alpha};
/// let items = [[Some(1.0), Some(1.0)], [Some(2.0), Some(3.0)], [Some(3.0), Some(3.0)], [None, Some(9.0)]];
/// // Dₒ = 2 · 1 / 6, Dₑ = 2 (6 Σ x² - (Σ x)²) / (6 · 5) = 2 · (198 - 169) / 30.
/// let alpha = krippendorff_alpha(&items, Level::Interval)?.expect("ratings differ");
/// assert!((alpha - (1.0 - (1.0 / 3.0) / (29.0 / 15.0))).abs() < 1e-12);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn krippendorff_alpha<R: AsRef<[Option<f64>]>>(
    items: &[R],
    level: Level,
) -> Result<Option<f64>> {
    if items.is_empty() {
        return Err(Error::Input("no items: give at least one".to_string()));
    }
    for (i, item) in items.iter().enumerate() {
        if let Some(bad) = item.as_ref().iter().flatten().find(|r| !r.is_finite()) {
            return Err(Error::Input(format!(
                "a rating of item {i} is {bad}: use None for a missing rating"
            )));
        }
    }
    let given = |item: &R| item.as_ref().iter().flatten().copied().collect();
    Ok(alpha(items.iter().map(given).collect(), level))
}

/// Krippendorff's alpha of labels without order, or, for [`Level::Ordinal`], with the order of their type.
///
/// # Errors
///
/// [`Error::Input`] if there are no items, or the level requires numbers.
pub fn krippendorff_alpha_of_labels<L: Ord, R: AsRef<[Option<L>]>>(
    items: &[R],
    level: Level,
) -> Result<Option<f64>> {
    if items.is_empty() || matches!(level, Level::Interval | Level::Ratio) {
        return Err(Error::Input(
            "labels have only nominal and ordinal distances, and at least one item is needed"
                .to_string(),
        ));
    }
    let mut labels: Vec<&L> = items.iter().flat_map(|i| i.as_ref()).flatten().collect();
    labels.sort_unstable();
    labels.dedup();
    let place = |l: &L| labels.partition_point(|known| *known < l) as f64;
    let given = |item: &R| item.as_ref().iter().flatten().map(place).collect();
    Ok(alpha(items.iter().map(given).collect(), level))
}

/// Alpha of lists of finite ratings.
pub(super) fn alpha(mut items: Vec<Vec<f64>>, level: Level) -> Option<f64> {
    items.retain(|i| i.len() > 1);
    let mut all = items.concat();
    if level == Level::Ordinal {
        let ranks = MeanRanks::of(&all);
        items.iter_mut().flatten().for_each(|r| *r = ranks.rank(*r));
        all = items.concat();
    }
    let observed: f64 = items
        .iter_mut()
        .map(|item| {
            let pairs = (item.len() - 1) as f64;
            spread(item, level) / pairs
        })
        .sum();
    let pairs = all.len().saturating_sub(1) as f64;
    let expected = spread(&mut all, level) / pairs;
    let alpha = 1.0 - observed / expected;
    (expected > 0.0 && alpha.is_finite()).then_some(alpha)
}

/// The sum of the distances of all ordered pairs. Sorts the ratings.
fn spread(ratings: &mut [f64], level: Level) -> f64 {
    let n = ratings.len() as f64;
    ratings.sort_unstable_by(f64::total_cmp);
    match level {
        Level::Nominal => {
            let alike = ratings.chunk_by(|a, b| a == b);
            n * n - alike.map(|r| (r.len() as f64).powi(2)).sum::<f64>()
        }
        Level::Ordinal | Level::Interval => {
            if ratings.first() == ratings.last() {
                return 0.0;
            }
            let mean = ratings.iter().sum::<f64>() / n;
            2.0 * n * ratings.iter().map(|r| (r - mean).powi(2)).sum::<f64>()
        }
        Level::Ratio => {
            let values: Vec<(f64, f64)> = ratings
                .chunk_by(|a, b| a == b)
                .map(|r| (r[0], r.len() as f64))
                .collect();
            let mut sum = 0.0;
            for (i, (a, times_a)) in values.iter().enumerate() {
                for (b, times_b) in &values[..i] {
                    if a + b != 0.0 {
                        sum += times_a * times_b * ((a - b) / (a + b)).powi(2);
                    }
                }
            }
            2.0 * sum
        }
    }
}

/// The mean ranks of values: `Σ n_g` over smaller values plus half of the value's own count. Their differences are
/// Krippendorff's ordinal distances, `Σ n_g` from one value to the other minus half of both ends.
struct MeanRanks(Vec<(f64, f64)>);

impl MeanRanks {
    fn of(ratings: &[f64]) -> Self {
        let mut sorted = ratings.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mut below = 0.0;
        let rank = |same: &[f64]| {
            let count = same.len() as f64;
            below += count;
            (same[0], below - count / 2.0)
        };
        Self(sorted.chunk_by(|a, b| a == b).map(rank).collect())
    }

    fn rank(&self, rating: f64) -> f64 {
        let place = self.0.partition_point(|(value, _)| *value < rating);
        self.0[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Krippendorff's "Computing alpha-reliability" (2011), section D: four observers, twelve
    /// units, with his results.
    #[test]
    fn the_published_example() {
        let raters = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ];
        let items: Vec<[Option<f64>; 4]> = (0..12)
            .map(|i| raters.map(|r| (r[i] > 0).then(|| f64::from(r[i]))))
            .collect();
        for (level, published) in [
            (Level::Nominal, 0.743),
            (Level::Ordinal, 0.815),
            (Level::Interval, 0.849),
            (Level::Ratio, 0.797),
        ] {
            let alpha = krippendorff_alpha(&items, level).unwrap().unwrap();
            assert!((alpha - published).abs() < 5e-4, "{level:?}: {alpha}");
        }
    }

    #[test]
    fn equal_ratings_have_no_alpha() {
        for level in [
            Level::Nominal,
            Level::Ordinal,
            Level::Interval,
            Level::Ratio,
        ] {
            let alone = [[Some(1.0), None], [None, Some(2.0)]];
            assert_eq!(krippendorff_alpha(&alone, level).unwrap(), None);
            let same = [[Some(0.1); 3], [Some(0.1); 3], [None, None, Some(2.0)]];
            assert_eq!(krippendorff_alpha(&same, level).unwrap(), None);
            let huge = [[Some(1e300), Some(-1e300)]];
            krippendorff_alpha(&huge, level).unwrap();
        }
    }

    #[test]
    fn an_invalid_rating_is_an_error() {
        assert!(krippendorff_alpha(&[[Some(f64::NAN)]], Level::Nominal).is_err());
        assert!(krippendorff_alpha::<[Option<f64>; 1]>(&[], Level::Nominal).is_err());
        assert!(krippendorff_alpha_of_labels(&[[Some("a")]], Level::Interval).is_err());
    }
}
