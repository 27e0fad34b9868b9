//! Log-probabilities of given tokens, and whether they are the most likely ones, for benchmarks. There are no
//! gradients.

use burn::tensor::{Int, Tensor, activation};

use crate::cross_entropy::{check_targets, rows_a_chunk};
use crate::graph::in_type_of;
use crate::{LogitOptions, Weight};

/// The score of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Its natural log-probability.
    pub logp: f32,
    /// Whether its logit is the largest. Of equal logits the first token of the vocabulary counts.
    pub is_greedy: bool,
}

/// The score of each row's target under the logits `h·Wᵀ` after their options, a chunk of rows at a time.
///
/// # Shapes
///
/// - `hidden`: `[rows, width]`, `weight`: `[vocab, width]`, a tensor or [`Packed`](crate::Packed); `targets`: one id a row
///
/// # Panics
///
/// If there are no rows, a target is not in the vocabulary, or an option is invalid.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_kernels::{LogitOptions, score_tokens};
///
/// let device = Device::default();
/// let hidden = Tensor::<2>::from_data([[1.0], [1.0]], &device);
/// let weight = Tensor::<2>::from_data([[0.0], [3f32.ln()]], &device);
/// // Logits 0 and ln 3: probabilities 1/4 and 3/4.
/// let scores = score_tokens(hidden, weight, &[0, 1], LogitOptions::default());
/// assert!((scores[0].logp - 0.25f32.ln()).abs() < 1e-6);
/// assert!(!scores[0].is_greedy && scores[1].is_greedy);
/// ```
pub fn score_tokens(
    hidden: Tensor<2>,
    weight: impl Into<Weight>,
    targets: &[i64],
    options: LogitOptions,
) -> Vec<TokenScore> {
    let weight = weight.into();
    options.check();
    check_targets(&hidden, &weight, targets);
    let chunk = rows_a_chunk(&weight);
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&hidden) && crate::flex::takes_operand(&weight) {
        return crate::flex::score_tokens::score_tokens(hidden, weight, targets, options, chunk);
    }
    let weight = weight.dense(&hidden);
    of_burn_operations(hidden, weight, targets, options, chunk)
}

/// [`score_tokens`] with Burn's operations.
pub fn portable(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
) -> Vec<TokenScore> {
    options.check();
    let stored = Weight::Dense(weight.clone());
    check_targets(&hidden, &stored, targets);
    let chunk = rows_a_chunk(&stored);
    of_burn_operations(hidden, weight, targets, options, chunk)
}

fn of_burn_operations(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
    chunk: usize,
) -> Vec<TokenScore> {
    let head = in_type_of(weight, &hidden).inner().transpose();
    let hidden = hidden.inner();
    (targets.chunks(chunk).enumerate())
        .flat_map(|(i, targets)| {
            let part = hidden.clone().narrow(0, i * chunk, targets.len());
            score_logits(options.apply(part.matmul(head.clone())), targets)
        })
        .collect()
}

/// The score of each row's target, given logits `[rows, vocab]`.
pub fn score_logits(logits: Tensor<2>, targets: &[i64]) -> Vec<TokenScore> {
    let index = Tensor::<1, Int>::from_data(targets, &logits.device()).unsqueeze_dim::<2>(1);
    let logps = activation::log_softmax(logits.clone(), 1).gather(1, index);
    let logps = logps.into_data().convert::<f32>();
    let best = logits.argmax(1).into_data().convert::<i64>();
    let logps = logps.try_to_vec::<f32>().expect("converted to f32");
    let best = best.try_to_vec::<i64>().expect("converted to i64");
    (logps.into_iter().zip(best).zip(targets))
        .map(|((logp, best), target)| TokenScore {
            logp,
            is_greedy: best == *target,
        })
        .collect()
}
