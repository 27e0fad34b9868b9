//! The loss that a language model discovered: a blend of logistic and exponential.

use burn::tensor::Tensor;
use burn::tensor::activation::{log_sigmoid, sigmoid};

use super::box_cox::bounded_exp;

/// DiscoPOP: `−(1 − g) ln σ(x) + g e⁻ˣ` with `x = βd`, `d = chosen − rejected`, `g = σ(x/τ)`.
///
/// Equation 5 of Lu et al., 2024 (arXiv:2406.08414); τ is 0.05 there. The second term is computed as
/// `exp(ln σ(x/τ) − x)`, since `g` is 0 and `e⁻ˣ` infinite for a very negative `x`; the term is 0.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios, `[pairs]`
/// - result: `[pairs]`
pub fn discopop(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64, tau: f64) -> Tensor<1> {
    let x = (chosen - rejected) * beta;
    let logistic = sigmoid(x.clone() / -tau) * log_sigmoid(x.clone());
    bounded_exp(log_sigmoid(x.clone() / tau) - x) - logistic
}
