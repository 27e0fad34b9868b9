//! Direct preference optimization: the logistic loss of the difference of log-ratios.

use burn::tensor::{Tensor, activation::log_sigmoid};

use super::row_logps::per_token;

/// `−(1 − ε) ln σ(x) − ε ln σ(−x)`: the logistic loss of a label that is wrong with probability ε.
pub(crate) fn smoothed_logistic(x: Tensor<1>, label_smoothing: f64) -> Tensor<1> {
    let kept = log_sigmoid(x.clone()) * -(1.0 - label_smoothing);
    if label_smoothing == 0.0 {
        return kept;
    }
    kept - log_sigmoid(-x) * label_smoothing
}

/// DPO: `−(1 − ε) ln σ(βd) − ε ln σ(−βd)` with `d = chosen − rejected`.
///
/// With ε = 0 equation 7 of Rafailov et al., 2023 (arXiv:2305.18290). With a label smoothing ε, the probability that
/// a pair's labels are swapped, it is the conservative DPO of Mitchell, 2023 (cDPO). TRL 1.16
/// ignores label smoothing here. An identical pair has `d = 0`, the loss ln 2 and no gradient in a model.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_align::loss::dpo;
///
/// let device = Device::default();
/// let chosen = Tensor::<1>::from_data([3.0, 0.0], &device);
/// let rejected = Tensor::<1>::from_data([-7.0, 0.0], &device);
/// let losses: Vec<f32> = dpo(chosen, rejected, 0.1, 0.0).to_data().try_to_vec().unwrap();
/// // ln(1 + e⁻¹) and ln 2
/// assert!((losses[0] - 0.31326).abs() < 1e-5 && (losses[1] - 0.69315).abs() < 1e-5);
/// ```
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios, `[pairs]`; or scores of [`FDivergence`](super::FDivergence)
/// - result: `[pairs]`
pub fn dpo(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64, label_smoothing: f64) -> Tensor<1> {
    smoothed_logistic((chosen - rejected) * beta, label_smoothing)
}

/// Robust DPO: `[−(1 − ε) ln σ(βd) + ε ln σ(−βd)] / (1 − 2ε)`, an unbiased estimate of [`dpo`] on clean labels if a
/// share ε of the labels is swapped.
///
/// Chowdhury et al., 2024 (arXiv:2403.00409). ε must be less than ½.
///
/// # Shapes
///
/// As [`dpo`].
pub fn robust_dpo(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    beta: f64,
    label_smoothing: f64,
) -> Tensor<1> {
    let x = (chosen - rejected) * beta;
    let clean = log_sigmoid(x.clone()) * (1.0 - label_smoothing);
    (log_sigmoid(-x) * label_smoothing - clean) / (1.0 - 2.0 * label_smoothing)
}

/// Length-normalized DPO: `−ln σ(β(w/n_w − l/n_l))`, with log-ratios divided by their completions' tokens (at least 1).
///
/// Lambert et al., 2024 (Tülu 3, arXiv:2411.15124).
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - `chosen_tokens`, `rejected_tokens`: `n_w` and `n_l`, `[pairs]`
/// - result: `[pairs]`
pub fn sigmoid_norm(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    chosen_tokens: Tensor<1>,
    rejected_tokens: Tensor<1>,
    beta: f64,
) -> Tensor<1> {
    let chosen = per_token(chosen, chosen_tokens);
    let rejected = per_token(rejected, rejected_tokens);
    dpo(chosen, rejected, beta, 0.0)
}
