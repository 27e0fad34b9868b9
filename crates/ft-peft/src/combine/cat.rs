//! Factors side by side: `[B₁ B₂ ...]·[σ₁A₁; σ₂A₂; ...] = Σ σᵢBᵢAᵢ`.

use burn::tensor::Tensor;

use super::factors::Scaled;

/// `A` `[Σr, in]` and `B` `[out, Σr]`.
pub(super) fn merge(adapters: &[Scaled]) -> [Tensor<2>; 2] {
    let a = adapters
        .iter()
        .map(|one| one.a.clone() * one.sigma())
        .collect();
    let b = adapters.iter().map(|one| one.b.clone()).collect();
    [Tensor::cat(a, 0), Tensor::cat(b, 1)]
}
