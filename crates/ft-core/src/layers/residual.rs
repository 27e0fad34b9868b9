//! The sum after a sublayer: the residual connection around attention or a feed-forward layer, where bottleneck adapters
//! sit.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::layers::adapter::Adapters;
use crate::layers::layer_norm::LayerNorm;

/// `x + o`, the stream after a sublayer that makes `o` from `x`. It has no numbers of its own.
#[derive(Module, Debug)]
pub struct Residual {
    /// Adapters, in the order in which they were attached.
    pub adapters: Adapters,
    width: usize,
}

impl Residual {
    /// A sum of this many features.
    pub fn new(width: usize) -> Self {
        Self {
            adapters: Adapters::default(),
            width,
        }
    }

    /// The number of features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `x + o`, with what the active adapters make of `o`.
    ///
    /// # Shapes
    ///
    /// - `x`, `o` and output: `[batch, seq, width]`
    pub fn add(&self, x: Tensor<3>, o: Tensor<3>) -> Tensor<3> {
        let o = self.adapted(&x, o, None);
        x + o
    }

    /// `norm(x + o)`, the stream of a model that norms after each sublayer.
    ///
    /// # Shapes
    ///
    /// - `x`, `o` and output: `[batch, seq, width]`
    pub fn add_and_norm(&self, x: Tensor<3>, o: Tensor<3>, norm: &LayerNorm) -> Tensor<3> {
        let o = self.adapted(&x, o, Some(norm));
        norm.forward(o + x)
    }

    fn adapted(&self, x: &Tensor<3>, o: Tensor<3>, norm: Option<&LayerNorm>) -> Tensor<3> {
        (self.adapters.active()).fold(o, |o, adapter| {
            adapter.on_its_rows(o, |o| adapter.kind().sublayer(adapter, x, o, norm))
        })
    }
}
