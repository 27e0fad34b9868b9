//! The operations on the slices of Burn's CPU backend, each with its gradient.
//!
//! An operation is a trait over backends, which Burn's macro connects to its run-time dispatch, an implementation for
//! [`Flex`](burn::backend::Flex), and one for `Autodiff<Flex>` that keeps the tensors for the gradient. The mathematics
//! are functions on slices of `f32`. They are split over threads in pieces whose size does not depend on the number of
//! threads, so neither do the results, except for the rounding of matrix products.

pub(crate) mod adamw;
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod bf16_product;
mod columns;
pub(crate) mod cross_entropy;
pub(crate) mod distillation;
mod dropout;
mod exp;
pub(crate) mod gated;
mod half;
mod head;
mod int8;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod one_row;
pub(crate) mod packed;
mod pieces;
mod prefetch;
mod product;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod scale_features;
pub(crate) mod score_tokens;
mod some_rows;
pub(crate) mod sum_of_squares;
pub(crate) mod token_logps;
#[cfg(target_arch = "x86_64")]
mod transposed;
mod vector_wise;
mod weight;

use std::sync::LazyLock;

use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::{DispatchDevice, Flex, TensorMetadata};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

/// Whether these kernels support a tensor: on Flex, in `f32`.
pub(crate) fn takes<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_flex(&tensor.device())
}

/// The same for a weight, which may have 16 bits.
pub(crate) fn takes_weight(tensor: &Tensor<2>) -> bool {
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16) && is_flex(&tensor.device())
}

/// The same for a weight that may be packed.
pub(crate) fn takes_operand(weight: &crate::Weight) -> bool {
    match weight {
        crate::Weight::Dense(weight) => takes_weight(weight),
        crate::Weight::Packed(packed) => is_flex(&packed.device()),
    }
}

/// Whether `FT_KERNELS=portable` selects Burn's operations.
fn switched_off() -> bool {
    static SWITCHED_OFF: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("FT_KERNELS").is_some_and(|value| value == "portable"));
    *SWITCHED_OFF
}

pub(crate) fn is_flex(device: &Device) -> bool {
    if switched_off() {
        return false;
    }
    // There are other variants if other backends are compiled in.
    #[allow(unreachable_patterns)]
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(inner) => matches!(**inner, DispatchDevice::Flex(_)),
        _ => false,
    }
}

/// Whether two tensors are the same view of the same memory.
pub(crate) fn is_same<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> bool {
    let flex = |x: &Tensor<D>| x.clone().inner().try_into_primitive::<Flex>().ok();
    flex(a)
        .zip(flex(b))
        .is_some_and(|(a, b)| same_place(&a, &b))
}

/// The same for integers.
pub(crate) fn are_same_words(a: &Tensor<1, Int>, b: &Tensor<1, Int>) -> bool {
    let flex = |x: &Tensor<1, Int>| x.clone().inner().try_into_primitive::<Flex>().ok();
    flex(a)
        .zip(flex(b))
        .is_some_and(|(a, b)| same_place(&a, &b))
}

fn same_place(a: &FlexTensor, b: &FlexTensor) -> bool {
    let place = |x: &FlexTensor| (x.bytes().as_ptr(), x.dtype());
    place(a) == place(b) && a.layout() == b.layout()
}

/// The numbers of a tensor in row-major order, copied if it has another layout.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().contiguous_offsets() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// A tensor that uses its whole storage in row-major order, so that `storage_mut` returns its numbers. It is copied if
/// the storage is shared.
fn to_change(tensor: FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The slice of a contiguous tensor.
fn slice(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("a contiguous tensor of f32")
}

fn tensor(data: Vec<f32>, shape: impl Into<burn::tensor::Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape))
}

/// The tensor, copied if it is reversed along a dimension.
fn unreversed(tensor: FlexTensor) -> FlexTensor {
    match tensor.layout().strides().iter().all(|&stride| stride >= 0) {
        true => tensor,
        false => tensor.to_contiguous(),
    }
}

/// A tensor of rank 2 as a matrix, with any strides that are not negative.
fn matrix(tensor: &FlexTensor) -> product::Matrix<'_> {
    let layout: &Layout = tensor.layout();
    let [rows, cols] = tensor.shape().dims();
    let strides = layout.strides();
    let (row, col) = (strides[0], strides[1]);
    assert!(row >= 0 && col >= 0, "see `unreversed`");
    let data = &tensor.storage::<f32>()[layout.start_offset()..];
    product::Matrix::strided(data, rows, cols, row as usize, col as usize)
}
