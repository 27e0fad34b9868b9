//! Odds ratio preference optimization: no reference, one stage with supervised training.

use burn::tensor::{Tensor, activation::log_sigmoid};

use super::log1mexp::log1mexp;

/// The log of the odds ratio: `ln odds(chosen) − ln odds(rejected)`, with `odds(p) = p/(1 − p)` at `p = eᵃ`.
///
/// `a` is bounded by −2⁻²³, the resolution of `f32`: a completion without tokens, or of probability 1, has large odds
/// instead of infinite ones, and no gradient.
///
/// # Shapes
///
/// - `chosen`, `rejected`: mean log-probabilities `a` of the tokens, `[pairs]`
/// - result: `[pairs]`
pub fn log_odds_ratio(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    log_odds(chosen) - log_odds(rejected)
}

fn log_odds(mean_logps: Tensor<1>) -> Tensor<1> {
    let a = mean_logps.clamp_max(-f32::EPSILON);
    a.clone() - log1mexp(a)
}

/// ORPO's term of the odds ratio: `−β ln σ(o)` with `o` of [`log_odds_ratio`].
///
/// Equations 6 and 7 of Hong et al., 2024 (arXiv:2403.07691), where β is called λ. The whole loss adds the negative
/// log-likelihood of the chosen text, mean over the tokens of prompt and completion ([`sft`](super::sft())).
///
/// # Shapes
///
/// As [`log_odds_ratio`].
pub fn orpo(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    log_sigmoid(log_odds_ratio(chosen, rejected)) * -beta
}
