//! What the attention layers of all models share: heads, the cache, the product.

use burn::tensor::Tensor;
use ft_kernels::{AttentionMask, Scores};

use crate::layers::kv_cache::KvCache;

/// `[batch, seq, heads · head_dim]` to `[batch, heads, seq, head_dim]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
}

/// The output of a projection to queries, keys and values that lie group by group, as in GPT-NeoX and Falcon: the query
/// heads of the first key head, that key head, its value head, then those of the second.
///
/// # Shapes
///
/// - `qkv`: `[batch, seq, (heads + 2 · kv_heads) · head_dim]`
/// - output: `[batch, heads, seq, head_dim]` and twice `[batch, kv_heads, seq, head_dim]`
pub fn split_grouped_heads(qkv: Tensor<3>, kv_heads: usize, head_dim: usize) -> [Tensor<4>; 3] {
    let [batch, seq, width] = qkv.dims();
    let queries = width / head_dim / kv_heads - 2;
    let groups: Tensor<5> = qkv.reshape([batch, seq, kv_heads, queries + 2, head_dim]);
    let heads = |from: usize, count: usize| {
        let part = groups.clone().narrow(3, from, count);
        part.reshape([batch, seq, kv_heads * count, head_dim])
            .swap_dims(1, 2)
    };
    [heads(0, queries), heads(queries, 1), heads(queries + 1, 1)]
}

/// `[batch, heads, seq, head_dim]` to `[batch, seq, heads · head_dim]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, seq, width] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, heads * width])
}

/// Attention over the new tokens and those of the cache, to which the new keys and values of block `layer` are
/// appended; see [`ft_kernels::attention`].
///
/// # Shapes
///
/// - `q`: `[batch, heads, seq, head_dim]`; `k`, `v`: `[batch, kv_heads, seq, head_dim]`
/// - output: `[batch, seq, heads · head_dim]`
pub fn attend(
    [q, k, v]: [Tensor<4>; 3],
    scores: impl Into<Scores>,
    mask: &AttentionMask,
    layer: usize,
    cache: Option<&mut KvCache>,
) -> Tensor<3> {
    let (k, v) = match cache {
        Some(cache) => cache.append(layer, k, v),
        None => (k, v),
    };
    merge_heads(ft_kernels::attention(q, k, v, scores, mask))
}
