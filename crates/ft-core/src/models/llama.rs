//! Llama and its relatives: Llama 2 and 3.x, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! A pre-norm decoder with rotary positions, grouped-query attention and a gated feed-forward
//! layer (Touvron et al., 2023, arXiv:2302.13971). The relatives differ in biases, windows and
//! norms on the heads, which [`LlamaConfig`] says; field names are Hugging Face's parameter names.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::gated_mlp::GatedMlp;
use crate::layers::linear::{Layout, Linear};
use crate::layers::residual::Residual;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::{Angles, Rope};
use crate::layers::self_attention::SelfAttention;
use crate::layers::windows::{Masks, Windows};
use crate::models::config::{Family, LlamaConfig, LlamaKind};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Llama-like causal language model.
#[derive(Module, Parts, Debug)]
pub struct Llama {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: LlamaConfig,
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
    windows: Windows,
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: SelfAttention,
    mlp: GatedMlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    attention_adapters: Residual,
    output_adapters: Residual,
}

/// What all layers of one forward pass share.
#[derive(Clone)]
struct Shared {
    angles: Angles,
    masks: Masks,
}

impl Llama {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &LlamaConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let std = config.initializer_range;
        let layers = 0..config.num_hidden_layers;
        Self {
            model: Decoder {
                dims: config.dims(),
                embed_tokens: Embedding::new(config.vocab_size, hidden, std, device),
                layers: layers.clone().map(|_| Block::new(config, device)).collect(),
                norm: RmsNorm::new(hidden, config.rms_norm_eps, device),
                rope: Rope::new(config.head_width(), config.rope_theta, &config.rope_scaling),
                windows: Windows::new(layers.map(|layer| config.window(layer))),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| projection(hidden, config.vocab_size, false, config, device)),
            config: config.clone(),
        }
    }
}

fn projection(from: usize, to: usize, bias: bool, config: &LlamaConfig, device: &Device) -> Linear {
    Linear::new(
        from,
        to,
        bias,
        Layout::OutIn,
        config.initializer_range,
        device,
    )
}

impl Llama {
    /// The configuration.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }
}

impl CausalLm for Llama {
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
        self.windows.shortest()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let shared = Shared {
            masks: self.windows.masks(&place),
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
    fn new(config: &LlamaConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let inner = config.intermediate_size;
        let head_dim = config.head_width();
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let linear = |from, to, bias| projection(from, to, bias, config, device);
        let head_norm = || {
            (config.model_type == LlamaKind::Qwen3)
                .then(|| RmsNorm::new(head_dim, config.rms_norm_eps, device))
        };
        Self {
            self_attn: SelfAttention {
                q_proj: linear(hidden, heads * head_dim, config.qkv_bias()),
                k_proj: linear(hidden, kv_heads * head_dim, config.qkv_bias()),
                v_proj: linear(hidden, kv_heads * head_dim, config.qkv_bias()),
                o_proj: linear(heads * head_dim, hidden, config.output_bias()),
                q_norm: head_norm(),
                k_norm: head_norm(),
                heads,
                kv_heads,
                scores: (head_dim as f64).powf(-0.5).into(),
            },
            mlp: GatedMlp {
                gate_proj: linear(hidden, inner, config.mlp_bias),
                up_proj: linear(hidden, inner, config.mlp_bias),
                down_proj: linear(inner, hidden, config.mlp_bias),
                act: config.hidden_act,
            },
            input_layernorm: RmsNorm::new(hidden, config.rms_norm_eps, device),
            post_attention_layernorm: RmsNorm::new(hidden, config.rms_norm_eps, device),
            attention_adapters: Residual::new(hidden),
            output_adapters: Residual::new(hidden),
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let (angles, mask) = (Some(&shared.angles), shared.masks.of(layer));
        let normed = self.input_layernorm.input(x.clone());
        let attended = (self.self_attn).forward(layer, normed, angles, mask, cache);
        let x = self.attention_adapters.add(x, attended);
        let normed = self.post_attention_layernorm.input(x.clone());
        let inner = self.mlp.forward(normed);
        self.output_adapters.add(x, inner)
    }
}
