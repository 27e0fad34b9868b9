//! What an update is computed from completions.

use burn::tensor::{Tensor, TensorData};
use ft_core::{CausalLm, LossSum};
use ft_train::{StepContext, StepOutput, StepResult};

use super::reading::{Reading, read, teaching_first};
use crate::GrpoConfig;
use crate::loss::{
    PolicyLoss, PolicySettings, PolicyTokens, Reduction, clipped_terms, k3, top_entropy_mask,
    without_truncated,
};
use crate::scored_rollout::{PolicyBatch, ScoredRollout};

/// The loss and the metrics of a batch in training.
pub(super) fn update<M: CausalLm>(
    config: &GrpoConfig,
    model: &M,
    batch: &PolicyBatch,
    context: &StepContext,
) -> StepResult {
    let device = &context.device;
    let count = batch.rows.len();
    let (groups, teaching) = teaching_first(config, &batch.rows);
    let rows: Vec<&ScoredRollout> = groups.iter().flat_map(|group| group.iter()).collect();
    let temperature = f64::from(config.generation.temperature);
    let Reading {
        found,
        entropy,
        tokens: read,
    } = read(model, &groups, teaching, temperature, device);
    let [_, longest] = found.logps.dims();
    let matrix = |values: &dyn Fn(&ScoredRollout) -> &[f32]| {
        let mut flat = vec![0.0; count * longest];
        for (cells, row) in flat.chunks_exact_mut(longest).zip(&rows) {
            let values = values(row);
            cells[..values.len()].copy_from_slice(values);
        }
        Tensor::<2>::from_data(TensorData::new(flat, [count, longest]), device)
    };
    let mask = match config.mask_truncated_completions {
        true => {
            let truncated: Vec<bool> = rows.iter().map(|row| !row.rollout.finished).collect();
            without_truncated(found.mask, &truncated)
        }
        false => found.mask,
    };
    let kept = |row: &&&ScoredRollout| row.rollout.finished || !config.mask_truncated_completions;
    let lengths = rows
        .iter()
        .filter(kept)
        .map(|row| row.rollout.token_ids.len());
    let counted: usize = lengths.sum();
    let advantages: Vec<f32> = rows.iter().map(|row| row.advantage as f32).collect();
    let tokens = PolicyTokens {
        old_logps: match batch.off_policy {
            true => matrix(&|row| &row.rollout.logps),
            false => found.logps.clone().detach(),
        },
        advantages: Tensor::from_data(TensorData::new(advantages, [count, 1]), device),
        logps: found.logps,
        mask: mask.clone(),
    };
    let (loss, settings) = (config.loss, config.policy_settings());
    let ratio = loss.ratio(&tokens);
    let mut terms = loss.terms(&tokens, ratio.clone(), &settings);
    let share = config.top_entropy_quantile;
    let learning = match share < 1.0 {
        true => top_entropy_mask(entropy.clone().detach(), &mask, share),
        false => mask.clone(),
    };
    if share < 1.0 {
        terms = terms * learning.clone();
    }
    let mut metrics: Vec<(&str, Tensor<1>, f64)> = Vec::new();
    let total = counted as f64;
    if config.beta > 0.0 {
        let reference = matrix(&|row| &row.reference);
        let divergence = k3(tokens.logps.clone(), reference, Some(ratio.clone()));
        let sum = (divergence.clone().detach() * mask.clone()).sum();
        metrics.push(("kl", sum, total));
        // That of RLOO is a part of the rewards.
        if loss != PolicyLoss::Rloo {
            terms = terms + divergence * config.beta;
        }
    }
    let (reduction, of) = loss.reduction(count, counted, &settings);
    let mut sum = reduction.reduce(terms, &mask) * of as f64;
    if config.entropy_coef > 0.0 {
        let bonus = Reduction::Bnpo.reduce(entropy.clone(), &learning);
        sum = sum - bonus * (config.entropy_coef * of as f64);
    }
    metrics.push(("entropy", (entropy.detach() * mask.clone()).sum(), total));
    metrics.extend(clip_metrics(loss, &tokens, ratio, &settings, total));

    // A batch without a counted token has the loss 0, which is no mistake: all its completions were cut.
    let mut output = StepOutput::from(LossSum {
        sum,
        count: of.max(1),
    })
    .with_tokens(read);
    for (name, value, weight) in metrics {
        output = output.with_metric(name, value, weight);
    }
    for (name, value) in &batch.metrics {
        output = output.with_metric(name.clone(), value * count as f64, count as f64);
    }
    Ok(output)
}

/// The shares of terms whose gradient is cut off: over tokens, or over rows where a row has one ratio.
fn clip_metrics(
    loss: PolicyLoss,
    tokens: &PolicyTokens,
    ratio: Tensor<2>,
    settings: &PolicySettings,
    counted: f64,
) -> Vec<(&'static str, Tensor<1>, f64)> {
    let (advantages, mask) = (tokens.advantages.clone(), tokens.mask.clone());
    let [rows, columns] = ratio.dims();
    let sum = |cut: Tensor<2>| match columns == 1 {
        true => (cut.sum(), rows as f64),
        false => ((cut * mask.clone()).sum(), counted),
    };
    match loss {
        PolicyLoss::Sapo => Vec::new(),
        PolicyLoss::Cispo => {
            let above = ratio.detach().greater_elem(settings.cispo_cap).float();
            let (above, weight) = sum(above * advantages.greater_elem(0.0).float());
            vec![("cispo_clip_ratio", above, weight)]
        }
        _ => {
            let (low, high) = clipped_terms(ratio, advantages, settings.clip);
            let ((low, weight), (high, _)) = (sum(low), sum(high));
            vec![
                ("clip_ratio/region_mean", low.clone() + high.clone(), weight),
                ("clip_ratio/low_mean", low, weight),
                ("clip_ratio/high_mean", high, weight),
            ]
        }
    }
}
