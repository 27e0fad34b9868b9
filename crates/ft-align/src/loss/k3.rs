//! An estimate of the KL divergence from the reference, token by token.

use burn::tensor::Tensor;

use super::box_cox::bounded_exp;

/// `k3 = e^{r − lp} − (r − lp) − 1`, not negative, with the exponent bounded by 80.
///
/// Equation 4 of Shao et al., 2024 (arXiv:2402.03300), after Schulman, 2020. With `ratio`, `k3 · ρ`: the correction for
/// tokens of an older policy (TRL's `use_bias_correction_kl`; section 3.1 of DeepSeek-V3.2, arXiv:2512.02556). It
/// changes the gradient even where `ρ` is 1: alone, the mean gradient of `k3` is that of the forward KL.
///
/// # Shapes
///
/// - `logps`, `ref_logps`: `[rows, tokens]`
/// - `ratio`: `[rows, tokens]` or `[rows, 1]`
/// - result: `[rows, tokens]`
pub fn k3(logps: Tensor<2>, ref_logps: Tensor<2>, ratio: Option<Tensor<2>>) -> Tensor<2> {
    let difference = ref_logps - logps;
    let k3 = bounded_exp(difference.clone()) - difference - 1.0;
    match ratio {
        Some(ratio) => k3 * ratio,
        None => k3,
    }
}
