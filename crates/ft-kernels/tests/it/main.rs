//! Every kernel against its portable twin, PyTorch's numbers and finite differences: outputs and
//! gradients, on shapes that are odd on purpose.
//!
//! `FT_TEST_DEVICE=wgpu` (with the feature `wgpu`) runs the operations on Burn's wgpu device. What is
//! expected is computed on the CPU in any case.

mod adamw;
mod attention;
mod cross_entropy;
mod devices;
mod distillation;
mod elementwise;
mod finite_differences;
mod golden;
mod gradient_reach;
mod head_loss;
mod linear;
mod no_numbers;
mod operations;
mod packed;
mod precision;
mod recompute;
mod token_logps;
mod vector_wise;

use std::cell::Cell;

use burn::tensor::{Device, Gradients, Tensor, TensorData};

pub(crate) use devices::{cpu, device, has, on_the_cpu};

thread_local! {
    /// How many tensors this test has made.
    static MADE: Cell<u64> = const { Cell::new(0) };
}

/// Numbers of about a normal distribution, the same in every run, other ones at every call of a test.
pub(crate) fn numbers<const D: usize>(shape: [usize; D]) -> TensorData {
    let made = MADE.with(|made| made.replace(made.get() + 1));
    let mut state = made << 32;
    let mut uniform = || {
        // Steele, Lea and Flood's SplitMix64 (2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    // Twelve uniform numbers have a variance of 1.
    let normal = |_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
    let numbers: Vec<f32> = (0..shape.iter().product()).map(normal).collect();
    TensorData::new(numbers, shape)
}

/// Numbers that a gradient is asked of.
pub(crate) fn leaf<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(numbers(shape), device).require_grad()
}

pub(crate) fn gradient<const D: usize>(x: &Tensor<D>, grads: &Gradients) -> TensorData {
    read(x.grad(grads).expect("a gradient reaches it"))
}

/// The numbers as they are now. What Burn's CubeCL backends give for data is read when it is first looked at, and an
/// operation may have written over the tensor by then.
pub(crate) fn read<const D: usize>(x: Tensor<D>) -> TensorData {
    let shape = x.dims();
    TensorData::new(values(&x.into_data()), shape)
}

pub(crate) fn values(data: &TensorData) -> Vec<f32> {
    data.try_to_vec::<f32>().expect("f32")
}

/// `|found − expected| ≤ tolerance · max(1, |expected|)`, for the largest number expected: numbers of about 1
/// go in, and what cancels to less has their rounding.
pub(crate) fn assert_close(what: &str, found: TensorData, expected: TensorData, tolerance: f32) {
    assert_eq!(found.shape(), expected.shape(), "{what}: shapes");
    let (found, expected) = (values(&found), values(&expected));
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
    let n = y.shape().num_elements();
    if n == 0 {
        // Burn's `reshape` reads 0 as "this dimension as it is".
        return y.sum();
    }
    let weights = Tensor::from_data(weights(n), &y.device());
    (y.reshape([n]) * weights).sum()
}

/// The weights of [`weighted_sum`], which are the gradient of what it sums.
pub(crate) fn weights(n: usize) -> TensorData {
    let weights: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    TensorData::new(weights, [n])
}
