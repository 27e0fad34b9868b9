//! Granite (IBM, 2024): Llama with a factor on embeddings, scores, logits, and what a layer adds (the µP
//! parametrization of Yang et al., 2022, arXiv:2203.03466).

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::AttentionMask;

use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::gated_mlp::GatedMlp;
use crate::layers::linear::Linear;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::{Angles, Rope};
use crate::layers::self_attention::SelfAttention;
use crate::models::config::{Family, GraniteConfig};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Granite language model.
#[derive(Module, Parts, Debug)]
pub struct Granite {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: GraniteConfig,
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
    embedding_multiplier: f64,
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: SelfAttention,
    mlp: GatedMlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    residual_multiplier: f64,
}

impl Granite {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &GraniteConfig, device: &Device) -> Self {
        let decoder = &config.decoder;
        Self {
            model: Decoder {
                embed_tokens: decoder.embedding(device),
                layers: (0..decoder.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                norm: RmsNorm::new(decoder.hidden_size, decoder.rms_norm_eps, device),
                dims: config.dims(),
                rope: decoder.rope(),
                embedding_multiplier: config.embedding_multiplier,
            },
            lm_head: decoder.lm_head(device),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &GraniteConfig {
        &self.config
    }
}

impl CausalLm for Granite {
    fn body(&self) -> &dyn Backbone {
        &self.model
    }

    fn head(&self) -> Head<'_> {
        Head::new(self.lm_head.as_ref(), &self.model.embed_tokens).with_logits(self.config.logits())
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
        let mask = place.causal_mask(None);
        let angles = self.rope.angles(place.positions);
        let x = match pass.passed {
            0 => embeddings * self.embedding_multiplier,
            _ => embeddings,
        };
        run_blocks(
            &self.layers,
            x,
            pass,
            move |i, block, x, cache| block.forward(i, x, &angles, &mask, cache),
            |x| self.norm.forward(x),
        )
    }
}

impl Block {
    fn new(config: &GraniteConfig, device: &Device) -> Self {
        let decoder = &config.decoder;
        let norm = || RmsNorm::new(decoder.hidden_size, decoder.rms_norm_eps, device);
        let scores = config.attention_multiplier.into();
        Self {
            self_attn: decoder.self_attention(scores, device),
            mlp: decoder.gated_mlp(config.hidden_act, config.mlp_bias, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            residual_multiplier: config.residual_multiplier,
        }
    }

    fn forward(
        &self,
        layer: usize,
        x: Tensor<3>,
        angles: &Angles,
        mask: &AttentionMask,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let factor = self.residual_multiplier;
        let normed = self.input_layernorm.input(x.clone());
        let x = x + (self.self_attn).forward(layer, normed, Some(angles), mask, cache) * factor;
        let normed = self.post_attention_layernorm.input(x.clone());
        x + self.mlp.forward(normed) * factor
    }
}
