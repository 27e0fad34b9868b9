//! Rewards of tokens: a penalty at each, the score at the last.

use burn::tensor::Tensor;

use super::row_logps::masked;

/// `rₜ = −β klₜ`, plus the score at the last counted token of the row.
///
/// Equation 2 of Ouyang et al., 2022 (arXiv:2203.02155). `klₜ` is `lp − ref`, or [`k3`](super::k3()). The score of a
/// row
/// without tokens is lost.
///
/// # Shapes
///
/// - `scores`: `[rows]`
/// - `kl`, `mask` and result: `[rows, tokens]`
pub fn token_rewards(scores: Tensor<1>, kl: Tensor<2>, mask: &Tensor<2>, beta: f64) -> Tensor<2> {
    let position = mask.clone().cumsum(1);
    let last = position.equal(mask.clone().sum_dim(1).expand(mask.dims()));
    let last = masked(last.float(), mask);
    masked(kl * -beta, mask) + last * scores.unsqueeze_dim(1)
}
