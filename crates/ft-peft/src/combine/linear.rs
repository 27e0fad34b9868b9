//! `Σ wᵢTᵢ`: task arithmetic (Ilharco et al., 2022, arXiv:2212.04089).

use burn::tensor::Tensor;

use super::factors::Scaled;

/// `Σ wᵢTᵢ`.
pub(super) fn merge(tasks: Vec<Tensor<2>>, weights: &[f64]) -> Tensor<2> {
    let weighted = tasks
        .into_iter()
        .zip(weights)
        .map(|(task, weight)| task * *weight);
    weighted
        .reduce(Tensor::add)
        .expect("there is at least one adapter")
}

/// The weights of `A` and of `B`: `√|σᵢ|`, with the sign of `σᵢ` on `A`, since on both it would have no effect.
pub(super) fn split_weights(adapters: &[Scaled]) -> [Vec<f64>; 2] {
    let sigmas = adapters.iter().map(Scaled::sigma);
    let right: Vec<f64> = sigmas.clone().map(|sigma| sigma.abs().sqrt()).collect();
    let left = sigmas
        .zip(&right)
        .map(|(sigma, root)| root.copysign(sigma))
        .collect();
    [left, right]
}
