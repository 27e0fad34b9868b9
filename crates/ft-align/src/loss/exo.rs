//! Efficient exact optimization: the reverse KL divergence from smoothed labels.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};

/// EXO: `p [ln p − ln(1 − ε)] + (1 − p) [ln(1 − p) − ln ε]` with `p = σ(βd)`, `d = chosen − rejected`.
///
/// Equation 16 of Ji et al., 2024 (arXiv:2402.00856): the KL divergence of the policy's preference from the smoothed
/// label. ε must be greater than 0; the paper's code uses 10⁻³.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios, `[pairs]`
/// - result: `[pairs]`
pub fn exo(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64, label_smoothing: f64) -> Tensor<1> {
    let x = (chosen - rejected) * beta;
    let right = sigmoid(x.clone()) * (log_sigmoid(x.clone()) - (-label_smoothing).ln_1p());
    let wrong = sigmoid(-x.clone()) * (log_sigmoid(-x) - label_smoothing.ln());
    right + wrong
}
