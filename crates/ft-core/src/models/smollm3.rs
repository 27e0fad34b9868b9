//! SmolLM3 (Hugging Face, 2025): Llama, in which every fourth layer has no rotary positions (Yang et al., 2025,
//! arXiv:2501.18795).

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
use crate::layers::windows::Windows;
use crate::models::config::{Family, SmolLm3Config};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A SmolLM3 language model.
#[derive(Module, Parts, Debug)]
pub struct SmolLm3 {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: SmolLm3Config,
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
    /// Whether heads are rotated.
    rotates: bool,
}

impl SmolLm3 {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &SmolLm3Config, device: &Device) -> Self {
        let decoder = &config.decoder;
        let layers = 0..decoder.num_hidden_layers;
        Self {
            model: Decoder {
                embed_tokens: decoder.embedding(device),
                layers: (layers.clone())
                    .map(|layer| Block::new(layer, config, device))
                    .collect(),
                norm: RmsNorm::new(decoder.hidden_size, decoder.rms_norm_eps, device),
                dims: config.dims(),
                rope: decoder.rope(),
                windows: Windows::new(layers.map(|layer| config.window(layer))),
            },
            lm_head: decoder.lm_head(device),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &SmolLm3Config {
        &self.config
    }
}

impl CausalLm for SmolLm3 {
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
        let masks = self.windows.masks(&place);
        let angles = self.rope.angles(place.positions);
        run_blocks(
            &self.layers,
            embeddings,
            pass,
            move |i, block, x, cache| block.forward(i, x, &angles, masks.of(i), cache),
            |x| self.norm.forward(x),
        )
    }
}

impl Block {
    fn new(layer: usize, config: &SmolLm3Config, device: &Device) -> Self {
        let decoder = &config.decoder;
        let norm = || RmsNorm::new(decoder.hidden_size, decoder.rms_norm_eps, device);
        Self {
            self_attn: decoder.self_attention(decoder.plain_scores(), device),
            mlp: decoder.gated_mlp(config.hidden_act, config.mlp_bias, device),
            input_layernorm: norm(),
            post_attention_layernorm: norm(),
            rotates: config.rotates(layer),
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
        let angles = self.rotates.then_some(angles);
        let normed = self.input_layernorm.input(x.clone());
        let x = x + (self.self_attn).forward(layer, normed, angles, mask, cache);
        let normed = self.post_attention_layernorm.input(x.clone());
        x + self.mlp.forward(normed)
    }
}
