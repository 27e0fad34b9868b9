//! Contrastive preference optimization: DPO without a reference.

use burn::tensor::Tensor;

use super::dpo::smoothed_logistic;

/// CPO: `−(1 − ε) ln σ(βΔ) − ε ln σ(−βΔ)` with `Δ = chosen − rejected`.
///
/// Equation 3 of Xu et al., 2024 (arXiv:2401.08417). The whole loss adds the negative log-likelihood of the chosen
/// completion, weight 1 ([`sft`](super::sft())). [`hinge`](super::hinge()) and [`ipo`](super::ipo()) take
/// log-probabilities instead of log-ratios as well.
///
/// # Shapes
///
/// - `chosen`, `rejected`: summed log-probabilities under the policy, `[pairs]`
/// - result: `[pairs]`
pub fn cpo(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64, label_smoothing: f64) -> Tensor<1> {
    smoothed_logistic((chosen - rejected) * beta, label_smoothing)
}
