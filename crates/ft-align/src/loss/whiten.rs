//! Advantages of mean 0 and variance 1.

use burn::tensor::Tensor;

use super::row_logps::masked;

/// `(x − mean)/√(variance + 10⁻⁸)` over the counted tokens, and 0 elsewhere; with `keep_mean` plus the mean.
///
/// The variance is unbiased (`n − 1`), and 0 for a single token. Advantages lose their mean; rewards keep it, as in
/// Ziegler et al., 2019 (arXiv:1909.08593).
///
/// # Shapes
///
/// - `values`, `mask` and result: `[rows, tokens]`
pub fn whiten(values: Tensor<2>, mask: &Tensor<2>, keep_mean: bool) -> Tensor<2> {
    let count = mask.clone().sum();
    let mean = masked(values.clone(), mask).sum() / count.clone().clamp_min(1.0);
    let mean = mean.unsqueeze::<2>();
    let centered = masked(values - mean.clone(), mask);
    let variance = centered.clone().square().sum() / (count - 1.0).clamp_min(1.0);
    let whitened = centered / (variance + 1e-8).sqrt().unsqueeze::<2>();
    if keep_mean {
        return masked(whitened + mean, mask);
    }
    whitened
}
