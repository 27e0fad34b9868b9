//! Self-attention with grouped heads and rotary positions, as most decoders have it: projections of query, key, value and
//! output, and norms on query and key in some (Ainslie et al., 2023, arXiv:2305.13245; Su et al., 2021,
//! arXiv:2104.09864; Henry et al., 2020, arXiv:2010.04245).

use burn::module::Module;
use burn::tensor::Tensor;
use ft_kernels::{AttentionMask, Input, Scores};

use crate::layers::attention::{attend, split_heads};
use crate::layers::kv_cache::KvCache;
use crate::layers::linear::Linear;
use crate::layers::parts::Parts;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::Angles;

/// The attention layer of a decoder.
#[derive(Module, Parts, Debug)]
pub struct SelfAttention {
    /// `[heads · head_dim, hidden]`.
    pub q_proj: Linear,
    /// `[kv_heads · head_dim, hidden]`.
    pub k_proj: Linear,
    /// `[kv_heads · head_dim, hidden]`.
    pub v_proj: Linear,
    /// `[hidden, heads · head_dim]`.
    pub o_proj: Linear,
    /// Over each head, or over all of them if the norm is as wide as all of them.
    pub q_norm: Option<RmsNorm>,
    /// The same for keys.
    pub k_norm: Option<RmsNorm>,
    /// The number of query heads.
    pub heads: usize,
    /// The number of key and value heads, which divides that of query heads.
    #[parts(key_heads)]
    pub kv_heads: usize,
    /// How scores are made of products.
    #[module(skip)]
    pub scores: Scores,
}

impl SelfAttention {
    /// `[batch, seq, hidden]` to the same, as block `layer`. Without angles heads are not rotated.
    pub fn forward(
        &self,
        layer: usize,
        x: impl Into<Input<3>>,
        angles: Option<&Angles>,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [q, k, v] = Linear::forward_all([&self.q_proj, &self.k_proj, &self.v_proj], x);
        let q = split(q, self.heads, &self.q_norm);
        let k = split(k, self.kv_heads, &self.k_norm);
        let v = split_heads(v, self.kv_heads);
        let [q, k] = [q, k].map(|x| match angles {
            Some(angles) => angles.rotate(x),
            None => x,
        });
        self.o_proj
            .forward(attend([q, k, v], self.scores, mask, layer, cache))
    }
}

/// The heads, each with its norm, or all of them with theirs.
fn split(x: Tensor<3>, heads: usize, norm: &Option<RmsNorm>) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    match norm {
        None => split_heads(x, heads),
        Some(norm) if norm.width() == width => split_heads(norm.forward(x), heads),
        // Before the heads move, since a norm reads its features fastest where they lie side by side.
        Some(norm) => norm
            .forward(x.reshape([batch, seq, heads, width / heads]))
            .swap_dims(1, 2),
    }
}
