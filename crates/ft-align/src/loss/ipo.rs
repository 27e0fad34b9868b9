//! Identity preference optimization: a squared distance instead of a logistic loss.

use burn::tensor::Tensor;

use super::row_logps::per_token;

/// IPO: `(w/n_w − l/n_l − 1/(2β))²`, with log-ratios divided by their completions' tokens (at least 1).
///
/// Equation 17 of Azar et al., 2023 (arXiv:2310.12036), where β is called τ. The paper does not mention the division by
/// lengths; its authors confirmed it, and TRL divides. An identical pair has the loss `1/(4β²)`.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - `chosen_tokens`, `rejected_tokens`: `n_w` and `n_l`, `[pairs]`
/// - result: `[pairs]`
pub fn ipo(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    chosen_tokens: Tensor<1>,
    rejected_tokens: Tensor<1>,
    beta: f64,
) -> Tensor<1> {
    let chosen = per_token(chosen, chosen_tokens);
    let rejected = per_token(rejected, rejected_tokens);
    (chosen - rejected - 1.0 / (2.0 * beta)).square()
}
