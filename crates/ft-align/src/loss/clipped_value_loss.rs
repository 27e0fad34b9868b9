//! The loss of PPO's value model.

use burn::tensor::Tensor;

/// `½ max((V − R)², (clip(V, V_old ± c) − R)²)` of each token.
///
/// OpenAI's implementation of PPO, as described by Engstrom et al., 2020 (arXiv:2005.12729). With
/// `c` infinite it is `½ (V − R)²`.
///
/// # Shapes
///
/// - `values`, `old_values`, `returns` and result: `[rows, tokens]`; old values and returns are constants
pub fn clipped_value_loss(
    values: Tensor<2>,
    old_values: Tensor<2>,
    returns: Tensor<2>,
    clip: f64,
) -> Tensor<2> {
    let old = old_values.detach();
    let returns = returns.detach();
    let clipped = old.clone() + (values.clone() - old).clamp(-clip, clip);
    let free = (values - returns.clone()).square();
    free.max_pair((clipped - returns).square()) * 0.5
}
