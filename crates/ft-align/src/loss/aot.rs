//! Alignment via optimal transport: the distribution of chosen rewards dominates that of rejected ones.

use burn::tensor::Tensor;

use super::dpo::smoothed_logistic;

/// AOT of pairs: `−(1 − ε) ln σ(βx) − ε ln σ(−βx)` with `x = sort(lp_w − lp_l) − sort(rlp_w − rlp_l)` over the batch.
///
/// Melnyk et al., 2024 (arXiv:2406.05882). Entry `i` belongs to the `i`-th smallest difference, not to pair
/// `i`. With one pair it is [`dpo`](super::dpo()).
///
/// # Shapes
///
/// - `policy_margins`: `lp_w − lp_l`, the difference of the policy's log-probabilities, `[pairs]`
/// - `reference_margins`: the same of the reference, `[pairs]`
/// - result: `[pairs]`, sorted
pub fn aot(
    policy_margins: Tensor<1>,
    reference_margins: Tensor<1>,
    beta: f64,
    label_smoothing: f64,
) -> Tensor<1> {
    let x = policy_margins.sort(0) - reference_margins.sort(0);
    smoothed_logistic(x * beta, label_smoothing)
}

/// AOT of unpaired completions: as [`aot`] with `x = sort(w) − sort(l)`.
///
/// Melnyk et al., 2024 (arXiv:2406.05882). The order of pairs does not matter.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - result: `[pairs]`, sorted
pub fn aot_unpaired(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    beta: f64,
    label_smoothing: f64,
) -> Tensor<1> {
    aot(chosen, rejected, beta, label_smoothing)
}
