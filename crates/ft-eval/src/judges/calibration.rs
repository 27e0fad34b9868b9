//! A judge compared with human labels.

use serde::Serialize;

use super::bias::{pearson, same_length};
use super::{Proportion, proportion};
use crate::agreement::{Weights, cohen_kappa, cohen_kappa_with_labels};
use crate::significance::normal_quantile;
use crate::{Error, Result};

/// The calibration of a judge with the verdicts yes and no.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Calibrated {
    /// Share of the verdicts that equal the label.
    pub accuracy: Proportion,
    /// Cohen's kappa; `None` where it is undefined.
    pub kappa: Option<f64>,
    /// Share of the labels yes that the judge finds (true positive rate).
    pub sensitivity: Proportion,
    /// Share of the labels no that the judge finds (true negative rate).
    pub specificity: Proportion,
    /// Items without a verdict; not counted.
    pub missing: usize,
}

impl Calibrated {
    /// The share of yes, corrected for the judge's errors, where the judge finds `positives` of `total` (Rogan and Gladen, 1978,
    /// doi:10.1093/oxfordjournals.aje.a112510), with a 95% interval from its formula for the variance. `None` if the judge is no
    /// better than chance.
    pub fn corrected(&self, positives: usize, total: usize) -> Option<(f64, [f64; 2])> {
        let (sensitivity, specificity) = (self.sensitivity.share?, self.specificity.share?);
        let skill = sensitivity + specificity - 1.0;
        if skill <= 0.0 || total == 0 {
            return None;
        }
        let raw = positives as f64 / total as f64;
        let share = ((raw + specificity - 1.0) / skill).clamp(0.0, 1.0);
        let variance = |p: f64, n: usize| p * (1.0 - p) / n as f64;
        let error = (variance(raw, total)
            + share.powi(2) * variance(sensitivity, self.sensitivity.total)
            + (1.0 - share).powi(2) * variance(specificity, self.specificity.total))
        .sqrt()
            / skill;
        let half = normal_quantile(0.05) * error;
        Some((share, [(share - half).max(0.0), (share + half).min(1.0)]))
    }
}

/// Compares verdicts with human labels.
///
/// # Errors
///
/// If the numbers of labels and verdicts differ, or all verdicts are missing. A missing verdict is `None`.
pub fn calibrate(verdicts: &[Option<bool>], labels: &[bool]) -> Result<Calibrated> {
    same_length(verdicts.len(), labels.len())?;
    let pairs: Vec<(bool, bool)> = (verdicts.iter().zip(labels))
        .filter_map(|(verdict, label)| Some(((*verdict)?, *label)))
        .collect();
    if pairs.is_empty() {
        return Err(Error::Input(
            "there is no verdict to compare with labels".into(),
        ));
    }
    let (judge, people): (Vec<bool>, Vec<bool>) = pairs.iter().copied().unzip();
    let rate = |of: Option<bool>| {
        let items = pairs
            .iter()
            .filter(|(_, label)| of.is_none_or(|of| *label == of));
        let right = items
            .clone()
            .filter(|(verdict, label)| verdict == label)
            .count();
        proportion(right as f64, items.count())
    };
    Ok(Calibrated {
        accuracy: rate(None),
        kappa: cohen_kappa(&judge, &people, Weights::Equal)?.map(|kappa| kappa.value),
        sensitivity: rate(Some(true)),
        specificity: rate(Some(false)),
        missing: verdicts.len() - pairs.len(),
    })
}

/// The calibration of a judge with scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ScaleCalibrated {
    /// Pearson's correlation with people's scores; `None` where either is constant.
    pub pearson: Option<f64>,
    /// Spearman's correlation of ranks, ties at their mean.
    pub spearman: Option<f64>,
    /// Cohen's kappa with quadratic weights, of the scores rounded; `None` where it is undefined.
    pub quadratic_kappa: Option<f64>,
    /// Mean of the judge's score minus the label.
    pub mean_difference: f64,
    /// Items without a verdict; not counted.
    pub missing: usize,
}

/// Compares scores with people's.
///
/// # Errors
///
/// If the numbers of labels and scores differ, all scores are missing, or one is not a number. A missing score is `None`.
pub fn calibrate_scale(scores: &[Option<f64>], labels: &[f64]) -> Result<ScaleCalibrated> {
    same_length(scores.len(), labels.len())?;
    let pairs = scores.iter().zip(labels);
    let (judge, people): (Vec<f64>, Vec<f64>) = pairs
        .filter_map(|(score, label)| Some(((*score)?, *label)))
        .unzip();
    if judge.is_empty() || judge.iter().chain(&people).any(|score| !score.is_finite()) {
        return Err(Error::Input(
            "scores and labels have to be numbers, at least one of each".into(),
        ));
    }
    let rounded = |values: &[f64]| values.iter().map(|v| v.round() as i64).collect::<Vec<_>>();
    let (a, b) = (rounded(&judge), rounded(&people));
    // All scores between the least and the largest, so that distances are those of the scale.
    let all = a.iter().chain(&b).copied();
    let scale: Vec<i64> = (all.clone().min().unwrap_or(0)..=all.max().unwrap_or(0)).collect();
    if scale.len() > 1000 {
        return Err(Error::Input(
            "scores and labels must be on one scale: their range must be less than a thousand"
                .into(),
        ));
    }
    let kappa = cohen_kappa_with_labels(&a, &b, &scale, Weights::Quadratic)?;
    let differences: f64 = judge.iter().zip(&people).map(|(a, b)| a - b).sum();
    Ok(ScaleCalibrated {
        pearson: pearson(&judge, &people),
        spearman: pearson(&ranks(&judge), &ranks(&people)),
        quadratic_kappa: kappa.map(|kappa| kappa.value),
        mean_difference: differences / judge.len() as f64,
        missing: scores.len() - judge.len(),
    })
}

/// The rank of each number, from 1. Equal numbers have the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|i| ranks[*i] = rank);
        start += tied.len();
    }
    ranks
}
