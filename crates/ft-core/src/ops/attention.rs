//! Scaled dot-product attention with grouped heads (Vaswani et al., 2017, arXiv:1706.03762,
//! equation 1; Ainslie et al., 2023, arXiv:2305.13245).
//!
//! Key and value heads are never repeated: the query heads that share one are stacked along the
//! sequence, so that each group is one product.

use burn::tensor::{Bool, Device, Int, Tensor, activation};

/// Which keys a query must not see; built once a forward pass and shared by its layers.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    /// `[batch or 1, 1, queries, keys]`, true where attention is forbidden; `None`: all allowed.
    forbidden: Option<Tensor<4, Bool>>,
}

impl AttentionMask {
    /// The mask of `queries` tokens that follow `past` cached ones: causal, within `window` tokens
    /// if given, and within the token's own segment if `segments` (`[batch, past + queries]`) are
    /// given.
    pub fn new(
        queries: usize,
        past: usize,
        window: Option<usize>,
        segments: Option<&Tensor<2, Int>>,
        device: &Device,
    ) -> Self {
        let keys = past + queries;
        let windowed = window.filter(|&window| keys > window);
        if queries == 1 && windowed.is_none() && segments.is_none() {
            return Self { forbidden: None };
        }
        let query = Tensor::<1, Int>::arange(past as i64..keys as i64, device)
            .reshape([1, 1, queries, 1])
            .expand([1, 1, queries, keys]);
        let key = Tensor::<1, Int>::arange(0..keys as i64, device)
            .reshape([1, 1, 1, keys])
            .expand([1, 1, queries, keys]);
        let mut forbidden = key.clone().greater(query.clone());
        if let Some(window) = windowed {
            let distance = query - key;
            forbidden = forbidden.bool_or(distance.greater_equal_scalar(window as i64));
        }
        if let Some(segments) = segments {
            let batch = segments.dims()[0];
            let shape = [batch, 1, queries, keys];
            let of_key = segments.clone().reshape([batch, 1, 1, keys]).expand(shape);
            let of_query = segments
                .clone()
                .narrow(1, past, queries)
                .reshape([batch, 1, queries, 1])
                .expand(shape);
            forbidden = forbidden.expand(shape).bool_or(of_query.not_equal(of_key));
        }
        Self {
            forbidden: Some(forbidden),
        }
    }
}

/// `softmax(q·kᵀ·scale + mask)·v`.
///
/// # Shapes
///
/// - `q`: `[batch, heads, queries, head_dim]`
/// - `k`, `v`: `[batch, kv_heads, keys, head_dim]`, where `kv_heads` divides `heads`
/// - output: `[batch, heads, queries, head_dim]`
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    scale: f64,
    mask: &AttentionMask,
) -> Tensor<4> {
    let [batch, heads, queries, width] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let group = heads / kv_heads;
    let q = q.reshape([batch, kv_heads, group * queries, width]) * scale;
    let mut scores = q
        .matmul(k.transpose())
        .reshape([batch, heads, queries, keys]);
    if let Some(forbidden) = &mask.forbidden {
        let forbidden = forbidden.clone().expand([batch, heads, queries, keys]);
        scores = scores.mask_fill(forbidden, f32::NEG_INFINITY);
    }
    activation::softmax(scores, 3)
        .reshape([batch, kv_heads, group * queries, keys])
        .matmul(v)
        .reshape([batch, heads, queries, width])
}
