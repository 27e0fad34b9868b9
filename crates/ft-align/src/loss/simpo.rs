//! Simple preference optimization: mean log-probabilities as rewards, and a target margin.

use burn::tensor::Tensor;

use super::dpo::smoothed_logistic;

/// SimPO: `−(1 − ε) ln σ(x) − ε ln σ(−x)` with `x = β(chosen − rejected) − γ`.
///
/// Equation 6 of Meng et al., 2024 (arXiv:2405.14734), with β 2.0 to 2.5 and γ 0.3 to 1.6 there. It has no supervised
/// term; TRL adds one unless `cpo_alpha` is 0.
///
/// # Shapes
///
/// - `chosen`, `rejected`: mean log-probabilities of the tokens under the policy, `[pairs]`
/// - result: `[pairs]`
pub fn simpo(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    beta: f64,
    gamma: f64,
    label_smoothing: f64,
) -> Tensor<1> {
    smoothed_logistic((chosen - rejected) * beta - gamma, label_smoothing)
}
