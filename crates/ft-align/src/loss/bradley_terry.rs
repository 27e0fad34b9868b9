//! The loss of reward models on pairs.

use burn::tensor::{Tensor, activation::log_sigmoid};

/// Bradley-Terry: `−ln σ(s_w − s_l − m) + c (s_w + s_l)²`.
///
/// The first term is equation 1 of Ouyang et al., 2022 (arXiv:2203.02155) with the margin `m` of equation 2 of
/// Touvron et al., 2023 (Llama 2, arXiv:2307.09288). The second keeps the scores near 0 (equation 2 of Eisenstein et
/// al.,
/// 2023, arXiv:2312.09244); `c = 0` leaves it out, 0.01 is usual.
///
/// # Shapes
///
/// - `chosen`, `rejected`: scores `s_w` and `s_l`, `[pairs]`
/// - `margin`: `m`, `[pairs]`
/// - result: `[pairs]`
pub fn bradley_terry(
    chosen: Tensor<1>,
    rejected: Tensor<1>,
    margin: Option<Tensor<1>>,
    centering: f64,
) -> Tensor<1> {
    let mut difference = chosen.clone() - rejected.clone();
    if let Some(margin) = margin {
        difference = difference - margin;
    }
    let loss = -log_sigmoid(difference);
    if centering == 0.0 {
        return loss;
    }
    loss + (chosen + rejected).square() * centering
}
