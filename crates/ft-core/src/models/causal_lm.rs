//! What every decoder model offers: a body and a head.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::{Backbone, Dims, Head, KvCache, Parts, TokenBatch};

/// A causal language model: a body and a head.
///
/// Hidden states and head are separate so that losses can go through the vocabulary in chunks:
/// see [`causal_lm_loss`](crate::causal_lm_loss). [`logits`](Self::logits) exists for callers who
/// do want the whole `[batch, seq, vocab]`.
pub trait CausalLm: Module + Parts {
    /// Embeddings and blocks.
    fn body(&self) -> &dyn Backbone;

    /// The output projection, which may be the tied embedding.
    fn head(&self) -> Head<'_>;

    /// The measures of the model; the size of the vocabulary is that of the head.
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.head().vocab_size(),
            ..self.body().dims()
        }
    }

    /// The last hidden states, after the final norm: `[batch, seq, hidden]`.
    ///
    /// With a cache, `tokens` continue what the cache already holds.
    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        let body = self.body();
        let embeddings = body.embed(tokens.input_ids.clone());
        body.forward(embeddings, tokens.pass().with_cache(cache))
    }

    /// Logits of the whole batch: `[batch, seq, vocab]`.
    fn logits(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.head().forward(self.hidden_states(tokens, cache))
    }

    /// An empty cache that fits this model.
    fn new_cache(&self) -> KvCache {
        KvCache::new(self.dims().num_layers)
    }
}
