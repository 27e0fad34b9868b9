//! GPT-2 (Radford et al., 2019): learned positions, layer norms, fused query-key-value projection.
//!
//! Its projections are transformers' `Conv1D`, whose weights are `[in, out]`
//! ([`Layout::InOut`]).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use crate::blocks;
use crate::causal_lm::{CausalLm, Head};
use crate::config::{Gpt2Config, ModelConfig};
use crate::embedding::Embedding;
use crate::layer_norm::LayerNorm;
use crate::linear::{Layout, Linear};
use crate::linears::Linears;
use crate::{KvCache, TokenBatch};
use ft_kernels::{self as kernels, Activation, AttentionMask};

/// A GPT-2 language model.
#[derive(Module, Debug)]
pub struct Gpt2 {
    transformer: Transformer,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
}

#[derive(Module, Debug)]
struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    heads: usize,
    scale: f64,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
    #[module(skip)]
    act: Activation,
}

impl Gpt2 {
    /// A model with random weights, drawn when first read.
    pub fn from_config(config: &Gpt2Config, device: &Device) -> Self {
        let width = config.n_embd;
        let std = config.initializer_range;
        let embedding = |rows| Embedding::new(rows, width, std, device);
        Self {
            transformer: Transformer {
                wte: embedding(config.vocab_size),
                wpe: embedding(config.n_positions),
                h: (0..config.n_layer)
                    .map(|layer| Block::new(layer, config, device))
                    .collect(),
                ln_f: LayerNorm::new(config.n_embd, config.layer_norm_epsilon, device),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::new(width, config.vocab_size, false, Layout::OutIn, std, device)),
            config: ModelConfig::Gpt2(config.clone()),
        }
    }
}

impl CausalLm for Gpt2 {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn hidden_states(&self, tokens: &TokenBatch, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.transformer.forward(tokens, cache)
    }

    fn head(&self) -> Head<'_> {
        match &self.lm_head {
            Some(linear) => Head::Linear(linear),
            None => Head::Tied(&self.transformer.wte.weight),
        }
    }
}

impl Linears for Gpt2 {
    fn for_each_linear(&self, f: &mut dyn FnMut(&str, &Linear)) {
        for (i, block) in self.transformer.h.iter().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(block.linears()) {
                f(&format!("transformer.h.{i}.{name}"), linear);
            }
        }
        if let Some(head) = &self.lm_head {
            f("lm_head", head);
        }
    }

    fn for_each_linear_mut(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        for (i, block) in self.transformer.h.iter_mut().enumerate() {
            for (name, linear) in BLOCK_LINEARS.iter().zip(block.linears_mut()) {
                f(&format!("transformer.h.{i}.{name}"), linear);
            }
        }
        if let Some(head) = &mut self.lm_head {
            f("lm_head", head);
        }
    }
}

const BLOCK_LINEARS: [&str; 4] = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"];

impl Transformer {
    fn forward(&self, tokens: &TokenBatch, mut cache: Option<&mut KvCache>) -> Tensor<3> {
        let [batch, seq] = tokens.input_ids.dims();
        let device = tokens.input_ids.device();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let segments = match cache.as_deref_mut() {
            Some(cache) => cache.append_segments(tokens.segment_ids.as_ref(), batch, seq, &device),
            None => tokens.segment_ids.clone(),
        };
        let positions = tokens.position_ids.clone().unwrap_or_else(|| {
            Tensor::<1, Int>::arange(past as i64..(past + seq) as i64, &device)
                .unsqueeze::<2>()
                .expand([batch, seq])
        });
        let mask = AttentionMask::new(seq, past, None, segments.as_ref(), &device);
        let x = self.wte.forward(tokens.input_ids.clone()) + self.wpe.forward(positions);
        let drops_out = blocks::drop_out(self.h.iter().flat_map(Block::linears));
        let x = blocks::run(
            &self.h,
            x,
            cache.as_deref_mut(),
            drops_out,
            move |i, block, x, cache| block.forward(i, x, &mask, cache),
        );
        if let Some(cache) = cache {
            cache.advance(seq);
        }
        self.ln_f.forward(x)
    }
}

impl Block {
    fn new(layer: usize, config: &Gpt2Config, device: &Device) -> Self {
        let width = config.n_embd;
        let conv1d = |from, to| {
            Linear::new(
                from,
                to,
                true,
                Layout::InOut,
                config.initializer_range,
                device,
            )
        };
        let mut scale = 1.0;
        if config.scale_attn_weights {
            scale /= ((width / config.n_head) as f64).sqrt();
        }
        if config.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        Self {
            ln_1: LayerNorm::new(config.n_embd, config.layer_norm_epsilon, device),
            attn: Attention {
                c_attn: conv1d(width, 3 * width),
                c_proj: conv1d(width, width),
                heads: config.n_head,
                scale,
            },
            ln_2: LayerNorm::new(config.n_embd, config.layer_norm_epsilon, device),
            mlp: Mlp {
                c_fc: conv1d(width, config.inner()),
                c_proj: conv1d(config.inner(), width),
                act: config.activation_function,
            },
        }
    }

    fn linears(&self) -> [&Linear; 4] {
        let (attn, mlp) = (&self.attn, &self.mlp);
        [&attn.c_attn, &attn.c_proj, &mlp.c_fc, &mlp.c_proj]
    }

    fn linears_mut(&mut self) -> [&mut Linear; 4] {
        let (attn, mlp) = (&mut self.attn, &mut self.mlp);
        [
            &mut attn.c_attn,
            &mut attn.c_proj,
            &mut mlp.c_fc,
            &mut mlp.c_proj,
        ]
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let normed = self.ln_1.forward(x.clone());
        let x = x + self.attn.forward(layer, normed, mask, cache);
        let normed = self.ln_2.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

impl Attention {
    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let qkv = self.c_attn.forward(x);
        let part = |i: usize| {
            qkv.clone()
                .narrow(2, i * width, width)
                .reshape([batch, seq, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let (q, k, v) = (part(0), part(1), part(2));
        let (k, v) = match cache {
            Some(cache) => cache.append(layer, k, v),
            None => (k, v),
        };
        let out = kernels::attention(q, k, v, self.scale, mask)
            .swap_dims(1, 2)
            .reshape([batch, seq, width]);
        self.c_proj.forward(out)
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.c_proj.forward(self.act.forward(self.c_fc.forward(x)))
    }
}
