//! Generalized advantage estimation.

use burn::tensor::{Tensor, TensorData};

use super::row_logps::masked;

/// Advantages and returns of each token, constants.
///
/// `Aₜ = δₜ + γλ Aₜ₊₁` with `δₜ = rₜ + γ Vₜ₊₁ − Vₜ`, and returns `A + V`: equation 16 of Schulman et al., 2015
/// (arXiv:1506.02438). After a row's last token values are 0. Where the mask is 0, rewards and values count as 0, and
/// both results are 0.
///
/// # Shapes
///
/// - `rewards`, `values`, `mask`: `[rows, tokens]`, columns in the order of time
/// - results: advantages and returns, `[rows, tokens]`
pub fn gae(
    rewards: Tensor<2>,
    values: Tensor<2>,
    mask: &Tensor<2>,
    gamma: f64,
    lambda: f64,
) -> (Tensor<2>, Tensor<2>) {
    let values = masked(values.detach(), mask);
    let [rows, tokens] = mask.dims();
    let device = values.device();
    let (rewards, columns) = (numbers(masked(rewards, mask)), numbers(values.clone()));
    let mut advantages = vec![0.0f32; rows * tokens];
    for row in 0..rows {
        let (mut next_value, mut next) = (0.0, 0.0);
        for at in (row * tokens..(row + 1) * tokens).rev() {
            let (reward, value) = (f64::from(rewards[at]), f64::from(columns[at]));
            next = reward + gamma * next_value - value + gamma * lambda * next;
            next_value = value;
            advantages[at] = next as f32;
        }
    }
    let advantages = TensorData::new(advantages, [rows, tokens]);
    let advantages = masked(Tensor::from_data(advantages, &device), mask);
    (advantages.clone(), advantages + values)
}

/// The numbers of a tensor, row by row.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("converted to f32")
}
