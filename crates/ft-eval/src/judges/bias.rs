//! Biases: what verdicts depend on other than the quality of replies.

use serde::Serialize;

use super::{Comparison, PairItem, Preference, Proportion, proportion};
use crate::significance::{mcnemar_exact, paired_t_test};
use crate::{Error, Result};

/// The influence of the order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PositionBias {
    /// Share of the pairs whose verdict changes with the order.
    pub changed: Proportion,
    /// Share of the single verdicts for one side that are for the one shown first: one half without bias.
    pub first_preferred: Proportion,
    /// The probability, without bias, of a share at least this far from one half (exact binomial test, two-sided).
    pub p_value: f64,
}

/// The position bias over comparisons with verdicts in both orders.
pub fn position_bias(comparisons: &[Comparison]) -> PositionBias {
    let (mut pairs, mut changed, mut first, mut second) = (0, 0, 0, 0);
    for comparison in comparisons {
        let (Ok(a_first), Ok(b_first)) = (&comparison.a_first, &comparison.b_first) else {
            continue;
        };
        pairs += 1;
        changed += usize::from(a_first.preference != b_first.preference);
        for (preference, shown_first) in [
            (a_first.preference, Preference::A),
            (b_first.preference, Preference::B),
        ] {
            match preference {
                Preference::Tie => {}
                preference if preference == shown_first => first += 1,
                _ => second += 1,
            }
        }
    }
    PositionBias {
        changed: proportion(changed as f64, pairs),
        first_preferred: proportion(first as f64, first + second),
        p_value: mcnemar_exact(first as u64, second as u64).p_value,
    }
}

/// The influence of the length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VerbosityBias {
    /// Share of the decided pairs of different length that the longer reply wins. Compare it with the share of human labels:
    /// longer replies may be better.
    pub longer_wins: Proportion,
    /// The probability of a share at least this far from one half by chance (exact binomial test, two-sided).
    pub p_value: f64,
    /// Correlation of `ln(length of A / length of B)` with the points of A (1, one half, 0); `None` where either is constant.
    pub correlation: Option<f64>,
}

/// The verbosity bias of verdicts on pairs, from a judge or from people. Lengths are in characters.
///
/// # Errors
///
/// If the numbers of pairs and verdicts differ. A missing verdict is `None`.
pub fn verbosity_bias(
    items: &[PairItem],
    verdicts: &[Option<Preference>],
) -> Result<VerbosityBias> {
    same_length(items.len(), verdicts.len())?;
    let (mut longer, mut shorter) = (0, 0);
    let (mut ratios, mut points) = (Vec::new(), Vec::new());
    for (item, verdict) in items.iter().zip(verdicts) {
        let Some(verdict) = verdict else { continue };
        let [a, b] = [&item.response_a, &item.response_b].map(|text| text.chars().count());
        // One more, so that empty replies have a logarithm.
        ratios.push(((a + 1) as f64 / (b + 1) as f64).ln());
        points.push(verdict.points_of_a());
        match (verdict, a.cmp(&b)) {
            (Preference::Tie, _) | (_, std::cmp::Ordering::Equal) => {}
            (Preference::A, std::cmp::Ordering::Greater)
            | (Preference::B, std::cmp::Ordering::Less) => longer += 1,
            _ => shorter += 1,
        }
    }
    Ok(VerbosityBias {
        longer_wins: proportion(longer as f64, longer + shorter),
        p_value: mcnemar_exact(longer as u64, shorter as u64).p_value,
        correlation: pearson(&ratios, &points),
    })
}

/// The preference of a judge for the replies of its own model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SelfPreference {
    /// Win rate of the judge's own model by the judge; a tie counts one half.
    pub by_judge: f64,
    /// Win rate of the judge's own model by the others, on the same pairs.
    pub by_others: f64,
    /// The difference of the two win rates.
    pub difference: f64,
    /// The 95% interval of the difference (paired t).
    pub interval: [f64; 2],
    /// The probability of a difference at least this large by chance (paired t, two-sided).
    pub p_value: f64,
}

/// Compares the judge's verdicts with those of others (people, or other judges). `own` is the side of the judge's own model
/// in each pair. Pairs without both verdicts are ignored.
///
/// # Errors
///
/// If the lists have different lengths, or fewer than two pairs have both verdicts.
pub fn self_preference(
    judge: &[Option<Preference>],
    others: &[Option<Preference>],
    own: &[Preference],
) -> Result<SelfPreference> {
    same_length(judge.len(), others.len())?;
    same_length(judge.len(), own.len())?;
    let (mut by_judge, mut by_others) = (Vec::new(), Vec::new());
    for ((judge, others), own) in judge.iter().zip(others).zip(own) {
        if let (Some(judge), Some(others)) = (judge, others) {
            let points = |verdict: &Preference| match own {
                Preference::B => 1.0 - verdict.points_of_a(),
                _ => verdict.points_of_a(),
            };
            by_judge.push(points(judge));
            by_others.push(points(others));
        }
    }
    let test = paired_t_test(&by_judge, &by_others, 0.95)?;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (by_judge, by_others) = (mean(&by_judge), mean(&by_others));
    Ok(SelfPreference {
        by_judge,
        by_others,
        difference: by_judge - by_others,
        interval: [test.interval.low, test.interval.high],
        p_value: test.p_value,
    })
}

pub(super) fn same_length(a: usize, b: usize) -> Result<()> {
    if a == b {
        return Ok(());
    }
    Err(Error::Input(format!(
        "the lists have {a} and {b} items: they must have the same length"
    )))
}

/// Pearson's correlation; `None` if one side is constant.
pub(super) fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - mean_a) * (b - mean_b);
        aa += (a - mean_a).powi(2);
        bb += (b - mean_b).powi(2);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}
