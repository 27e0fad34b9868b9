//! Tensors from outside the graph in it, and weights of another type beside its tensors.

use burn::tensor::{DType, Tensor};

/// `x` as a constant of the graph that `like` is in: all tensors of a graph share one strategy of
/// checkpointing.
pub(crate) fn constant<const D: usize, const E: usize>(
    x: Tensor<D>,
    like: &Tensor<E>,
) -> Tensor<D> {
    let x = Tensor::from_inner(x);
    match like.gradient_checkpointing_strategy() {
        Some(strategy) => x.with_gradient_checkpointing_strategy(strategy),
        None => x,
    }
}

/// A weight in the type of what it is multiplied with, for operations that know one type only.
pub(crate) fn in_type_of<const D: usize>(weight: Tensor<2>, x: &Tensor<D>) -> Tensor<2> {
    match (weight.dtype(), x.dtype()) {
        (held, wanted) if held == wanted => weight,
        (_, wanted) => weight.cast(wanted),
    }
}

/// # Panics
///
/// If a weight that is held in 16 bits beside `x` in more is to train.
pub(crate) fn check_trainable<const D: usize>(weight: &Tensor<2>, x: &Tensor<D>) {
    let held = weight.dtype();
    let narrow = matches!(held, DType::F16 | DType::BF16) && held != x.dtype();
    assert!(
        !(narrow && weight.is_tracked()),
        "a weight held in {held:?} cannot train: load the model in f32, or freeze it and attach an \
         adapter"
    );
}
