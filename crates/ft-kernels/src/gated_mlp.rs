//! Activations by Hugging Face's names, and the gated feed-forward product.

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

/// An activation function, named as in `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x·σ(x)`, also called swish.
    #[default]
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `x·Φ(x)` with the error function.
    #[serde(rename = "gelu")]
    Gelu,
    /// GELU's approximation by tanh.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    /// `max(x, 0)`.
    #[serde(rename = "relu")]
    Relu,
}

impl Activation {
    /// Applies the function to every element. The graph keeps nothing but `x`.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        #[cfg(feature = "cpu")]
        if crate::flex::takes(&x) {
            use crate::flex::gated::Gated;
            use burn::backend::Dispatch;
            return Tensor::from_dispatch(Dispatch::activated(x.into_dispatch(), self));
        }
        self.portable(x)
    }

    /// [`forward`](Self::forward) with Burn's operations.
    pub fn portable<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::Silu => activation::silu(x),
            Activation::Gelu => gelu(x),
            Activation::GeluTanh => activation::gelu_approximate(x),
            Activation::Relu => activation::relu(x),
        }
    }
}

/// GELU from elementary operations, because the gradient of Burn's `gelu` is that of the tanh approximation on all
/// backends except Flex.
fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * ((x * FRAC_1_SQRT_2).erf() + 1.0) * 0.5
}

/// `act(gate) ⊙ up`, SwiGLU with [`Activation::Silu`] (Shazeer, 2020, arXiv:2002.05202, equation 6).
///
/// # Shapes
///
/// - `gate`, `up` and output: the same
///
/// # Panics
///
/// If the shapes differ.
pub fn gated_mlp<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Activation) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "gate and up have the same shape");
    #[cfg(feature = "cpu")]
    if crate::flex::takes(&gate) && crate::flex::takes(&up) {
        use crate::flex::gated::Gated;
        use burn::backend::Dispatch;
        let y = Dispatch::gated(gate.into_dispatch(), up.into_dispatch(), act);
        return Tensor::from_dispatch(y);
    }
    portable(gate, up, act)
}

/// [`gated_mlp`] with Burn's operations.
pub fn portable<const D: usize>(gate: Tensor<D>, up: Tensor<D>, act: Activation) -> Tensor<D> {
    act.portable(gate) * up
}
