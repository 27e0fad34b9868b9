//! CISPO: a clipped weight instead of a clipped objective, so that no token loses its gradient.

use burn::tensor::Tensor;

/// `−sg(min(ρ, cap)) A ln π(yₜ)`, where `sg` stops the gradient.
///
/// Equations 4 and 5 of MiniMax, 2025 (MiniMax-M1, arXiv:2506.13585). `cap` is the bound itself, `1 + ε_high` of the
/// paper; TRL's `epsilon_high` is the same number here, but its default is 0.2, which scales every token by 0.2
/// (ScaleRL,
/// arXiv:2510.13786, uses 5).
///
/// # Shapes
///
/// - `logps`: `[rows, tokens]`
/// - `ratio`: `[rows, tokens]` or `[rows, 1]`
/// - `advantages`: `[rows, 1]` or `[rows, tokens]`
/// - result: `[rows, tokens]`
pub fn cispo(logps: Tensor<2>, ratio: Tensor<2>, advantages: Tensor<2>, cap: f64) -> Tensor<2> {
    -(ratio.detach().clamp_max(cap) * advantages * logps)
}
