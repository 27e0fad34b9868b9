//! What an update is computed from completions.

use burn::module::ModuleDisplay;
use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use ft_core::{CausalLm, LossSum, predicted_logps_and_entropy};
use ft_data::Tokenized;
use ft_train::{StepContext, StepOutput, StepResult};

use super::PpoRow;
use crate::loss::{Clip, clipped_surrogate, clipped_terms, clipped_value_loss, importance_ratio};
use crate::scored_rollout::tokenized;
use crate::sequences::collate;
use crate::{ActorCritic, PpoConfig};

/// The loss and the metrics of completions in training.
pub(super) fn update<M: CausalLm + ModuleDisplay>(
    config: &PpoConfig,
    model: &ActorCritic<M>,
    rows: &[PpoRow],
    set: &BTreeMap<String, f64>,
    context: &StepContext,
) -> StepResult {
    let (device, count) = (&context.device, rows.len());
    let sequences = tokenized(rows.iter().map(|row| &row.scored));
    let groups: Vec<Vec<&Tokenized>> = (sequences.chunks(config.num_generations))
        .map(|group| group.iter().collect())
        .collect();
    let branches = collate(model.reach(), &groups, device);
    let hidden = model
        .policy
        .hidden_states(&branches.batch.tokens(device), None);
    let temperature = f64::from(config.generation.temperature);
    let (found, entropy) = predicted_logps_and_entropy(
        hidden,
        model.policy.head(),
        &branches.completions,
        temperature,
    );
    let values = model.values(&branches, device);
    let [_, longest] = found.logps.dims();
    let matrix = |of: &dyn Fn(&PpoRow) -> &[f32]| {
        let mut flat = vec![0.0; count * longest];
        for (cells, row) in flat.chunks_exact_mut(longest.max(1)).zip(rows) {
            let numbers = of(row);
            cells[..numbers.len()].copy_from_slice(numbers);
        }
        Tensor::<2>::from_data(TensorData::new(flat, [count, longest]), device)
    };
    let scored: Vec<f32> = rows
        .iter()
        .map(|row| f32::from(row.scored.reward.is_some()))
        .collect();
    let mask = found.mask * Tensor::<2>::from_data(TensorData::new(scored, [count, 1]), device);
    let counted = rows.iter().filter(|row| row.scored.reward.is_some());
    let counted: usize = counted.map(|row| row.scored.rollout.token_ids.len()).sum();
    let old = match config.updates() {
        1 => found.logps.clone().detach(),
        _ => matrix(&|row| &row.scored.rollout.logps),
    };
    let (advantages, returns) = (matrix(&|row| &row.advantages), matrix(&|row| &row.returns));
    let old_values = matrix(&|row| &row.values);

    let log_ratios = found.logps - old;
    let ratio = importance_ratio(log_ratios.clone());
    let clip = Clip {
        low: config.clip_range,
        high: config.clip_range,
        two_sided: None,
    };
    let policy = clipped_surrogate(ratio.clone(), advantages.clone(), clip) * mask.clone();
    let range = config.value_clip_range;
    let value = clipped_value_loss(values.clone(), old_values.clone(), returns.clone(), range)
        * mask.clone();
    let [policy, value] = [policy, value].map(Tensor::sum);
    let sum = policy.clone() + value.clone() * config.value_coef;

    let (low, high) = clipped_terms(ratio.clone(), advantages, clip);
    let values = values.detach();
    let near = old_values.clone() + (values.clone() - old_values).clamp(-range, range);
    let [near, free] = [near, values].map(|values| (values - returns.clone()).square());
    let clipped_values = near.greater(free);
    let mut metrics = vec![
        ("loss/policy_avg", policy.detach()),
        ("loss/value_avg", value.detach()),
    ];
    for (name, numbers) in [
        ("policy/approxkl_avg", log_ratios.detach().square() * 0.5),
        ("policy/clipfrac_avg", low + high),
        ("val/clipfrac_avg", clipped_values.float()),
        ("val/ratio", ratio.detach()),
        ("entropy", entropy.detach()),
    ] {
        metrics.push((name, (numbers * mask.clone()).sum()));
    }
    // A batch without a counted token has the loss 0, which is no mistake: none of its completions has a score.
    let loss = LossSum {
        sum,
        count: counted.max(1),
    };
    let mut output = StepOutput::from(loss).with_tokens(branches.batch.token_count());
    let total = counted as f64;
    for (name, sum) in metrics {
        output = output.with_metric(name, sum, total);
    }
    if config.beta > 0.0 {
        let scored = rows.iter().filter(|row| row.scored.reward.is_some());
        let divergence = scored.map(|row| f64::from(row.scored.log_ratio()));
        output = output.with_metric("kl", divergence.sum::<f64>(), total);
    }
    for (name, value) in set {
        output = output.with_metric(name.clone(), value * count as f64, count as f64);
    }
    Ok(output)
}
