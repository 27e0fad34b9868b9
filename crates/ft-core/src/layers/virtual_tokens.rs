//! Virtual tokens: vectors that are trained, which come before the tokens of every row.
//!
//! An adapter on the embedding of tokens has them. They take places like tokens: the first token of a row stands after
//! them. What callers count are tokens alone: positions, the length of a [`KvCache`](crate::KvCache), hidden states. So the
//! first token of a row is not predicted, as without an adapter; PEFT's loss of prompt tuning has that term.

use burn::module::{Param, ParamId};
use burn::tensor::Tensor;

use crate::layers::kv_cache::KvCache;
use crate::layers::parts::{Part, Parts};

/// What an adapter puts before the tokens of every row.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "a forward pass has one of them")]
pub enum VirtualTokens {
    /// Embeddings, `[virtual tokens, hidden]`, which the blocks read as those of tokens.
    Prompt(Tensor<2>),
    /// What attention reads.
    Prefix(Prefix),
}

/// Keys and values of every block, `[virtual tokens, kv_heads · head_dim]` each, with the rotation that they keep.
pub type Prefix = Vec<[Tensor<2>; 2]>;

impl VirtualTokens {
    /// Those of the active adapter; with several the last one counts.
    pub(crate) fn of(model: &impl Parts) -> Option<Self> {
        let mut found = None;
        model.for_each_part(&mut |_, part| {
            if let Part::Embedding(table) = part
                && found.is_none()
            {
                found = table
                    .adapters
                    .replaced(|kind, adapter| kind.virtual_tokens(adapter));
            }
        });
        found
    }

    /// How many the active adapter has, without computing them.
    pub(crate) fn count(model: &impl Parts) -> usize {
        let mut count = 0;
        model.for_each_part(&mut |_, part| {
            if let Part::Embedding(table) = part
                && count == 0
            {
                let mut counts = table
                    .adapters
                    .active()
                    .map(|adapter| adapter.kind().num_virtual_tokens());
                count = counts.rfind(|count| *count > 0).unwrap_or(0);
            }
        });
        count
    }
}

/// The number of virtual tokens of a prefix.
pub(crate) fn prefix_len(prefix: &[[Tensor<2>; 2]]) -> usize {
    prefix.first().map_or(0, |[keys, _]| keys.dims()[0])
}

/// The keys and values of one block as a module, so that a block that is computed again gets their gradients too.
pub(crate) type Given = Vec<Param<Tensor<2>>>;

/// The keys and values of block `layer`; none without a prefix.
///
/// # Panics
///
/// If the prefix is that of a model with fewer blocks.
pub(crate) fn given(prefix: Option<&Prefix>, layer: usize) -> Given {
    let Some(prefix) = prefix else {
        return Vec::new();
    };
    let block = prefix.get(layer).unwrap_or_else(|| {
        panic!(
            "the prefix has keys and values of {} blocks, the model has more",
            prefix.len()
        )
    });
    let param = |x: &Tensor<2>| Param::initialized(ParamId::new(), x.clone());
    block.iter().map(param).collect()
}

/// A cache for one run of block `layer`, which holds what comes before its tokens; none without a prefix.
pub(crate) fn cache_of(given: &[Param<Tensor<2>>], layer: usize) -> Option<KvCache> {
    let [keys, values] = given else {
        return None;
    };
    Some(KvCache::of_block(layer, [keys.val(), values.val()]))
}

/// `new` keys or values, `[batch, kv_heads, seq, head_dim]`, after those of a prefix, `[virtual tokens, kv_heads · head_dim]`.
///
/// # Panics
///
/// If the prefix has another width than all heads together.
pub(crate) fn after_prefix(prefix: Tensor<2>, new: Tensor<4>) -> Tensor<4> {
    let [batch, heads, _, width] = new.dims();
    let [count, features] = prefix.dims();
    assert_eq!(
        features,
        heads * width,
        "a prefix has as many features as all key heads of a block: {heads} of {width} here. A model that adds linear \
         biases (ALiBi) to its scores has one more a head and takes no prefix: use prompt tuning"
    );
    let prefix = prefix.reshape([count, heads, width]).swap_dims(0, 1);
    let prefix = prefix.unsqueeze::<4>().expand([batch, heads, count, width]);
    Tensor::cat(vec![prefix, new], 2)
}
