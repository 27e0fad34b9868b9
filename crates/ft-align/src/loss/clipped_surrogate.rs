//! The clipped objective of PPO, GRPO, DAPO, GSPO and RLOO.

use burn::tensor::Tensor;

/// How far a ratio may leave 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// ε below 1.
    pub low: f64,
    /// ε above 1; larger than `low` in DAPO (0.28).
    pub high: f64,
    /// Upper bound of the ratio where the advantage is negative, greater than `1 + high`: two-sided clipping
    /// (INTELLECT-2, arXiv:2505.07291). Without it, such a term has no bound.
    pub two_sided: Option<f64>,
}

impl Default for Clip {
    /// 0.2 on both sides.
    fn default() -> Self {
        Self {
            low: 0.2,
            high: 0.2,
            two_sided: None,
        }
    }
}

/// `−min(min(ρ, δ) A, clip(ρ, 1 − ε, 1 + ε_high) A)`.
///
/// Equation 7 of Schulman et al., 2017 (PPO, arXiv:1707.06347); with two bounds equation 10 of Yu et al., 2025 (DAPO,
/// arXiv:2503.14476). For GRPO and PPO `ρ` and `A` are per token, for RLOO and GSPO per row
/// ([`importance_ratio`](super::importance_ratio)).
///
/// # Shapes
///
/// - `ratio`, `advantages`: the same shape, or shapes that broadcast (`[rows, tokens]` and `[rows, 1]`)
/// - result: the broadcast shape
pub fn clipped_surrogate<const D: usize>(
    ratio: Tensor<D>,
    advantages: Tensor<D>,
    clip: Clip,
) -> Tensor<D> {
    let clipped = ratio.clone().clamp(1.0 - clip.low, 1.0 + clip.high);
    let bounded = match clip.two_sided {
        Some(bound) => ratio.clamp_max(bound),
        None => ratio,
    };
    -(bounded * advantages.clone()).min_pair(clipped * advantages)
}

/// Which terms of [`clipped_surrogate`] have lost their gradient: 1 where `ρ < 1 − ε` and `A < 0`, and 1 where
/// `ρ > 1 + ε_high` and `A > 0`; constants.
///
/// Their means over tokens are TRL's `clip_ratio/low_mean` and `clip_ratio/high_mean`, the mean of the sum is
/// `clip_ratio/region_mean`. With a ratio per row they are means over rows.
///
/// # Shapes
///
/// As [`clipped_surrogate`].
pub fn clipped_terms<const D: usize>(
    ratio: Tensor<D>,
    advantages: Tensor<D>,
    clip: Clip,
) -> (Tensor<D>, Tensor<D>) {
    let ratio = ratio.detach();
    let low = ratio.clone().lower_elem(1.0 - clip.low).float();
    let high = ratio.greater_elem(1.0 + clip.high).float();
    let negative = advantages.clone().lower_elem(0.0).float();
    let positive = advantages.greater_elem(0.0).float();
    (low * negative, high * positive)
}
