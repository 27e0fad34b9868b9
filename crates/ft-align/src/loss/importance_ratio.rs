//! Ratios of the policy to the one that sampled.

use burn::tensor::Tensor;

use super::box_cox::bounded_exp;
use super::row_logps::mean_logps;

/// `ρ = exp(lp − old)`, with the exponent bounded by 80.
///
/// Per token for GRPO and PPO; per row for RLOO, with the difference of sums; per row for GSPO, with
/// [`sequence_log_ratios`].
///
/// # Shapes
///
/// - `log_ratios`: any shape
/// - result: the same
pub fn importance_ratio<const D: usize>(log_ratios: Tensor<D>) -> Tensor<D> {
    bounded_exp(log_ratios)
}

/// GSPO's ratio, before the exponential: the mean over a row's tokens of `lp − old`.
///
/// Equation 7 of Zheng et al., 2025 (arXiv:2507.18071). A row without tokens has 0.
///
/// # Shapes
///
/// - `log_ratios`, `mask`: `[rows, tokens]`
/// - result: `[rows, 1]`, which tokens broadcast
pub fn sequence_log_ratios(log_ratios: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
    mean_logps(log_ratios, mask).unsqueeze_dim(1)
}
