//! Root mean square norm with its weight (Zhang and Sennrich, 2019, arXiv:1910.07467, equation 4).

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use ft_kernels::Input;

use crate::layers::adapter::{Adapter, Adapters};
use crate::layers::linear::{ones, zeros};

/// `x / √(mean(x²) + ε) · w` over the last dimension, or with `1 + w` in place of `w`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[width]`.
    pub weight: Param<Tensor<1>>,
    /// Adapters, in the order in which they were attached.
    pub adapters: Adapters,
    epsilon: f64,
    /// Whether the weight is the distance from one.
    from_one: bool,
}

impl RmsNorm {
    /// A norm over `width` features that only divides: its weight is one.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: ones([width], device),
            adapters: Adapters::default(),
            epsilon,
            from_one: false,
        }
    }

    /// A norm whose factor is `1 + w`, as Gemma stores it; its weight is zero.
    pub fn from_one(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: zeros([width], device),
            adapters: Adapters::default(),
            epsilon,
            from_one: true,
        }
    }

    /// Whether the factor is `1 + w`.
    pub fn is_from_one(&self) -> bool {
        self.from_one
    }

    /// The number of features, without reading the weight.
    pub fn width(&self) -> usize {
        self.weight.lazy_shape()[0]
    }

    /// The norm of `x`, `[..., width]`.
    ///
    /// The first dimension is that of the batch, for adapters that act on some of its rows.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let y = ft_kernels::rms_norm(x.clone(), self.factor(), self.epsilon);
        self.by_row().fold(y, |y, (adapter, weight)| {
            let factor = self.factor_of(weight);
            adapter.on_its_rows(y, |_| ft_kernels::rms_norm(x.clone(), factor, self.epsilon))
        })
    }

    /// The same as input of linear layers, which compute it again in the backward pass and do not keep it.
    pub fn input<const D: usize>(&self, x: Tensor<D>) -> Input<D> {
        match self.by_row().next() {
            Some(_) => Input::from(self.forward(x)),
            None => Input::rms_norm(x, self.factor(), self.epsilon),
        }
    }

    /// The weights of adapters that act on some rows only.
    fn by_row(&self) -> impl Iterator<Item = (&Adapter, Tensor<1>)> {
        (self.adapters).replaced_by_row(|kind, adapter| kind.norm_weight(adapter))
    }

    fn factor(&self) -> Tensor<1> {
        let own = (self.adapters).replaced(|kind, adapter| kind.norm_weight(adapter));
        self.factor_of(own.unwrap_or_else(|| self.weight.val()))
    }

    fn factor_of(&self, weight: Tensor<1>) -> Tensor<1> {
        match self.from_one {
            true => weight + 1.0,
            false => weight,
        }
    }
}
