//! Corrections of p-values for multiple tests.

use serde::Serialize;

use crate::{Error, Result};

/// Corrected p-values, in the order of the tests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Corrected {
    /// The adjusted p-values, at most 1, which are compared with the same `alpha` as for a single test.
    pub p_values: Vec<f64>,
    /// Which hypotheses are rejected.
    pub reject: Vec<bool>,
}

/// Holm's step-down correction ("A simple sequentially rejective multiple test procedure", 1979): the
/// probability of one or more false rejections is at most `alpha`. As statsmodels' `multipletests(method="holm")`.
///
/// The i-th smallest of m p-values is multiplied by `m - i + 1`, and is at least the one before.
///
/// # Errors
///
/// [`Error::Input`] if a p-value or `alpha` is not between 0 and 1 (statsmodels accepts NaN).
///
/// ```
/// # use ft_eval::significance::holm;
/// let corrected = holm(&[0.01, 0.04, 0.03], 0.05)?;
/// assert_eq!(corrected.p_values, [0.03, 0.06, 0.06]);
/// assert_eq!(corrected.reject, [true, false, false]);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn holm(p_values: &[f64], alpha: f64) -> Result<Corrected> {
    let order = ascending(p_values, alpha)?;
    let mut corrected = unchanged(p_values);
    let mut largest: f64 = 0.0;
    let mut rejecting = true;
    for (rank, &i) in order.iter().enumerate() {
        let left = (order.len() - rank) as f64;
        largest = largest.max(p_values[i] * left);
        rejecting &= p_values[i] <= alpha / left;
        corrected.p_values[i] = largest.min(1.0);
        corrected.reject[i] = rejecting;
    }
    Ok(corrected)
}

/// Benjamini & Hochberg's step-up correction ("Controlling the false discovery rate", 1995): at most a share of `alpha` of
/// the rejected hypotheses is expected to be true. As statsmodels' `multipletests(method="fdr_bh")`.
///
/// The i-th smallest of m p-values is multiplied by `m / i`, and is at most the one after.
///
/// # Errors
///
/// [`Error::Input`] if a p-value or `alpha` is not between 0 and 1 (statsmodels accepts NaN).
pub fn benjamini_hochberg(p_values: &[f64], alpha: f64) -> Result<Corrected> {
    let order = ascending(p_values, alpha)?;
    let mut corrected = unchanged(p_values);
    let mut smallest: f64 = 1.0;
    let mut rejecting = false;
    for (rank, &i) in order.iter().enumerate().rev() {
        // The share first, then the quotient, as in statsmodels: another order rounds differently.
        let share = (rank + 1) as f64 / order.len() as f64;
        smallest = smallest.min(p_values[i] / share);
        rejecting |= p_values[i] <= share * alpha;
        corrected.p_values[i] = smallest;
        corrected.reject[i] = rejecting;
    }
    Ok(corrected)
}

fn unchanged(p_values: &[f64]) -> Corrected {
    Corrected {
        p_values: p_values.to_vec(),
        reject: vec![false; p_values.len()],
    }
}

fn ascending(p_values: &[f64], alpha: f64) -> Result<Vec<usize>> {
    let inside = 0.0..=1.0;
    if let Some(i) = p_values.iter().position(|p| !inside.contains(p)) {
        return Err(Error::Input(format!(
            "p-value {i} is {}: remove tests without a result",
            p_values[i]
        )));
    }
    if !inside.contains(&alpha) {
        return Err(Error::Input(format!(
            "alpha is {alpha}: choose one between 0 and 1, such as 0.05"
        )));
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_test_is_not_changed_and_an_empty_list_stays_empty() {
        for correct in [holm, benjamini_hochberg] {
            let one = correct(&[0.04], 0.05).unwrap();
            assert_eq!((one.p_values, one.reject), (vec![0.04], vec![true]));
            assert!(correct(&[], 0.05).unwrap().reject.is_empty());
        }
    }

    #[test]
    fn an_invalid_probability_is_an_error() {
        for (p, alpha) in [(f64::NAN, 0.05), (1.5, 0.05), (0.1, -1.0), (0.1, f64::NAN)] {
            assert!(holm(&[p], alpha).is_err());
            assert!(benjamini_hochberg(&[p], alpha).is_err());
        }
    }
}
