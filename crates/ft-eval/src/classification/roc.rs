//! The area under the receiver operating characteristic.

use crate::{Error, Result};

/// The probability that a positive item has a higher score than a negative one; a tie counts one half (Hanley and McNeil,
/// 1982, doi:10.1148/radiology.143.1.7063747). `None` if all items are of one class.
///
/// # Errors
///
/// If the lists are empty or differ in length, or a score is not a number.
pub fn roc_auc(labels: &[bool], scores: &[f64]) -> Result<Option<f64>> {
    if labels.is_empty() || labels.len() != scores.len() {
        return Err(Error::Input(format!(
            "{} labels and {} scores: the numbers must be equal, and at least one",
            labels.len(),
            scores.len()
        )));
    }
    if let Some(i) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::Input(format!("score {i} is not a number")));
    }
    Ok(area(
        labels.iter().copied().zip(scores.iter().copied()).collect(),
    ))
}

fn area(mut items: Vec<(bool, f64)>) -> Option<f64> {
    items.sort_by(|a, b| a.1.total_cmp(&b.1));
    let positives = items.iter().filter(|(label, _)| *label).count();
    let negatives = items.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // For each positive the number of negatives with a lower score, and half of those with the same; counted in halves, to be
    // exact.
    let (mut halves, mut below) = (0u128, 0u128);
    for tied in items.chunk_by(|a, b| a.1 == b.1) {
        let positive = tied.iter().filter(|(label, _)| *label).count() as u128;
        let negative = tied.len() as u128 - positive;
        halves += positive * (2 * below + negative);
        below += negative;
    }
    Some(halves as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// The comparisons of more than two classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultiClass {
    /// Each class with all others (Provost and Domingos, 2000).
    OneVsRest,
    /// Each pair of classes (Hand and Till, 2001, doi:10.1023/A:1010920819831).
    OneVsOne,
}

/// ROC-AUC of more than two classes: `labels` are class indices, and `probabilities` have one number for each class.
/// The result is the mean over classes or pairs of classes, optionally `weighted` by their frequency. `None` if an area is
/// undefined because a class has no items.
///
/// # Errors
///
/// If the lists are empty or differ in length, rows differ in length, there are fewer than two classes, a label is not a
/// class, or probabilities do not sum to 1.
pub fn roc_auc_multiclass<P: AsRef<[f64]>>(
    labels: &[usize],
    probabilities: &[P],
    how: MultiClass,
    weighted: bool,
) -> Result<Option<f64>> {
    let classes = probabilities.first().map_or(0, |row| row.as_ref().len());
    if labels.len() != probabilities.len() || classes < 2 {
        return Err(Error::Input(format!(
            "{} labels and {} rows of {classes} probabilities: each label needs a row, with a number for each \
             of at least two classes",
            labels.len(),
            probabilities.len()
        )));
    }
    for (i, (label, row)) in labels.iter().zip(probabilities).enumerate() {
        let row = row.as_ref();
        let sum: f64 = row.iter().sum();
        if row.len() != classes || *label >= classes || sum.is_nan() || (sum - 1.0).abs() > 1e-5 {
            return Err(Error::Input(format!(
                "item {i}, of class {label}, has {} probabilities with the sum {sum}: it needs {classes} that add up to \
                 1, and a class below that",
                row.len()
            )));
        }
    }
    let frequency = |class: usize| labels.iter().filter(|label| **label == class).count() as f64;
    // The areas and their weights.
    let areas: Option<Vec<(f64, f64)>> = match how {
        MultiClass::OneVsRest => (0..classes)
            .map(|class| {
                let items = labels.iter().zip(probabilities);
                let items = items.map(|(label, row)| (*label == class, row.as_ref()[class]));
                Some((area(items.collect())?, frequency(class)))
            })
            .collect(),
        MultiClass::OneVsOne => (0..classes)
            .flat_map(|a| (a + 1..classes).map(move |b| (a, b)))
            .map(|(a, b)| {
                let against = |class: usize| {
                    let items = labels.iter().zip(probabilities);
                    let items = items
                        .filter(|(label, _)| **label == a || **label == b)
                        .map(|(label, row)| (*label == class, row.as_ref()[class]));
                    area(items.collect())
                };
                let mean = (against(a)? + against(b)?) / 2.0;
                Some((mean, frequency(a) + frequency(b)))
            })
            .collect(),
    };
    Ok(areas.map(|areas| {
        let weight = |weight: f64| if weighted { weight } else { 1.0 };
        let total: f64 = areas.iter().map(|(_, count)| weight(*count)).sum();
        let sum: f64 = areas
            .iter()
            .map(|(area, count)| area * weight(*count))
            .sum();
        sum / total
    }))
}
