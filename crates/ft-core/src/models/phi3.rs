//! Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al., 2024, arXiv:2404.14219).
//!
//! Llama's blocks, with one projection for queries, keys and values and one for gate and input of the feed-forward
//! layer; a part of each head may rotate, with LongRoPE. When a generation grows beyond the context of pretraining,
//! transformers reads its text again with the factors for long texts; here the keys in the cache keep their rotation.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::{Activation, AttentionMask, Input};

use crate::layers::attention::{attend, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::linear::{Layout, Linear};
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::{Angles, Rope};
use crate::models::config::{Family, Phi3Config};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Phi-3 language model.
#[derive(Module, Parts, Debug)]
pub struct Phi3 {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Phi3Config,
}

#[derive(Module, Parts, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    #[module(skip)]
    dims: Dims,
    #[module(skip)]
    rope: Rope,
    #[module(skip)]
    window: Option<usize>,
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    qkv_proj: Linear,
    o_proj: Linear,
    heads: usize,
    #[parts(key_heads)]
    kv_heads: usize,
    head_dim: usize,
}

#[derive(Module, Parts, Debug)]
struct Mlp {
    gate_up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    act: Activation,
}

/// What all blocks of one forward pass share.
#[derive(Clone)]
struct Shared {
    angles: Angles,
    mask: AttentionMask,
}

fn projection(from: usize, to: usize, config: &Phi3Config, device: &Device) -> Linear {
    let std = config.initializer_range;
    Linear::new(from, to, false, Layout::OutIn, std, device)
}

impl Phi3 {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &Phi3Config, device: &Device) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        Self {
            model: Decoder {
                embed_tokens: Embedding::new(vocab, hidden, config.initializer_range, device),
                layers: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                norm: RmsNorm::new(hidden, config.rms_norm_eps, device),
                dims: config.dims(),
                rope: Rope::new(config.rotated(), config.rope_theta, &config.rope_scaling),
                window: config.sliding_window,
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| projection(hidden, vocab, config, device)),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Phi3Config {
        &self.config
    }
}

impl CausalLm for Phi3 {
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

    fn attention_window(&self) -> Option<usize> {
        self.window
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let shared = Shared {
            mask: place.causal_mask(self.window),
            angles: self.rope.angles(place.positions),
        };
        run_blocks(
            &self.layers,
            embeddings,
            pass,
            move |i, layer, x, cache| layer.forward(i, x, &shared, cache),
            |x| self.norm.forward(x),
        )
    }
}

impl Block {
    fn new(config: &Phi3Config, device: &Device) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let head_dim = config.head_width();
        let linear = |from, to| projection(from, to, config, device);
        let norm = || RmsNorm::new(hidden, config.rms_norm_eps, device);
        Self {
            self_attn: Attention {
                qkv_proj: linear(hidden, (heads + 2 * kv_heads) * head_dim),
                o_proj: linear(heads * head_dim, hidden),
                heads,
                kv_heads,
                head_dim,
            },
            mlp: Mlp {
                gate_up_proj: linear(hidden, 2 * inner),
                down_proj: linear(inner, hidden),
                act: config.hidden_act,
            },
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.input(x.clone());
        let x = x + (self.self_attn).forward(layer, normed, shared, cache);
        let normed = self.post_attention_layernorm.input(x.clone());
        x + self.mlp.forward(normed)
    }
}

impl Attention {
    fn forward(
        &self,
        layer: usize,
        x: Input<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let qkv = self.qkv_proj.forward(x);
        let part = |first: usize, heads: usize| {
            let width = heads * self.head_dim;
            split_heads(qkv.clone().narrow(2, first * self.head_dim, width), heads)
        };
        let (heads, kv_heads) = (self.heads, self.kv_heads);
        let q = shared.angles.rotate(part(0, heads));
        let k = shared.angles.rotate(part(heads, kv_heads));
        let v = part(heads + kv_heads, kv_heads);
        let scale = (self.head_dim as f64).powf(-0.5);
        (self.o_proj).forward(attend([q, k, v], scale, &shared.mask, layer, cache))
    }
}

impl Mlp {
    fn forward(&self, x: Input<3>) -> Tensor<3> {
        let both = self.gate_up_proj.forward(x);
        let inner = both.dims()[2] / 2;
        let gate = both.clone().narrow(2, 0, inner);
        let up = both.narrow(2, inner, inner);
        (self.down_proj).forward(Input::gated_mlp(gate, up, self.act))
    }
}
