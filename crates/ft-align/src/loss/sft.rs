//! The supervised term of mixtures: the likelihood of the chosen completion.

use burn::tensor::Tensor;

/// Each pair's part of the mean over all tokens of the batch: `nllᵢ · B / max(Σⱼ nⱼ, 1)`.
///
/// Its mean over the `B` pairs is the token mean `Σ nll / Σ n`, TRL's `sft`; a batch without tokens has 0 (TRL: not a
/// number).
///
/// # Shapes
///
/// - `nll`: negative log-likelihoods of the chosen completions, `[pairs]`
/// - `tokens`: how many tokens they have, `[pairs]`
/// - result: `[pairs]`
pub fn sft(nll: Tensor<1>, tokens: Tensor<1>) -> Tensor<1> {
    let [pairs] = nll.dims();
    nll * pairs as f64 / tokens.sum().clamp_min(1.0)
}
