//! Noise contrastive alignment: absolute rewards of both completions.

use burn::tensor::{Tensor, activation::log_sigmoid};

/// NCA: `−ln σ(βw) − ½ ln σ(−βw) − ½ ln σ(−βl)`.
///
/// Chen et al., 2024 (arXiv:2402.05369), with two completions. An identical pair pulls the log-ratio to 0.
///
/// # Shapes
///
/// - `chosen`, `rejected`: log-ratios `w` and `l`, `[pairs]`
/// - result: `[pairs]`
pub fn nca(chosen: Tensor<1>, rejected: Tensor<1>, beta: f64) -> Tensor<1> {
    let (chosen, rejected) = (chosen * beta, rejected * beta);
    let noise = log_sigmoid(-chosen.clone()) + log_sigmoid(-rejected);
    -log_sigmoid(chosen) - noise * 0.5
}
