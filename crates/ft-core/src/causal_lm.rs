//! What every decoder model offers: hidden states and head, separately.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use crate::{KvCache, Linear, Linears, ModelConfig, TokenBatch};

/// A causal language model.
///
/// Hidden states and head are separate so that losses can go through the vocabulary in chunks:
/// see [`causal_lm_loss`](crate::causal_lm_loss). [`logits`](Self::logits) exists for callers who
/// do want the whole `[batch, seq, vocab]`.
pub trait CausalLm: Module + Linears {
    /// The model's configuration.
    fn config(&self) -> &ModelConfig;

    /// The last hidden states, after the final norm: `[batch, seq, hidden]`.
    ///
    /// With a cache, `tokens` continue what the cache already holds.
    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3>;

    /// The output projection, which may be the tied embedding.
    fn head(&self) -> Head<'_>;

    /// Logits of the whole batch: `[batch, seq, vocab]`.
    fn logits(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        let hidden = self.hidden_states(tokens, cache);
        self.head().forward(hidden)
    }

    /// An empty cache that fits this model.
    fn new_cache(&self) -> KvCache {
        KvCache::new(self.config().num_layers())
    }
}

/// The output projection of a model.
#[derive(Clone, Copy, Debug)]
pub enum Head<'a> {
    /// The embedding matrix `[vocab, hidden]` serves as head.
    Tied(&'a Param<Tensor<2>>),
    /// A projection of its own.
    Linear(&'a Linear),
}

impl Head<'_> {
    /// The number of logits a token gets, without reading the weight.
    pub fn vocab_size(&self) -> usize {
        match self {
            Head::Tied(embedding) => embedding.lazy_shape()[0],
            Head::Linear(linear) => linear.out_features(),
        }
    }

    /// `[batch, seq, hidden]` to logits `[batch, seq, vocab]`.
    pub fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        match self {
            Head::Tied(embedding) => {
                let [batch, seq, width] = hidden.dims();
                let rows = hidden.reshape([batch * seq, width]);
                let logits = ft_kernels::linear(rows, embedding.val(), None);
                logits.reshape([batch, seq, self.vocab_size()])
            }
            Head::Linear(linear) => linear.forward(hidden),
        }
    }
}
