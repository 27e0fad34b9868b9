//! Phi-1, Phi-1.5 and Phi-2 (Li et al., 2023, arXiv:2309.05463).
//!
//! Attention and feed-forward layer of a block read the same layer norm and are added together; a part of each head
//! rotates; everything has biases, the head too.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::{Activation, AttentionMask};

use crate::layers::attention::{attend, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::layers::rope::{Angles, Rope};
use crate::models::config::{Family, PhiConfig};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Phi language model.
#[derive(Module, Parts, Debug)]
pub struct Phi {
    model: Decoder,
    /// Absent in a body without output layer.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: PhiConfig,
}

#[derive(Module, Parts, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    final_layernorm: LayerNorm,
    #[module(skip)]
    dims: Dims,
    #[module(skip)]
    rope: Rope,
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    dense: Linear,
    q_layernorm: Option<LayerNorm>,
    k_layernorm: Option<LayerNorm>,
    heads: usize,
    #[parts(key_heads)]
    kv_heads: usize,
    head_dim: usize,
}

#[derive(Module, Parts, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    act: Activation,
}

/// What all blocks of one forward pass share.
#[derive(Clone)]
struct Shared {
    angles: Angles,
    mask: AttentionMask,
}

fn projection(from: usize, to: usize, config: &PhiConfig, device: &Device) -> Linear {
    let std = config.initializer_range;
    Linear::new(from, to, true, Layout::OutIn, std, device)
}

impl Phi {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &PhiConfig, device: &Device) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        Self {
            model: Decoder {
                embed_tokens: Embedding::new(vocab, hidden, config.initializer_range, device),
                layers: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                final_layernorm: LayerNorm::new(hidden, config.layer_norm_eps, device),
                dims: config.dims(),
                rope: Rope::new(config.rotated(), config.rope_theta, &config.rope_scaling),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| projection(hidden, vocab, config, device)),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &PhiConfig {
        &self.config
    }
}

impl CausalLm for Phi {
    fn body(&self) -> &dyn Backbone {
        &self.model
    }

    fn head(&self) -> Head<'_> {
        Head::new(self.lm_head.as_ref(), &self.model.embed_tokens)
    }
}

impl Backbone for Decoder {
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.embed_tokens.rows(),
            ..self.dims
        }
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let shared = Shared {
            mask: place.causal_mask(None),
            angles: self.rope.angles(place.positions),
        };
        run_blocks(
            &self.layers,
            embeddings,
            pass,
            move |i, layer, x, cache| layer.forward(i, x, &shared, cache),
            |x| self.final_layernorm.forward(x),
        )
    }
}

impl Block {
    fn new(config: &PhiConfig, device: &Device) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let head_dim = config.head_width();
        let linear = |from, to| projection(from, to, config, device);
        let norm = |width| LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            self_attn: Attention {
                q_proj: linear(hidden, heads * head_dim),
                k_proj: linear(hidden, kv_heads * head_dim),
                v_proj: linear(hidden, kv_heads * head_dim),
                dense: linear(heads * head_dim, hidden),
                q_layernorm: config.qk_layernorm.then(|| norm(head_dim)),
                k_layernorm: config.qk_layernorm.then(|| norm(head_dim)),
                heads,
                kv_heads,
                head_dim,
            },
            mlp: Mlp {
                fc1: linear(hidden, inner),
                fc2: linear(inner, hidden),
                act: config.hidden_act,
            },
            input_layernorm: norm(hidden),
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let attended = (self.self_attn).forward(layer, normed.clone(), shared, cache);
        attended + self.mlp.forward(normed) + x
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
        let normed = |x: Tensor<3>, heads: usize, norm: &Option<LayerNorm>| {
            let [batch, seq, width] = x.dims();
            let x = match norm {
                Some(norm) => norm.forward(x.reshape([batch, seq * heads, width / heads])),
                None => x,
            };
            split_heads(x.reshape([batch, seq, width]), heads)
        };
        let q = normed(
            self.q_proj.forward(x.clone()),
            self.heads,
            &self.q_layernorm,
        );
        let k = normed(
            self.k_proj.forward(x.clone()),
            self.kv_heads,
            &self.k_layernorm,
        );
        let v = split_heads(self.v_proj.forward(x), self.kv_heads);
        let qkv = [shared.angles.rotate(q), shared.angles.rotate(k), v];
        let scale = (self.head_dim as f64).powf(-0.5);
        (self.dense).forward(attend(qkv, scale, &shared.mask, layer, cache))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(self.act.forward(self.fc1.forward(x)))
    }
}
