//! Constants in a graph, and conversion of a weight's type.

use burn::tensor::{DType, Tensor};

use crate::Weight;

/// `x`, which is outside any graph, as a constant of the graph of `like`, if that has one: all tensors of a graph have the
/// same strategy of checkpointing.
pub fn constant<const D: usize, const E: usize>(x: Tensor<D>, like: &Tensor<E>) -> Tensor<D> {
    if !like.device().is_autodiff() {
        return x;
    }
    let x = Tensor::from_inner(x);
    match like.gradient_checkpointing_strategy() {
        Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

/// A weight in the type of the other factor, for operations that support only one type.
pub(crate) fn in_type_of<const D: usize>(weight: Tensor<2>, x: &Tensor<D>) -> Tensor<2> {
    match (weight.dtype(), x.dtype()) {
        (held, wanted) if held == wanted => weight,
        (_, wanted) => weight.cast(wanted),
    }
}

/// # Panics
///
/// If the weight trains and has 16 bits, and `x` has more.
pub(crate) fn check_trainable<const D: usize>(weight: &Weight, x: &Tensor<D>) {
    let Weight::Dense(weight) = weight else {
        return;
    };
    let held = weight.dtype();
    let narrow = matches!(held, DType::F16 | DType::BF16) && held != x.dtype();
    assert!(
        !(narrow && weight.is_tracked()),
        "a weight held in {held:?} cannot train: load the model in f32, or freeze it and attach an \
         adapter"
    );
}
