//! AlphaPO: SimPO with a shaped reward.

use burn::tensor::Tensor;

use super::box_cox::box_cox;
use super::simpo::simpo;

/// AlphaPO: [`simpo`] on the rewards `(1 − p^{−α})/α`, with `p = eᵃ` of the mean log-probability `a`.
///
/// Gupta et al., 2025 (arXiv:2501.03884). `α = 0` is SimPO.
///
/// # Shapes
///
/// - `chosen`, `rejected`: mean log-probabilities of the tokens under the policy, `[pairs]`
/// - result: `[pairs]`
pub fn alphapo(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    alpha: f64,
    beta: f64,
    gamma: f64,
    label_smoothing: f64,
) -> Tensor<1> {
    let reward = |logps| box_cox(logps, -alpha);
    simpo(
        reward(chosen),
        reward(rejected),
        beta,
        gamma,
        label_smoothing,
    )
}
