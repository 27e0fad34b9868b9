//! Layer norm with its weights (Ba et al., 2016, arXiv:1607.06450), as GPT-2 and BERT have it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::layers::adapter::Adapters;
use crate::layers::linear::{ones, zeros};

/// `(x − mean) / √(variance + ε) · weight + bias` over the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Param<Tensor<1>>,
    /// `[width]`.
    pub bias: Param<Tensor<1>>,
    /// Adapters, in the order in which they were attached.
    pub adapters: Adapters,
    epsilon: f64,
}

impl LayerNorm {
    /// A norm with a weight of ones and a bias of zeros.
    pub fn new(width: usize, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: ones([width], device),
            bias: zeros([width], device),
            adapters: Adapters::default(),
            epsilon,
        }
    }

    /// The norm of `x`, `[batch, seq, width]`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = (self.adapters).replaced(|kind, adapter| kind.norm_weight(adapter));
        let bias = (self.adapters).replaced(|kind, adapter| kind.bias(adapter));
        let weight = weight.unwrap_or_else(|| self.weight.val());
        let bias = bias.unwrap_or_else(|| self.bias.val());
        let norm = |weight, bias| ft_kernels::layer_norm(x.clone(), weight, bias, self.epsilon);
        let y = norm(weight.clone(), bias.clone());
        let by_row = (self.adapters).replaced_by_row(|kind, adapter| {
            match (kind.norm_weight(adapter), kind.bias(adapter)) {
                (None, None) => None,
                own => Some(own),
            }
        });
        by_row.fold(y, |y, (adapter, own)| {
            let weight = own.0.unwrap_or_else(|| weight.clone());
            let bias = own.1.unwrap_or_else(|| bias.clone());
            adapter.on_its_rows(y, |_| norm(weight, bias))
        })
    }
}
