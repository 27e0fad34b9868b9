//! Calibration of confidences.

use serde::Serialize;

use crate::{Error, Result};

/// The differences of confidences and accuracies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error: `Σ |Bₘ|/n · |acc(Bₘ) − conf(Bₘ)|`.
    pub expected_error: f64,
    /// Maximum calibration error: the largest of the differences.
    pub maximum_error: f64,
    /// Mean confidence, accuracy and number of items of each bin that is not empty: the points of a reliability diagram.
    pub bins: Vec<(f64, f64, usize)>,
}

/// Calibration by bins of equal width (Guo et al., 2017, arXiv:1706.04599, equations 3 and 5; 15 bins there). Bin `m` of
/// `M` is `((m − 1)/M, m/M]`, and a confidence of 0 is in the first.
///
/// # Errors
///
/// If there are no items or no bins, the lists differ in length, or a confidence is not between 0 and 1.
///
/// ```
/// use ft_eval::classification::calibration;
///
/// // Correct once out of two, with full confidence both times.
/// let found = calibration(&[0.9, 0.9], &[true, false], 15)?;
/// assert!((found.expected_error - 0.4).abs() < 1e-12);
/// # Ok::<(), ft_eval::Error>(())
/// ```
pub fn calibration(confidences: &[f64], correct: &[bool], bins: usize) -> Result<Calibration> {
    if confidences.is_empty() || confidences.len() != correct.len() || bins == 0 {
        return Err(Error::Input(format!(
            "{} confidences, {} outcomes, {bins} bins: the first two must be equal, and all at least one",
            confidences.len(),
            correct.len()
        )));
    }
    if let Some(wrong) = confidences.iter().find(|c| !(0.0..=1.0).contains(*c)) {
        return Err(Error::Input(format!(
            "the confidence {wrong} is not between 0 and 1"
        )));
    }
    let mut sums = vec![(0.0, 0.0, 0usize); bins];
    for (confidence, correct) in confidences.iter().zip(correct) {
        // The first bin whose upper end is not below, found without rounding errors.
        let near = (confidence * bins as f64).ceil() as usize;
        let end = |bin: usize| (bin + 1) as f64 / bins as f64;
        let mut bin = near.saturating_sub(2).min(bins - 1);
        while bin + 1 < bins && *confidence > end(bin) {
            bin += 1;
        }
        sums[bin].0 += confidence;
        sums[bin].1 += f64::from(u8::from(*correct));
        sums[bin].2 += 1;
    }
    let bins: Vec<(f64, f64, usize)> = (sums.into_iter())
        .filter(|(_, _, items)| *items > 0)
        .map(|(confidence, correct, items)| {
            (confidence / items as f64, correct / items as f64, items)
        })
        .collect();
    let gap = |(confidence, accuracy, _): &(f64, f64, usize)| (confidence - accuracy).abs();
    let total = confidences.len() as f64;
    Ok(Calibration {
        expected_error: bins.iter().map(|bin| bin.2 as f64 / total * gap(bin)).sum(),
        maximum_error: bins.iter().map(gap).fold(0.0, f64::max),
        bins,
    })
}
