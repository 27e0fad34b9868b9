//! Measures of predicted numbers.
//!
//! ```
//! use ft_eval::regression::{mean_squared_error, pearson, spearman};
//!
//! let (truth, found) = ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]);
//! assert_eq!(pearson(&truth, &found)?, Some(0.5));
//! assert_eq!(spearman(&truth, &found)?, Some(0.5));
//! assert_eq!(mean_squared_error(&truth, &found)?, 2.0 / 3.0);
//! # Ok::<(), ft_eval::Error>(())
//! ```

use crate::{Error, Result};

/// `Σ (xᵢ − yᵢ)² / n`.
///
/// # Errors
///
/// If the lists are empty, differ in length, or hold a number that is not finite.
pub fn mean_squared_error(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x, y)?;
    let squares = x.iter().zip(y).map(|(x, y)| (x - y).powi(2));
    Ok(squares.sum::<f64>() / x.len() as f64)
}

/// Pearson's correlation, `Σ (xᵢ − x̄)(yᵢ − ȳ) / √(Σ (xᵢ − x̄)² Σ (yᵢ − ȳ)²)`; `None` if one of the lists is constant.
///
/// # Errors
///
/// As [`mean_squared_error`].
pub fn pearson(x: &[f64], y: &[f64]) -> Result<Option<f64>> {
    check(x, y)?;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        xy += x * y;
        xx += x * x;
        yy += y * y;
    }
    Ok((xx > 0.0 && yy > 0.0).then(|| (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0)))
}

/// Spearman's correlation: [`pearson`] of the ranks, equal numbers having the mean of their ranks.
///
/// # Errors
///
/// As [`mean_squared_error`].
pub fn spearman(x: &[f64], y: &[f64]) -> Result<Option<f64>> {
    check(x, y)?;
    pearson(&ranks(x), &ranks(y))
}

fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut ranks = vec![0.0; x.len()];
    let mut start = 0;
    while start < order.len() {
        let alike = order[start..].iter();
        let count = alike
            .take_while(|&&place| x[place] == x[order[start]])
            .count();
        let rank = start as f64 + (count as f64 + 1.0) / 2.0;
        for &place in &order[start..start + count] {
            ranks[place] = rank;
        }
        start += count;
    }
    ranks
}

fn check(x: &[f64], y: &[f64]) -> Result<()> {
    if x.is_empty() || x.len() != y.len() {
        return Err(Error::Input(format!(
            "{} and {} numbers: there must be as many of both, and at least one",
            x.len(),
            y.len()
        )));
    }
    match x.iter().chain(y).find(|x| !x.is_finite()) {
        Some(bad) => Err(Error::Input(format!("{bad} is not finite"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of scipy 1.17.1: pearsonr, spearmanr.
    #[test]
    fn correlations_are_those_of_scipy() {
        let x = [1.0, 2.0, 2.0, 5.0, 7.0];
        let y = [0.5, 3.0, 1.0, 1.0, 9.0];
        let close = |found: Option<f64>, expected: f64| {
            let found = found.expect("a correlation");
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        };
        close(pearson(&x, &y).expect("fits"), 0.764745226939076);
        close(spearman(&x, &y).expect("fits"), 0.7631578947368421);
    }

    #[test]
    fn constants_have_no_correlation_and_bad_lists_are_errors() {
        assert_eq!(pearson(&[1.0, 1.0], &[0.0, 2.0]).ok(), Some(None));
        assert!(pearson(&[1.0], &[]).is_err());
        assert!(mean_squared_error(&[f64::NAN], &[1.0]).is_err());
    }
}
