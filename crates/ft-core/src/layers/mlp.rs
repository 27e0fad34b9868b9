//! The plain feed-forward layer of GPT-NeoX and Falcon: `W₂·act(W₁x)` (Vaswani et al., 2017, arXiv:1706.03762,
//! equation 2).

use burn::module::Module;
use burn::tensor::Tensor;
use ft_kernels::Activation;

use crate::layers::linear::Linear;
use crate::layers::parts::Parts;

/// A feed-forward layer.
#[derive(Module, Parts, Debug)]
pub struct Mlp {
    /// `[inner, hidden]`.
    pub dense_h_to_4h: Linear,
    /// `[hidden, inner]`.
    pub dense_4h_to_h: Linear,
    /// The activation in between.
    #[module(skip)]
    pub act: Activation,
}

impl Mlp {
    /// `[batch, seq, hidden]` to the same.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.act.forward(self.dense_h_to_4h.forward(x));
        self.dense_4h_to_h.forward(inner)
    }
}
