//! Length-desensitized log-probabilities: tokens beyond the shorter completion count less.

use burn::tensor::Tensor;

use super::row_logps::sum_logps;

/// LD-DPO: the first `shared` counted tokens of a row count fully, the others `alpha` times.
///
/// Liu et al., 2024 (arXiv:2409.06411). For a pair, `shared` is the smaller of both numbers of tokens.
/// With `alpha` = 1 it is [`sum_logps`]. Used for policy and reference alike.
///
/// # Shapes
///
/// - `logps`, `mask`: `[rows, tokens]`
/// - `shared`: `[rows]`
/// - result: `[rows]`
pub fn length_desensitized_logps(
    logps: Tensor<2>,
    mask: &Tensor<2>,
    shared: Tensor<1>,
    alpha: f64,
) -> Tensor<1> {
    let position = mask.clone().cumsum(1);
    let beyond = position.zeros_like() + shared.unsqueeze_dim(1);
    let beyond = position.greater(beyond);
    let weights = Tensor::ones_like(mask).mask_fill(beyond, alpha);
    sum_logps(logps * weights, mask)
}
