//! GPT-2 (Radford et al., 2019): learned positions, layer norms, fused query-key-value projection.
//!
//! Its projections are transformers' `Conv1D`, whose weights are `[in, out]`
//! ([`Layout::InOut`]).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::{Activation, AttentionMask};

use crate::layers::attention::{attend, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::layers::residual::Residual;
use crate::models::config::{Family, Gpt2Config};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A GPT-2 language model.
#[derive(Module, Parts, Debug)]
pub struct Gpt2 {
    transformer: Transformer,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Gpt2Config,
}

#[derive(Module, Parts, Debug)]
struct Transformer {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[module(skip)]
    dims: Dims,
}

#[derive(Module, Parts, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
    attention_adapters: Residual,
    output_adapters: Residual,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
    #[parts(key_heads)]
    heads: usize,
    scale: f64,
}

#[derive(Module, Parts, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
    #[module(skip)]
    act: Activation,
}

impl Gpt2 {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &Gpt2Config, device: &Device) -> Self {
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
                dims: config.dims(),
            },
            lm_head: (!config.tie_word_embeddings)
                .then(|| Linear::new(width, config.vocab_size, false, Layout::OutIn, std, device)),
            config: config.clone(),
        }
    }
}

impl Gpt2 {
    /// The configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }
}

impl CausalLm for Gpt2 {
    fn body(&self) -> &dyn Backbone {
        &self.transformer
    }

    fn head(&self) -> Head<'_> {
        Head::new(self.lm_head.as_ref(), &self.transformer.wte)
    }
}

impl Backbone for Transformer {
    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.wte.rows(),
            ..self.dims
        }
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.wte.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let mask = place.causal_mask(None);
        let x = match pass.passed {
            0 => embeddings + self.wpe.forward(place.positions),
            _ => embeddings,
        };
        run_blocks(
            &self.h,
            x,
            pass,
            move |i, block, x, cache| block.forward(i, x, &mask, cache),
            |x| self.ln_f.forward(x),
        )
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
            attention_adapters: Residual::new(width),
            output_adapters: Residual::new(width),
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let normed = self.ln_1.forward(x.clone());
        let attended = self.attn.forward(layer, normed, mask, cache);
        let x = self.attention_adapters.add(x, attended);
        let normed = self.ln_2.forward(x.clone());
        let inner = self.mlp.forward(normed);
        self.output_adapters.add(x, inner)
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
        let width = x.dims()[2];
        let qkv = self.c_attn.forward(x);
        let part = |i: usize| split_heads(qkv.clone().narrow(2, i * width, width), self.heads);
        let qkv = [part(0), part(1), part(2)];
        self.c_proj
            .forward(attend(qkv, self.scale, mask, layer, cache))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.c_proj.forward(self.act.forward(self.c_fc.forward(x)))
    }
}
