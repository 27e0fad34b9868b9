//! The gated feed-forward layer of most decoders: `down(act(gate(x)) ⊙ up(x))` (Shazeer, 2020, arXiv:2002.05202,
//! equation 6).

use burn::module::Module;
use burn::tensor::Tensor;
use ft_kernels::{Activation, Input};

use crate::layers::linear::Linear;
use crate::layers::parts::Parts;

/// A gated feed-forward layer.
#[derive(Module, Parts, Debug)]
pub struct GatedMlp {
    /// `[inner, hidden]`.
    pub gate_proj: Linear,
    /// `[inner, hidden]`.
    pub up_proj: Linear,
    /// `[hidden, inner]`.
    pub down_proj: Linear,
    /// The activation of the gate.
    #[module(skip)]
    pub act: Activation,
}

impl GatedMlp {
    /// `[batch, seq, hidden]` to the same.
    pub fn forward(&self, x: impl Into<Input<3>>) -> Tensor<3> {
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], x);
        self.down_proj.forward(Input::gated_mlp(gate, up, self.act))
    }
}
