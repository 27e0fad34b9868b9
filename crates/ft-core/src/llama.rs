//! Llama and its relatives: Llama 2 and 3.x, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! A pre-norm decoder with rotary positions, grouped-query attention and a gated feed-forward
//! layer (Touvron et al., 2023, arXiv:2302.13971). The relatives differ in biases, windows and
//! norms on the heads, which [`LlamaConfig`] says; field names are Hugging Face's parameter names.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::blocks;
use crate::causal_lm::{CausalLm, Head};
use crate::config::{LlamaConfig, LlamaKind, ModelConfig};
use crate::embedding::Embedding;
use crate::linear::{Layout, Linear, ones};
use crate::linears::Linears;
use crate::rope::Rope;
use crate::{KvCache, TokenBatch};
use ft_kernels::{self as kernels, Activation, AttentionMask, Input};

/// A Llama-like causal language model.
#[derive(Module, Debug)]
pub struct Llama {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
}

#[derive(Module, Debug)]
struct Decoder {
    embed_tokens: Embedding,
    layers: Vec<Block>,
    norm: RmsNorm,
    #[module(skip)]
    rope: Rope,
    /// The distinct attention windows of the layers.
    #[module(skip)]
    windows: Vec<Option<usize>>,
}

#[derive(Module, Debug)]
struct RmsNorm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

#[derive(Module, Debug)]
struct Block {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    /// Index into `Decoder::windows`.
    window: usize,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    #[module(skip)]
    act: Activation,
}

/// What all layers of one forward pass share.
#[derive(Clone)]
struct Shared {
    cos: Tensor<4>,
    sin: Tensor<4>,
    /// One mask for each distinct window.
    masks: Vec<AttentionMask>,
}

impl Llama {
    /// A model with random weights, drawn when first read.
    pub fn from_config(config: &LlamaConfig, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let std = config.initializer_range;
        let windows: Vec<_> = (0..config.num_hidden_layers)
            .map(|layer| config.window(layer))
            .collect();
        let mut distinct = windows.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let layers = windows
            .iter()
            .map(|window| {
                let window = distinct.iter().position(|w| w == window).unwrap_or(0);
                Block::new(config, window, device)
            })
            .collect();
        Self {
            model: Decoder {
                embed_tokens: Embedding::new(config.vocab_size, hidden, std, device),
                layers,
                norm: RmsNorm::new(hidden, config, device),
                rope: Rope::new(config.head_width(), config.rope_theta, &config.rope_scaling),
                windows: distinct,
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| projection(hidden, config.vocab_size, false, config, device)),
            config: ModelConfig::Llama(config.clone()),
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

impl CausalLm for Llama {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.model.forward(tokens, cache)
    }

    fn head(&self) -> Head<'_> {
        match &self.lm_head {
            Some(linear) => Head::Linear(linear),
            None => Head::Tied(&self.model.embed_tokens.weight),
        }
    }
}

impl Linears for Llama {
    fn for_each_linear(&self, f: &mut dyn FnMut(&str, &Linear)) {
        for (i, layer) in self.model.layers.iter().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(layer.linears()) {
                f(&format!("model.layers.{i}.{name}"), linear);
            }
        }
        if let Some(head) = &self.lm_head {
            f("lm_head", head);
        }
    }

    fn for_each_linear_mut(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        for (i, layer) in self.model.layers.iter_mut().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(layer.linears_mut()) {
                f(&format!("model.layers.{i}.{name}"), linear);
            }
        }
        if let Some(head) = &mut self.lm_head {
            f("lm_head", head);
        }
    }
}

const BLOCK_LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

impl Decoder {
    fn forward(&self, tokens: &TokenBatch, mut cache: Option<&mut KvCache>) -> Tensor<3> {
        let [batch, seq] = tokens.input_ids.dims();
        let device = tokens.input_ids.device();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let segments = match cache.as_deref_mut() {
            Some(cache) => cache.append_segments(tokens.segment_ids.as_ref(), batch, seq, &device),
            None => tokens.segment_ids.clone(),
        };
        let positions = tokens.position_ids.clone().unwrap_or_else(|| {
            Tensor::<1, Int>::arange(past as i64..(past + seq) as i64, &device).unsqueeze()
        });
        let (cos, sin) = self.rope.cos_sin(positions);
        let masks = self
            .windows
            .iter()
            .map(|window| AttentionMask::new(seq, past, *window, segments.as_ref(), &device))
            .collect();
        let shared = Shared { cos, sin, masks };
        let x = self.embed_tokens.forward(tokens.input_ids.clone());
        let drops_out = blocks::drop_out(self.layers.iter().flat_map(Block::linears));
        let x = blocks::run(
            &self.layers,
            x,
            cache.as_deref_mut(),
            drops_out,
            move |i, layer, x, cache| layer.forward(i, x, &shared, cache),
        );
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        self.norm.forward(x)
    }
}

impl RmsNorm {
    fn new(features: usize, config: &LlamaConfig, device: &Device) -> Self {
        Self {
            weight: ones([features], device),
            epsilon: config.rms_norm_eps,
        }
    }

    fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::rms_norm(x, self.weight.val(), self.epsilon)
    }

    /// The same as input of linear layers.
    fn input(&self, x: Tensor<3>) -> Input<3> {
        Input::rms_norm(x, self.weight.val(), self.epsilon)
    }
}

impl Block {
    fn new(config: &LlamaConfig, window: usize, device: &Device) -> Self {
        let hidden = config.hidden_size;
        let inner = config.intermediate_size;
        let head_dim = config.head_width();
        let (heads, kv_heads) = (config.num_attention_heads, config.kv_heads());
        let linear = |from, to, bias| projection(from, to, bias, config, device);
        let head_norm = || {
            (config.model_type == LlamaKind::Qwen3).then(|| RmsNorm::new(head_dim, config, device))
        };
        Self {
            self_attn: Attention {
                q_proj: linear(hidden, heads * head_dim, config.qkv_bias()),
                k_proj: linear(hidden, kv_heads * head_dim, config.qkv_bias()),
                v_proj: linear(hidden, kv_heads * head_dim, config.qkv_bias()),
                o_proj: linear(heads * head_dim, hidden, config.output_bias()),
                q_norm: head_norm(),
                k_norm: head_norm(),
                heads,
                kv_heads,
                head_dim,
            },
            mlp: Mlp {
                gate_proj: linear(hidden, inner, config.mlp_bias),
                up_proj: linear(hidden, inner, config.mlp_bias),
                down_proj: linear(inner, hidden, config.mlp_bias),
                act: config.hidden_act,
            },
            input_layernorm: RmsNorm::new(hidden, config, device),
            post_attention_layernorm: RmsNorm::new(hidden, config, device),
            window,
        }
    }

    fn linears(&self) -> [&Linear; 7] {
        let (attn, mlp) = (&self.self_attn, &self.mlp);
        [
            &attn.q_proj,
            &attn.k_proj,
            &attn.v_proj,
            &attn.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 7] {
        let (attn, mlp) = (&mut self.self_attn, &mut self.mlp);
        [
            &mut attn.q_proj,
            &mut attn.k_proj,
            &mut attn.v_proj,
            &mut attn.o_proj,
            &mut mlp.gate_proj,
            &mut mlp.up_proj,
            &mut mlp.down_proj,
        ]
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let mask = &shared.masks[self.window];
        let normed = self.input_layernorm.input(x.clone());
        let x = x + (self.self_attn).forward(layer, normed, mask, shared, cache);
        let normed = self.post_attention_layernorm.input(x.clone());
        x + self.mlp.forward(normed)
    }
}

impl Attention {
    fn forward(
        &self,
        layer: usize,
        x: Input<3>,
        mask: &AttentionMask,
        shared: &Shared,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [batch, seq, _] = x.value().dims();
        let split = |x: Tensor<3>, heads, norm: &Option<RmsNorm>| {
            let x = x.reshape([batch, seq, heads, self.head_dim]);
            match norm {
                Some(norm) => norm.forward(x),
                None => x,
            }
            .swap_dims(1, 2)
        };
        let q = split(self.q_proj.forward(x.clone()), self.heads, &self.q_norm);
        let k = split(self.k_proj.forward(x.clone()), self.kv_heads, &self.k_norm);
        let v = split(self.v_proj.forward(x), self.kv_heads, &None);
        let q = kernels::apply_rotary(q, &shared.cos, &shared.sin);
        let k = kernels::apply_rotary(k, &shared.cos, &shared.sin);
        let (k, v) = match cache {
            Some(cache) => cache.append(layer, k, v),
            None => (k, v),
        };
        let scale = (self.head_dim as f64).powf(-0.5);
        let out = kernels::attention(q, k, v, scale, mask)
            .swap_dims(1, 2)
            .reshape([batch, seq, self.heads * self.head_dim]);
        self.o_proj.forward(out)
    }
}

impl Mlp {
    fn forward(&self, x: Input<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        self.down_proj.forward(Input::gated_mlp(gate, up, self.act))
    }
}
