//! Every kernel against its portable twin: outputs and gradients, on shapes that are odd on purpose.

mod adamw;
mod attention;
mod cross_entropy;
mod elementwise;
mod linear;

use burn::tensor::{Device, Distribution, Gradients, Tensor, TensorData};

pub(crate) fn device() -> Device {
    Device::default().autodiff()
}

/// Normal numbers that a gradient is asked of.
pub(crate) fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device).require_grad()
}

pub(crate) fn gradient<const D: usize>(x: &Tensor<D>, grads: &Gradients) -> TensorData {
    x.grad(grads).expect("a gradient reaches it").into_data()
}

/// `|found − expected| ≤ tolerance · max(1, |expected|)`, for the largest number expected.
pub(crate) fn assert_close(what: &str, found: TensorData, expected: TensorData, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}: shapes");
    let found = found.try_to_vec::<f32>().expect("f32");
    let expected = expected.try_to_vec::<f32>().expect("f32");
    let scale = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
    for (i, (f, e)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * scale,
            "{what}: {f} at {i}, expected {e}"
        );
    }
}

/// A scalar in which every number has a weight of its own, so that gradients differ everywhere.
pub(crate) fn weighted_sum<const D: usize>(y: Tensor<D>) -> Tensor<1> {
    let n = y.shape().num_elements() as i64;
    let weights = Tensor::<1, burn::tensor::Int>::arange(0..n, &y.device())
        .float()
        .mul_scalar(0.37)
        .sin();
    (y.reshape([n as usize]) * weights).sum()
}
