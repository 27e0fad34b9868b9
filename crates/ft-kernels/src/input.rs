//! What a linear layer is applied to, and how to make it again.
//!
//! For the gradient of its weight or of an adapter a layer needs its input once more. An input that
//! one pass makes from tensors that the graph keeps anyway, as a norm's or a gated product's output,
//! need not be kept beside them: the backward pass makes it again, and the memory of a block shrinks
//! by a quarter. The idea is that of recomputing what is cheap (Korthikanti et al., 2022,
//! arXiv:2205.05198, section 5).

use burn::tensor::Tensor;

use crate::{Activation, gated_mlp, rms_norm};

/// A tensor `[..., features]` with its recipe, if it has one; made from a plain tensor by `into`.
#[derive(Clone, Debug)]
pub struct Input<const D: usize> {
    pub(crate) value: Tensor<D>,
    pub(crate) recipe: Recipe<D>,
}

/// How an input is made, from tensors outside the graph.
#[derive(Clone, Debug)]
pub(crate) enum Recipe<const D: usize> {
    /// In no way that is known here.
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
    /// The input, if there is a recipe.
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

    /// Outside a graph nothing is kept, and nothing need be made again.
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
