//! Self-play preference optimization.

use burn::tensor::Tensor;

/// SPPO with hard labels: `(w − 1/(2β))² + (l + 1/(2β))²`.
///
/// Equation 4.7 of Wu et al., 2024 (arXiv:2405.00675) with winning probabilities 1 and 0; `β = 1/η`.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - result: `[pairs]`
pub fn sppo(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    let half = 0.5 / beta;
    (chosen - half).square() + (rejected + half).square()
}
