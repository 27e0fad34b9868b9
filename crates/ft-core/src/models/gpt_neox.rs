//! GPT-NeoX and Pythia (Black et al., 2022, arXiv:2204.06745; Biderman et al., 2023, arXiv:2304.01373).
//!
//! Layer norms, biases, a quarter of each head rotates, and one projection gives the query, key and value of each head
//! side by side. Attention and feed-forward layer read the same input, through layer norms of their own, unless
//! `use_parallel_residual` is false.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::AttentionMask;

use crate::layers::attention::{attend, split_grouped_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::layers::mlp::Mlp;
use crate::layers::rope::{Angles, Rope};
use crate::models::config::{Family, GptNeoxConfig};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A GPT-NeoX language model.
#[derive(Module, Parts, Debug)]
#[parts(output = "embed_out")]
pub struct GptNeox {
    gpt_neox: Decoder,
    /// Absent when the embedding serves as head.
    embed_out: Option<Linear>,
    #[module(skip)]
    config: GptNeoxConfig,
}

#[derive(Module, Parts, Debug)]
struct Decoder {
    embed_in: Embedding,
    layers: Vec<Block>,
    final_layer_norm: LayerNorm,
    #[module(skip)]
    dims: Dims,
    #[module(skip)]
    rope: Rope,
}

#[derive(Module, Parts, Debug)]
struct Block {
    input_layernorm: LayerNorm,
    post_attention_layernorm: LayerNorm,
    attention: Attention,
    mlp: Mlp,
    parallel: bool,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    query_key_value: Linear,
    dense: Linear,
    #[parts(key_heads)]
    heads: usize,
    head_dim: usize,
}

/// What all blocks of one forward pass share.
#[derive(Clone)]
struct Shared {
    angles: Angles,
    mask: AttentionMask,
}

impl GptNeox {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &GptNeoxConfig, device: &Device) -> Self {
        let (vocab, hidden) = (config.vocab_size, config.hidden_size);
        let std = config.initializer_range;
        Self {
            gpt_neox: Decoder {
                embed_in: Embedding::new(vocab, hidden, std, device),
                layers: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                final_layer_norm: LayerNorm::new(hidden, config.layer_norm_eps, device),
                dims: config.dims(),
                rope: Rope::new(config.rotated(), config.rope_theta, &config.rope_scaling),
            },
            embed_out: (!config.tie_word_embeddings)
                .then(|| Linear::new(hidden, vocab, false, Layout::OutIn, std, device)),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &GptNeoxConfig {
        &self.config
    }
}

impl CausalLm for GptNeox {
    fn body(&self) -> &dyn Backbone {
        &self.gpt_neox
    }

    fn head(&self) -> Head<'_> {
        Head::new(self.embed_out.as_ref(), &self.gpt_neox.embed_in)
    }
}

impl Backbone for Decoder {
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.embed_in.rows(),
            ..self.dims
        }
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_in.forward(input_ids)
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
            |x| self.final_layer_norm.forward(x),
        )
    }
}

impl Block {
    fn new(config: &GptNeoxConfig, device: &Device) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |from, to, bias| {
            let std = config.initializer_range;
            Linear::new(from, to, bias, Layout::OutIn, std, device)
        };
        let norm = || LayerNorm::new(hidden, config.layer_norm_eps, device);
        Self {
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            attention: Attention {
                query_key_value: linear(hidden, 3 * hidden, config.attention_bias),
                dense: linear(hidden, hidden, config.attention_bias),
                heads: config.num_attention_heads,
                head_dim: config.head_width(),
            },
            mlp: Mlp {
                dense_h_to_4h: linear(hidden, inner, true),
                dense_4h_to_h: linear(inner, hidden, true),
                act: config.hidden_act,
            },
            parallel: config.use_parallel_residual,
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
        let attended = x.clone() + self.attention.forward(layer, normed, shared, cache);
        let input = if self.parallel { x } else { attended.clone() };
        let normed = self.post_attention_layernorm.forward(input);
        attended + self.mlp.forward(normed)
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
        let [q, k, v] = split_grouped_heads(qkv, self.heads, self.head_dim);
        let qkv = [shared.angles.rotate(q), shared.angles.rotate(k), v];
        let scale = (self.head_dim as f64).powf(-0.5);
        (self.dense).forward(attend(qkv, scale, &shared.mask, layer, cache))
    }
}
