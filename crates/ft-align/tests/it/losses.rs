//! Losses against TRL (`golden/losses.py`), and their laws.

#[path = "losses/edge_cases.rs"]
mod edge_cases;
#[path = "losses/golden.rs"]
mod golden;
#[path = "losses/laws.rs"]
mod laws;
#[path = "losses/names.rs"]
mod names;

use burn::tensor::{Device, Tensor, TensorData};

/// A device whose tensors may have gradients.
fn device() -> Device {
    Device::default().autodiff()
}

fn tensor(numbers: &[f32]) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(numbers.to_vec(), [numbers.len()]),
        &device(),
    )
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_to_vec().unwrap()
}

/// The numbers of `f` at `x`, and the gradient of their sum.
fn value_and_gradient<const D: usize, const E: usize>(
    x: Tensor<D>,
    f: impl Fn(Tensor<D>) -> Tensor<E>,
) -> (Vec<f32>, Vec<f32>) {
    let x = x.detach().require_grad();
    let y = f(x.clone());
    let gradient = x.grad(&y.clone().sum().backward()).map(numbers);
    let gradient = gradient.unwrap_or_else(|| vec![0.0; x.shape().num_elements()]);
    (numbers(y), gradient)
}
