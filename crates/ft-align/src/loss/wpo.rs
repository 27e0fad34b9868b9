//! Weights of pairs by how likely the policy is to produce them.

use burn::tensor::Tensor;

use super::row_logps::mean_logps;

/// WPO: `exp(meanₜ (ln π(yₜ) − ln Σᵥ π(v)²))` of each row, a constant. A pair's weight is the product of both rows'
/// weights.
///
/// Equation 2 of Zhou et al., 2024 (arXiv:2406.11827), with its sampled alignment. As in TRL 1.16 the
/// weight has no upper bound. A row without tokens has the weight 1.
///
/// # Shapes
///
/// - `logps`: log-probabilities of the tokens, `[rows, tokens]`
/// - `log_sum_squares`: `ln Σᵥ π(v)²` of the distributions they come from, `[rows, tokens]`
/// - `mask`: `[rows, tokens]`
/// - result: `[rows]`
pub fn wpo_weights(logps: Tensor<2>, log_sum_squares: Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
    mean_logps(logps.detach() - log_sum_squares.detach(), mask).exp()
}
