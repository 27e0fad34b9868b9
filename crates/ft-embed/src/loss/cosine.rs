//! The cosine against a wanted one.

use burn::tensor::Tensor;

use crate::loss::similarity::{check_labels, pairwise_cosine, vector};

/// `(cos(a, b) − y)²` (Reimers and Gurevych, 2019, arXiv:1908.10084, section 3, "Regression Objective Function").
///
/// # Shapes
///
/// - `a`, `b`: `[n, dims]`; `labels`: `n` similarities
/// - output: `[n]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn cosine(a: Tensor<2>, b: Tensor<2>, labels: &[f32]) -> Tensor<1> {
    check_labels(labels.len(), a.dims()[0]);
    let labels = vector(labels, &a.device());
    (pairwise_cosine(a, b) - labels).square()
}
