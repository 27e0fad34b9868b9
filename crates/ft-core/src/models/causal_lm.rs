//! What every decoder model offers: a body and a head.

use burn::module::Module;
use burn::tensor::Tensor;

use crate::layers::virtual_tokens::VirtualTokens;
use crate::{Backbone, Dims, Head, KvCache, Parts, Pass, TokenBatch};

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

    /// The measures of the model. The size of the vocabulary is that of the head, and virtual tokens take places of the
    /// longest sequence.
    fn dims(&self) -> Dims {
        let dims = self.body().dims();
        let longest = dims.max_position_embeddings;
        Dims {
            vocab_size: self.head().vocab_size(),
            max_position_embeddings: longest.saturating_sub(self.num_virtual_tokens()),
            ..dims
        }
    }

    /// How many virtual tokens come before those of every row: those of the active adapter that has some.
    fn num_virtual_tokens(&self) -> usize {
        VirtualTokens::count(self)
    }

    /// The last hidden states, after the final norm: `[batch, seq, hidden]`.
    ///
    /// With a cache, `tokens` continue what the cache already holds. Virtual tokens come before the first ones; the result
    /// has no places for them.
    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        run(self, tokens, tokens.pass().with_cache(cache))
    }

    /// The embeddings and the output of every block, `[batch, seq, hidden]` each, as `output_hidden_states` in transformers: the
    /// last is that of [`hidden_states`](Self::hidden_states), after the final norm.
    fn all_hidden_states(&self, tokens: &TokenBatch) -> Vec<Tensor<3>> {
        let mut states = Vec::new();
        let pass = Pass {
            states: Some(&mut states),
            ..tokens.pass()
        };
        let [_, seq, _] = run(self, tokens, pass).dims();
        let own = states.into_iter().map(|state| {
            // Virtual tokens of a prompt come first.
            let all = state.dims()[1];
            state.narrow(1, all - seq, seq)
        });
        own.collect()
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

/// The last hidden states of the tokens.
fn run<M: CausalLm>(model: &M, tokens: &TokenBatch, pass: Pass<'_>) -> Tensor<3> {
    let body = model.body();
    let embeddings = body.embed(tokens.input_ids.clone());
    let [batch, seq, _] = embeddings.dims();
    let continues = pass.cache.as_ref().is_some_and(|cache| !cache.is_empty());
    let virtual_tokens = (!continues).then(|| VirtualTokens::of(model)).flatten();
    match virtual_tokens {
        None => body.forward(embeddings, pass),
        Some(VirtualTokens::Prefix(prefix)) => {
            let prefix = Some(prefix);
            body.forward(embeddings, Pass { prefix, ..pass })
        }
        Some(VirtualTokens::Prompt(prompt)) => {
            let [count, width] = prompt.dims();
            let rows = prompt.unsqueeze::<3>().expand([batch, count, width]);
            let embeddings = Tensor::cat(vec![rows, embeddings], 1);
            let hidden = body.forward(
                embeddings,
                Pass {
                    prompt: count,
                    ..pass
                },
            );
            hidden.narrow(1, count, seq)
        }
    }
}
