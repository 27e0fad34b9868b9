//! The input of a linear layer, and how to compute it again.
//!
//! The gradient of a layer's weight or adapter needs the layer's input. The output of a norm or of a gated product is
//! computed in one pass from tensors that the graph keeps anyway, so it is not stored: the backward pass computes it
//! again. This saves a quarter of the memory of a block. The idea is to recompute what is cheap (Korthikanti et al.,
//! 2022, arXiv:2205.05198, section 5).

use burn::tensor::Tensor;

use crate::{Activation, gated_mlp, rms_norm};

/// A tensor `[..., features]`, and its recipe if it has one. A plain tensor is converted by `into`.
#[derive(Clone, Debug)]
pub struct Input<const D: usize> {
    pub(crate) value: Tensor<D>,
    pub(crate) recipe: Recipe<D>,
}

/// How an input is computed from tensors outside the graph.
#[derive(Clone, Debug)]
pub(crate) enum Recipe<const D: usize> {
    /// Unknown.
    Keep,
    RmsNorm {
        x: Tensor<D>,
        weight: Tensor<1>,
        epsilon: f64,
    },
    Gated {
        gate: Tensor<D>,
        up: Tensor<D>,
        act: Activation,
    },
}

impl<const D: usize> Recipe<D> {
    /// Computes the input, if there is a recipe.
    pub(crate) fn make(self) -> Option<Tensor<D>> {
        match self {
            Recipe::Keep => None,
            Recipe::RmsNorm { x, weight, epsilon } => Some(rms_norm(x, weight, epsilon)),
            Recipe::Gated { gate, up, act } => Some(gated_mlp(gate, up, act)),
        }
    }
}

impl<const D: usize> From<Tensor<D>> for Input<D> {
    fn from(value: Tensor<D>) -> Self {
        Self {
            value,
            recipe: Recipe::Keep,
        }
    }
}

impl<const D: usize> Input<D> {
    /// [`rms_norm`] of `x`.
    pub fn rms_norm(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Self {
        let value = rms_norm(x.clone(), weight.clone(), epsilon);
        Self::made(value, || Recipe::RmsNorm {
            x: x.inner(),
            weight: weight.inner(),
            epsilon,
        })
    }

    /// [`gated_mlp`] of `gate` and `up`.
    pub fn gated_mlp(gate: Tensor<D>, up: Tensor<D>, act: Activation) -> Self {
        let value = gated_mlp(gate.clone(), up.clone(), act);
        Self::made(value, || Recipe::Gated {
            gate: gate.inner(),
            up: up.inner(),
            act,
        })
    }

    /// Outside a graph there is no backward pass, so no recipe is needed.
    fn made(value: Tensor<D>, recipe: impl FnOnce() -> Recipe<D>) -> Self {
        let recipe = if value.is_tracked() {
            recipe()
        } else {
            Recipe::Keep
        };
        Self { value, recipe }
    }

    /// The tensor itself.
    pub fn value(&self) -> &Tensor<D> {
        &self.value
    }

    /// The rows of the last dimension, `[rows, features]`.
    pub fn into_rows(self) -> Input<2> {
        let rows = |x: Tensor<D>| -> Tensor<2> {
            let features = x.dims()[D - 1];
            let count = x.dims()[..D - 1].iter().product::<usize>();
            x.reshape([count, features])
        };
        let recipe = match self.recipe {
            Recipe::Keep => Recipe::Keep,
            Recipe::RmsNorm { x, weight, epsilon } => Recipe::RmsNorm {
                x: rows(x),
                weight,
                epsilon,
            },
            Recipe::Gated { gate, up, act } => Recipe::Gated {
                gate: rows(gate),
                up: rows(up),
                act,
            },
        };
        Input {
            value: rows(self.value),
            recipe,
        }
    }
}
