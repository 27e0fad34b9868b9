//! SAPO: a smooth gate in place of the clip.

use burn::tensor::{Tensor, activation::sigmoid};

/// `−A σ(τ(ρ − 1)) 4/τ`, with one τ for positive advantages and one for the others.
///
/// Gao et al., 2025 (arXiv:2511.20347); 1 and 1.05 there. At `ρ = 1` the gradient is that of `−ρA`.
///
/// # Shapes
///
/// - `ratio`: `[rows, tokens]` or `[rows, 1]`
/// - `advantages`: `[rows, 1]` or `[rows, tokens]`
/// - result: the broadcast shape
pub fn sapo(
    ratio: Tensor<2>,
    advantages: Tensor<2>,
    tau_positive: f64,
    tau_negative: f64,
) -> Tensor<2> {
    let positive = advantages.clone().greater_elem(0.0);
    let tau = Tensor::ones_like(&advantages) * tau_negative;
    let tau = tau.mask_fill(positive, tau_positive);
    -(sigmoid((ratio - 1.0) * tau.clone()) * (tau.recip() * 4.0) * advantages)
}
