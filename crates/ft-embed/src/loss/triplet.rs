//! Triplets: the positive nearer than the negative (Schroff et al., 2015, arXiv:1503.03832, equation 2).

use burn::tensor::{Tensor, activation::relu};

/// `max(0, ‖a − p‖ − ‖a − n‖ + margin)`, where `‖x‖` is the length of `x + 1e-6`, as PyTorch's distance has it.
///
/// # Shapes
///
/// - `anchors`, `positives`, `negatives`: `[n, dims]`
/// - output: `[n]`
pub fn triplet(
    anchors: Tensor<2>,
    positives: Tensor<2>,
    negatives: Tensor<2>,
    margin: f64,
) -> Tensor<1> {
    let distance = |other: Tensor<2>| -> Tensor<1> {
        let difference = anchors.clone() - other + 1e-6;
        difference.square().sum_dim(1).sqrt().squeeze_dim(1)
    };
    relu(distance(positives) - distance(negatives) + margin)
}
