//! Embeddings against those of a teacher.

use burn::tensor::Tensor;

/// The mean over the dimensions of `(x − t)²` (Reimers and Gurevych, 2020, arXiv:2004.09813, equation 1).
///
/// # Shapes
///
/// - `embeddings`, `targets`: `[n, dims]`
/// - output: `[n]`
pub fn mse(embeddings: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (embeddings - targets).square().mean_dim(1).squeeze_dim(1)
}
