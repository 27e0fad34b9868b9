//! From log-probabilities of tokens to those of rows.

use burn::tensor::Tensor;

/// `values` where `mask` is not 0, and 0 elsewhere, whatever is there.
pub(crate) fn masked(values: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
    values.mask_fill(mask.clone().equal_elem(0.0), 0.0)
}

/// Sums over the columns of each row.
pub(crate) fn row_sums(values: Tensor<2>) -> Tensor<1> {
    values.sum_dim(1).squeeze_dim(1)
}

/// Sums over a row's tokens, divided by how many these are (at least 1), `[rows]`.
pub(crate) fn per_token(sums: Tensor<1>, tokens: Tensor<1>) -> Tensor<1> {
    sums / tokens.clamp_min(1.0)
}

/// The log-probability of each row's completion: `Σₜ mₜ ln p(yₜ)`. A row without tokens has 0.
///
/// # Shapes
///
/// - `logps`, `mask`: `[rows, tokens]`, as [`ft_core::TokenLogps`] has them; the mask is 1 where a token counts
/// - result: `[rows]`
pub fn sum_logps(logps: Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
    row_sums(masked(logps, mask))
}

/// The mean log-probability of each row's tokens: `Σₜ mₜ ln p(yₜ) / max(Σₜ mₜ, 1)`. A row without tokens has 0.
///
/// # Shapes
///
/// As [`sum_logps`].
pub fn mean_logps(logps: Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
    per_token(sum_logps(logps, mask), row_sums(mask.clone()))
}
