//! Anchored preference optimization: the direction of each likelihood is fixed.

use burn::tensor::{Tensor, activation::sigmoid};

use super::kto::{Labels, labels};

/// APO-zero: `σ(−βw) + σ(βl)`. It raises the chosen and lowers the rejected log-ratio.
///
/// Equation 7 of D'Oosterlinck et al., 2024 (arXiv:2408.06266). An identical pair has the loss 1.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - result: `[pairs]`
pub fn apo_zero(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    sigmoid(chosen * -beta) + sigmoid(rejected * beta)
}

/// APO-down: `σ(βw) + σ(−β(w − l))`. It lowers both log-ratios, the rejected one more.
///
/// Equation 8 of D'Oosterlinck et al., 2024 (arXiv:2408.06266): for chosen completions that are worse than the model's
/// own.
///
/// # Shapes
///
/// As [`apo_zero`].
pub fn apo_down(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    sigmoid(chosen.clone() * beta) + sigmoid((rejected - chosen) * beta)
}

/// APO-zero of single completions: `σ(−βu)` for a desirable one, `σ(βu)` for an undesirable one.
///
/// The terms of [`apo_zero`] apart, as TRL's `apo_zero_unpaired`: [`kto`](super::kto()) with `z = 0`.
///
/// # Shapes
///
/// - `log_ratios`: `u`, `[rows]`
/// - `desirable`: one label per row
/// - result: `[rows]`
///
/// # Panics
///
/// If there are not as many labels as rows.
pub fn apo_zero_unpaired(log_ratios: Tensor<1>, desirable: &[bool], beta: f64) -> Tensor<1> {
    let Labels { signs, .. } = labels(&log_ratios, desirable);
    sigmoid(log_ratios * signs * -beta)
}
