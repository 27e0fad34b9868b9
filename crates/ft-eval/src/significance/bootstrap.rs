//! Bootstrap over items: samples of the same size, drawn with replacement.
//!
//! Efron & Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13 (percentile interval); Koehn,
//! "Statistical significance tests for machine translation evaluation", 2004, section 4 (paired test).

use serde::Serialize;

use super::differences;
use crate::random::resampled;
use crate::{Error, Result};

/// Settings of the bootstrap.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// The number of resamples.
    pub resamples: usize,
    /// The seed. It determines the resamples on any machine and with any number of threads.
    pub seed: u64,
    /// The share of the resamples inside the interval.
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 10_000,
            seed: 0,
            level: 0.95,
        }
    }
}

impl Bootstrap {
    pub(crate) fn validate(&self, items: usize) -> Result<()> {
        check_level(self.level)?;
        if self.resamples == 0 || items == 0 {
            return Err(Error::Input(
                "there must be at least one item and one resample".to_string(),
            ));
        }
        Ok(())
    }
}

/// An interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The result of [`paired_bootstrap`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairedBootstrap {
    /// The difference on all items, first minus second.
    pub difference: f64,
    /// Percentile interval of the difference.
    pub interval: Interval,
    /// Share of resamples in which the first system was better.
    pub first_wins: f64,
    /// Share of resamples in which the second system was better.
    pub second_wins: f64,
    /// Koehn's one-sided p-value: the share of resamples in which the system that is better on all items is not better.
    /// 1 if neither is better.
    pub p_value: f64,
    /// The two-sided p-value of sacreBLEU: the number of resampled `|differences|` minus their mean that exceed the
    /// observed `|difference|`; `(count + 1) / (resamples + 1)`.
    pub p_value_two_sided: f64,
}

/// Koehn's paired bootstrap of two systems whose score is the mean over items.
///
/// # Errors
///
/// [`Error::Input`] if the lists differ in length, are empty or not finite, or the settings are invalid.
///
/// ```
/// # use ft_eval::significance::{Bootstrap, paired_bootstrap};
/// let test = paired_bootstrap(&[0.9, 0.8, 0.7, 0.9], &[0.1, 0.2, 0.6, 0.3], &Bootstrap::default())?;
/// assert_eq!(test.first_wins, 1.0);
/// assert_eq!(test.p_value, 0.0);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn paired_bootstrap(
    first: &[f64],
    second: &[f64],
    settings: &Bootstrap,
) -> Result<PairedBootstrap> {
    let differences = differences(first, second)?;
    let n = differences.len() as f64;
    paired_bootstrap_by(differences.len(), settings, |items| {
        items.iter().map(|&i| differences[i]).sum::<f64>() / n
    })
}

/// The same for scores that are not means: `difference(items)` measures both systems on these items (for example, BLEU
/// from summed counts) and returns the first's score minus the second's.
///
/// # Errors
///
/// [`Error::Input`] if there are no items, the settings are invalid, or a difference is not finite.
pub fn paired_bootstrap_by(
    items: usize,
    settings: &Bootstrap,
    difference: impl Fn(&[usize]) -> f64 + Sync,
) -> Result<PairedBootstrap> {
    settings.validate(items)?;
    let all: Vec<usize> = (0..items).collect();
    let observed = difference(&all);
    let drawn = resampled(items, settings.resamples, settings.seed, difference);
    summary(observed, drawn, settings.level)
}

/// The result for resampled differences.
fn summary(observed: f64, drawn: Vec<f64>, level: f64) -> Result<PairedBootstrap> {
    if let Some(bad) = drawn.iter().chain([&observed]).find(|d| !d.is_finite()) {
        return Err(Error::Input(format!(
            "the systems differ by {bad} on some of the items: the measure must be finite on all of them"
        )));
    }
    let n = drawn.len() as f64;
    let share = |of: &dyn Fn(f64) -> bool| drawn.iter().filter(|&&d| of(d)).count() as f64 / n;
    let p_value = if observed == 0.0 {
        1.0
    } else {
        share(&|d| d * observed.signum() <= 0.0)
    };
    let mean = drawn.iter().map(|d| d.abs()).sum::<f64>() / n;
    let beyond = share(&|d| d.abs() - mean > observed.abs()) * n;
    Ok(PairedBootstrap {
        difference: observed,
        first_wins: share(&|d| d > 0.0),
        second_wins: share(&|d| d < 0.0),
        p_value,
        p_value_two_sided: (beyond.round() + 1.0) / (n + 1.0),
        interval: percentile_interval(drawn, level)?,
    })
}

/// Percentile interval of any measure: `statistic(items)` is computed on resampled items, and returns `None` if it is
/// undefined on them. Undefined resamples are ignored. `None` if all are undefined.
///
/// # Errors
///
/// [`Error::Input`] if there are no items or the settings are invalid.
pub fn bootstrap_interval(
    items: usize,
    settings: &Bootstrap,
    statistic: impl Fn(&[usize]) -> Option<f64> + Sync,
) -> Result<Option<Interval>> {
    settings.validate(items)?;
    let drawn = resampled(items, settings.resamples, settings.seed, statistic);
    let defined: Vec<f64> = drawn
        .into_iter()
        .flatten()
        .filter(|v| !v.is_nan())
        .collect();
    if defined.is_empty() {
        return Ok(None);
    }
    percentile_interval(defined, settings.level).map(Some)
}

/// The interval without `(1 - level) / 2` of the values on either side, with linear interpolation between values, as
/// `numpy.percentile`.
///
/// # Errors
///
/// [`Error::Input`] if there are no values, one is NaN, or `level` is not between 0 and 1.
pub fn percentile_interval(mut values: Vec<f64>, level: f64) -> Result<Interval> {
    check_level(level)?;
    if values.is_empty() || values.iter().any(|v| v.is_nan()) {
        return Err(Error::Input(
            "an interval needs at least one value, and no NaN".to_string(),
        ));
    }
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len() - 1) as f64;
        let below = place.floor();
        let (i, t) = (below as usize, place - below);
        let next = values[(i + 1).min(values.len() - 1)];
        if t == 0.0 || next == values[i] {
            values[i]
        } else {
            values[i] + (next - values[i]) * t
        }
    };
    let tail = (1.0 - level) / 2.0;
    Ok(Interval {
        low: at(tail),
        high: at(1.0 - tail),
    })
}

pub(crate) fn check_level(level: f64) -> Result<()> {
    if level > 0.0 && level < 1.0 {
        return Ok(());
    }
    Err(Error::Input(format!(
        "the confidence level is {level}: choose one between 0 and 1, such as 0.95"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_interpolate_between_values() {
        // numpy.percentile(range(11), [2.5, 97.5])
        let values = (0..11).rev().map(f64::from).collect();
        let interval = percentile_interval(values, 0.95).unwrap();
        assert!((interval.low - 0.25).abs() < 1e-12 && (interval.high - 9.75).abs() < 1e-12);
    }

    #[test]
    fn resampled_differences_are_counted_as_koehn_and_sacrebleu_do() {
        let drawn = vec![-1.0, 0.0, 1.0, 2.0, 3.0, 7.0];
        let test = summary(2.0, drawn, 0.5).unwrap();
        // -1 and 0 are not better: 2 of 6. Mean |d| is 14/6, and only 7 exceeds it by more than 2.
        assert_eq!(test.p_value, 2.0 / 6.0);
        assert_eq!(test.p_value_two_sided, 2.0 / 7.0);
        assert_eq!((test.first_wins, test.second_wins), (4.0 / 6.0, 1.0 / 6.0));
    }

    #[test]
    fn the_interval_of_a_mean_is_close_to_the_normal_one() {
        let scores: Vec<f64> = (0..400).map(|i| f64::from(i * 37 % 101)).collect();
        let zeros = vec![0.0; 400];
        let test = paired_bootstrap(&scores, &zeros, &Bootstrap::default()).unwrap();
        let variance = scores
            .iter()
            .map(|s| (s - test.difference).powi(2))
            .sum::<f64>()
            / 400.0;
        let radius = 1.96 * (variance / 400.0).sqrt();
        assert!((test.interval.low - (test.difference - radius)).abs() < 0.1 * radius);
        assert!((test.interval.high - (test.difference + radius)).abs() < 0.1 * radius);
    }

    #[test]
    fn a_seed_repeats_and_equal_systems_do_not_differ() {
        let a = [0.1, 0.5, 0.2];
        let b = [0.3, 0.1, 0.2];
        let run = || paired_bootstrap(&a, &b, &Bootstrap::default()).unwrap();
        assert_eq!(run(), run());
        let same = paired_bootstrap(&a, &a, &Bootstrap::default()).unwrap();
        assert_eq!(
            (same.p_value, same.p_value_two_sided),
            (1.0, 1.0 / 10_001.0)
        );
    }

    #[test]
    fn undefined_resamples_are_ignored() {
        let interval = |f: fn(&[usize]) -> Option<f64>| {
            bootstrap_interval(3, &Bootstrap::default(), f).unwrap()
        };
        assert_eq!(interval(|_| None), None);
        let some = interval(|i| (i[0] == 1).then_some(4.0)).unwrap();
        assert_eq!((some.low, some.high), (4.0, 4.0));
    }
}
