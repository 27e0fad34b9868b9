//! Falcon (Almazrouei et al., 2023, arXiv:2311.16867): Falcon-RW, 7B, 40B, 180B and 11B.
//!
//! One projection gives queries, keys and values group by group: a group is all query heads with one key and value head
//! (7B), some with one (40B) or one with one (RW). Attention and feed-forward layer of a block read the same input,
//! through one layer norm or two, or follow each other (RW). Positions are rotations, or biases on scores (RW).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::AttentionMask;

use crate::layers::alibi::Alibi;
use crate::layers::attention::{attend, merge_heads, split_grouped_heads, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::layers::mlp::Mlp;
use crate::layers::rope::{Angles, Rope};
use crate::models::config::{FalconConfig, Family};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Falcon language model.
#[derive(Module, Parts, Debug)]
pub struct Falcon {
    transformer: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: FalconConfig,
}

#[derive(Module, Parts, Debug)]
struct Decoder {
    word_embeddings: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[module(skip)]
    dims: Dims,
    /// Absent where biases stand for positions.
    #[module(skip)]
    rope: Option<Rope>,
    heads: usize,
}

/// Which layer norms a block has depends on how its layers are arranged.
#[derive(Module, Parts, Debug)]
struct Block {
    self_attention: Attention,
    mlp: Mlp,
    /// Before attention; in parallel blocks before both, or before neither.
    input_layernorm: Option<LayerNorm>,
    /// Before the feed-forward layer, after attention is added.
    post_attention_layernorm: Option<LayerNorm>,
    /// Side by side: one before attention, one before the feed-forward layer.
    ln_attn: Option<LayerNorm>,
    ln_mlp: Option<LayerNorm>,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    query_key_value: Linear,
    dense: Linear,
    #[parts(key_heads)]
    kv_heads: usize,
    head_dim: usize,
}

/// What all blocks of one forward pass share.
#[derive(Clone)]
struct Shared {
    positions: Positions,
    mask: AttentionMask,
}

/// How attention knows where tokens stand.
#[derive(Clone)]
enum Positions {
    Rotated(Box<Angles>),
    Biased(Box<Alibi>),
}

impl Falcon {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &FalconConfig, device: &Device) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let std = config.initializer_range;
        let rope = || Rope::new(config.head_width(), config.rope_theta, &config.rope_scaling);
        Self {
            transformer: Decoder {
                word_embeddings: Embedding::new(vocab, hidden, std, device),
                h: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                ln_f: LayerNorm::new(hidden, config.layer_norm_epsilon, device),
                dims: config.dims(),
                rope: (!config.alibi).then(rope),
                heads: config.num_attention_heads,
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::new(hidden, vocab, false, Layout::OutIn, std, device)),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &FalconConfig {
        &self.config
    }
}

impl CausalLm for Falcon {
    fn body(&self) -> &dyn Backbone {
        &self.transformer
    }

    fn head(&self) -> Head<'_> {
        Head::new(self.lm_head.as_ref(), &self.transformer.word_embeddings)
    }
}

impl Backbone for Decoder {
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.word_embeddings.rows(),
            ..self.dims
        }
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.word_embeddings.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let shared = Shared {
            mask: place.causal_mask(None),
            positions: match &self.rope {
                Some(rope) => Positions::Rotated(Box::new(rope.angles(place.positions))),
                None => Positions::Biased(Box::new(Alibi::new(&place.positions, self.heads))),
            },
        };
        run_blocks(
            &self.h,
            embeddings,
            pass,
            move |i, block, x, cache| block.forward(i, x, &shared, cache),
            |x| self.ln_f.forward(x),
        )
    }
}

impl Block {
    fn new(config: &FalconConfig, device: &Device) -> Self {
        let (hidden, inner) = (config.hidden_size, config.inner());
        let (head_dim, kv_heads) = (config.head_width(), config.kv_heads());
        let linear = |from, to| {
            let std = config.initializer_range;
            Linear::new(from, to, config.bias, Layout::OutIn, std, device)
        };
        let norm = |present: bool| {
            present.then(|| LayerNorm::new(hidden, config.layer_norm_epsilon, device))
        };
        let two = config.two_norms();
        Self {
            self_attention: Attention {
                query_key_value: linear(hidden, hidden + 2 * kv_heads * head_dim),
                dense: linear(hidden, hidden),
                kv_heads,
                head_dim,
            },
            mlp: Mlp {
                dense_h_to_4h: linear(hidden, inner),
                dense_4h_to_h: linear(inner, hidden),
                act: config.activation,
            },
            input_layernorm: norm(!two),
            post_attention_layernorm: norm(!config.parallel_attn),
            ln_attn: norm(two),
            ln_mlp: norm(two),
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let norm = |norm: &Option<LayerNorm>, x: &Tensor<3>| {
            norm.as_ref().map(|norm| norm.forward(x.clone()))
        };
        let normed = norm(&self.input_layernorm, &x)
            .or_else(|| norm(&self.ln_attn, &x))
            .expect("a block has one of the two");
        let inner = norm(&self.ln_mlp, &x);
        let attended = x + (self.self_attention).forward(layer, normed.clone(), shared, cache);
        let inner = inner
            .or_else(|| norm(&self.post_attention_layernorm, &attended))
            .unwrap_or(normed);
        attended + self.mlp.forward(inner)
    }
}

impl Attention {
    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let qkv = self.query_key_value.forward(x);
        let qkv = split_grouped_heads(qkv, self.kv_heads, self.head_dim);
        let scale = (self.head_dim as f64).powf(-0.5);
        let attended = match &shared.positions {
            Positions::Rotated(angles) => {
                let [q, k, v] = qkv;
                let qkv = [angles.rotate(q), angles.rotate(k), v];
                attend(qkv, scale, &shared.mask, layer, cache)
            }
            Positions::Biased(alibi) => {
                let attended = attend(alibi.add(qkv), scale, &shared.mask, layer, cache);
                // The last feature of each head is that of the biases.
                let heads = split_heads(attended, self.kv_heads);
                merge_heads(heads.narrow(3, 0, self.head_dim))
            }
        };
        self.dense.forward(attended)
    }
}
