//! Completions with their rewards and advantages, and numbers about sets of them.

use std::collections::BTreeMap;
use std::ops::Range;

use ft_core::{IGNORE_INDEX, Rollout};
use ft_data::Tokenized;
use serde::{Deserialize, Serialize};

use crate::loss::all_alike;

/// A completion with what the update needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredRollout {
    /// The tokens of the prompt.
    pub prompt_ids: Vec<u32>,
    /// The completion.
    pub rollout: Rollout,
    /// Its reward; none if no reward applies.
    pub reward: Option<f64>,
    /// Its advantage over the others of its prompt.
    pub advantage: f64,
    /// Log-probabilities of its tokens under the reference; empty without one.
    pub reference: Vec<f32>,
}

impl ScoredRollout {
    /// The log-probability of the completion when it was sampled, minus that under the reference.
    pub(crate) fn log_ratio(&self) -> f32 {
        let tokens = self.rollout.logps.iter().zip(&self.reference);
        tokens.map(|(own, reference)| own - reference).sum()
    }
}

/// Completions that a step is taken on, group by group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyBatch {
    /// The completions.
    pub rows: Vec<ScoredRollout>,
    /// Whether log-probabilities of the sampling are those of another policy than the current one.
    pub off_policy: bool,
    /// Numbers about the set of completions.
    pub metrics: BTreeMap<String, f64>,
    /// What a number was a mean over, where that is not all completions.
    #[serde(default)]
    pub weights: BTreeMap<String, f64>,
}

/// The completions of a prompt, and the parts of their rewards.
pub(crate) struct Group {
    pub(crate) rows: Vec<ScoredRollout>,
    pub(crate) parts: Vec<Vec<(String, Option<f64>)>>,
}

/// The reward of a completion.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) total: Option<f64>,
    pub(crate) parts: Vec<(String, Option<f64>)>,
}

/// Numbers about completions and their rewards.
pub(crate) fn group_metrics(groups: &[Group]) -> BTreeMap<String, f64> {
    let rows = || groups.iter().flat_map(|group| &group.rows);
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: f64| metrics.insert(name.to_string(), value);
    let rewards: Vec<f64> = rows().filter_map(|row| row.reward).collect();
    if !rewards.is_empty() {
        put("reward", mean(&rewards));
        put("reward_std", deviation(&rewards));
    }
    let alike = groups
        .iter()
        .filter(|group| all_alike(&group.rows.iter().map(|row| row.reward).collect::<Vec<_>>()));
    put(
        "frac_reward_zero_std",
        alike.count() as f64 / groups.len().max(1) as f64,
    );
    let lengths = |wanted: fn(&Rollout) -> bool| {
        let rollouts = rows()
            .map(|row| &row.rollout)
            .filter(|rollout| wanted(rollout));
        rollouts
            .map(|rollout| rollout.token_ids.len() as f64)
            .collect::<Vec<f64>>()
    };
    let all = lengths(|_| true);
    let ended = lengths(|rollout| rollout.finished);
    for (kind, lengths) in [("", &all), ("terminated_", &ended)] {
        let extreme = |of: fn(f64, f64) -> f64| lengths.iter().copied().reduce(of).unwrap_or(0.0);
        put(&format!("completions/mean_{kind}length"), mean(lengths));
        put(&format!("completions/min_{kind}length"), extreme(f64::min));
        put(&format!("completions/max_{kind}length"), extreme(f64::max));
    }
    put(
        "completions/clipped_ratio",
        1.0 - ended.len() as f64 / all.len().max(1) as f64,
    );
    for (name, scores) in by_name(groups.iter().flat_map(|group| &group.parts)) {
        put(&format!("rewards/{name}/mean"), mean(&scores));
        put(&format!("rewards/{name}/std"), deviation(&scores));
    }
    metrics
}

/// The scores that there are of each reward.
pub(crate) fn by_name<'a>(
    parts: impl Iterator<Item = &'a Vec<(String, Option<f64>)>>,
) -> BTreeMap<&'a str, Vec<f64>> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, score) in parts.flatten() {
        if let Some(score) = score {
            all.entry(name).or_default().push(*score);
        }
    }
    all
}

/// The mean; 0 of no values.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The unbiased standard deviation; 0 for fewer than two values.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

/// The groups of update `update` on a set of completions, of which each update takes one of `parts`.
///
/// The last set of an epoch may have fewer groups. With fewer groups than parts, a part is one of them.
pub(crate) fn part(groups: usize, update: usize, parts: usize) -> Range<usize> {
    let part = update % parts;
    match groups < parts {
        true => part % groups..part % groups + 1,
        false => part * groups / parts..(part + 1) * groups / parts,
    }
}

/// Prompts with their completions, which are what is learnt.
pub(crate) fn tokenized<'a>(rows: impl IntoIterator<Item = &'a ScoredRollout>) -> Vec<Tokenized> {
    let rows = rows.into_iter().map(|row| {
        let completion = &row.rollout.token_ids;
        let labels = row.prompt_ids.iter().map(|_| IGNORE_INDEX);
        Tokenized {
            input_ids: [&row.prompt_ids[..], completion].concat(),
            labels: labels
                .chain(completion.iter().map(|&id| i64::from(id)))
                .collect(),
        }
    });
    rows.collect()
}
