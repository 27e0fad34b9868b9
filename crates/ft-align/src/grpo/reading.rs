//! What the policy says of the completions of an update.

use burn::tensor::{Device, Tensor};
use ft_core::{CausalLm, TokenLogps, predicted_logps_and_entropy};
use ft_data::Tokenized;

use crate::GrpoConfig;
use crate::loss::PolicyLoss;
use crate::scored_rollout::{ScoredRollout, tokenized};
use crate::sequences::{collate, reach};

/// Completions under the policy.
pub(super) struct Reading {
    /// Log-probabilities and mask, `[completions, longest]`.
    pub(super) found: TokenLogps,
    /// Entropies in nats, `[completions, longest]`.
    pub(super) entropy: Tensor<2>,
    /// The tokens that were read.
    pub(super) tokens: usize,
}

/// The groups of a batch, those that teach something first, and how many these are.
///
/// A completion whose advantage is 0 has no gradient, unless the loss has other terms. Groups of such completions need no
/// backward pass. One group is always among the first, so that the update has its gradients, of zeros if they are.
pub(super) fn teaching_first<'a>(
    config: &GrpoConfig,
    rows: &'a [ScoredRollout],
) -> (Vec<&'a [ScoredRollout]>, usize) {
    let mut groups: Vec<&[ScoredRollout]> = rows.chunks(config.num_generations).collect();
    let divergence = config.beta > 0.0 && config.loss != PolicyLoss::Rloo;
    if divergence || config.entropy_coef > 0.0 {
        let count = groups.len();
        return (groups, count);
    }
    let teaches = |group: &[ScoredRollout]| group.iter().any(|row| row.advantage != 0.0);
    let length = |group: &[ScoredRollout]| -> usize {
        let rows = group.iter();
        rows.map(|row| row.prompt_ids.len() + row.rollout.token_ids.len())
            .sum()
    };
    groups.sort_by_key(|group| match teaches(group) {
        true => (0, 0),
        false => (1, length(group)),
    });
    let count = groups.iter().filter(|group| teaches(group)).count();
    let some = count.max(1).min(groups.len());
    (groups, some)
}

/// Reads groups of completions, those after the first `teaching` without a graph.
pub(super) fn read<M: CausalLm>(
    model: &M,
    groups: &[&[ScoredRollout]],
    teaching: usize,
    temperature: f64,
    device: &Device,
) -> Reading {
    let (first, rest) = groups.split_at(teaching);
    let reading = read_all(model, first, temperature, device);
    if rest.is_empty() {
        return reading;
    }
    let others = read_all(&model.valid(), rest, temperature, &device.clone().inner());
    let longest = |reading: &Reading| reading.entropy.dims()[1];
    let width = longest(&reading).max(longest(&others));
    let here = |values: Tensor<2>| Tensor::<2>::from_data(values.into_data(), device);
    let both = |own: Tensor<2>, other: Tensor<2>| {
        Tensor::cat(vec![widened(own, width), widened(here(other), width)], 0)
    };
    Reading {
        found: TokenLogps {
            logps: both(reading.found.logps, others.found.logps),
            mask: both(reading.found.mask, others.found.mask),
        },
        entropy: both(reading.entropy, others.entropy),
        tokens: reading.tokens + others.tokens,
    }
}

fn read_all<M: CausalLm>(
    model: &M,
    groups: &[&[ScoredRollout]],
    temperature: f64,
    device: &Device,
) -> Reading {
    let sequences: Vec<Vec<Tokenized>> = groups.iter().map(|group| tokenized(*group)).collect();
    let groups: Vec<Vec<&Tokenized>> = sequences
        .iter()
        .map(|group| group.iter().collect())
        .collect();
    let branches = collate(reach(model), &groups, device);
    let hidden = model.hidden_states(&branches.batch.tokens(device), None);
    let (found, entropy) =
        predicted_logps_and_entropy(hidden, model.head(), &branches.completions, temperature);
    Reading {
        found,
        entropy,
        tokens: branches.batch.token_count(),
    }
}

/// With columns of zeros up to `width`.
fn widened(values: Tensor<2>, width: usize) -> Tensor<2> {
    let [rows, columns] = values.dims();
    match columns < width {
        true => {
            let zeros = Tensor::zeros([rows, width - columns], &values.device());
            Tensor::cat(vec![values, zeros], 1)
        }
        false => values,
    }
}
