//! What the attention layers of all models share: heads, the cache, the product.

use burn::tensor::Tensor;
use ft_kernels::{AttentionMask, Scores};

use crate::KvCache;

/// `[batch, seq, heads · head_dim]` to `[batch, heads, seq, head_dim]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, heads, width / heads])
        .swap_dims(1, 2)
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
