//! Every projection of a model by its path, which is what adapters attach to.

use crate::Linear;

/// A model whose [`Linear`] layers can be reached by name.
///
/// Paths are Hugging Face's module names, without `.weight`: `model.layers.0.self_attn.q_proj`.
/// A model that ties its output layer to the embedding has none; otherwise its path is
/// [`OUTPUT_LAYER`](Self::OUTPUT_LAYER).
pub trait Linears {
    /// The path of the output layer.
    const OUTPUT_LAYER: &'static str = "lm_head";

    /// Shows every layer to `f`, in the order of the forward pass.
    fn for_each_linear(&self, f: &mut dyn FnMut(&str, &Linear));

    /// Lets `f` change every layer, in the same order.
    fn for_each_linear_mut(&mut self, f: &mut dyn FnMut(&str, &mut Linear));
}
