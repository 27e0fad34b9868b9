//! Gemma 1, 2 and 3 (Gemma Team, 2024 and 2025, arXiv:2403.08295, arXiv:2408.00118, arXiv:2503.19786).
//!
//! A decoder like Llama with scaled embeddings and norms whose factor is `1 + w`. Gemma 2 adds norms after each layer, caps
//! scores and logits and has a window in every other layer. Gemma 3 has norms on query and key heads in place of the
//! caps, and rotary frequencies of their own in layers with a window.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::AttentionMask;

use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::gated_mlp::GatedMlp;
use crate::layers::linear::Linear;
use crate::layers::rms_norm::RmsNorm;
use crate::layers::rope::{Angles, Rope};
use crate::layers::rope_scaling::RopeScaling;
use crate::layers::self_attention::SelfAttention;
use crate::layers::windows::Windows;
use crate::models::config::{Family, GemmaConfig, GemmaKind};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// A Gemma language model.
#[derive(Module, Parts, Debug)]
pub struct Gemma {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: GemmaConfig,
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
    /// Of layers with a window, where they differ.
    #[module(skip)]
    local_rope: Option<Rope>,
    /// Which layers have a window.
    #[module(skip)]
    slides: Vec<bool>,
    #[module(skip)]
    windows: Windows,
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: SelfAttention,
    mlp: GatedMlp,
    input_layernorm: RmsNorm,
    /// Before the feed-forward layer in Gemma 1, after attention in Gemma 2 and 3.
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: Option<RmsNorm>,
    post_feedforward_layernorm: Option<RmsNorm>,
}

impl Gemma {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &GemmaConfig, device: &Device) -> Self {
        let decoder = &config.decoder;
        let windows = (0..decoder.num_hidden_layers).map(|layer| config.window(layer));
        let local_rope = config
            .rope_local_base_freq
            .map(|theta| Rope::new(decoder.head_width(), theta, &RopeScaling::Default));
        Self {
            model: Decoder {
                embed_tokens: decoder
                    .embedding(device)
                    .with_scale((decoder.hidden_size as f64).sqrt()),
                layers: (0..decoder.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                norm: norm(config, device),
                dims: config.dims(),
                rope: decoder.rope(),
                local_rope,
                slides: windows.clone().map(|window| window.is_some()).collect(),
                windows: Windows::new(windows),
            },
            lm_head: decoder.lm_head(device),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &GemmaConfig {
        &self.config
    }
}

impl CausalLm for Gemma {
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

    fn attention_window(&self) -> Option<usize> {
        self.windows.shortest()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place(&embeddings);
        let masks = self.windows.masks(&place);
        let local = (self.local_rope.as_ref()).map(|rope| rope.angles(place.positions.clone()));
        let global = self.rope.angles(place.positions);
        let slides = self.slides.clone();
        run_blocks(
            &self.layers,
            embeddings,
            pass,
            move |i, block, x, cache| {
                let angles = match &local {
                    Some(local) if slides[i] => local,
                    _ => &global,
                };
                block.forward(i, x, angles, masks.of(i), cache)
            },
            |x| self.norm.forward(x),
        )
    }
}

fn norm(config: &GemmaConfig, device: &Device) -> RmsNorm {
    RmsNorm::from_one(
        config.decoder.hidden_size,
        config.decoder.rms_norm_eps,
        device,
    )
}

impl Block {
    fn new(config: &GemmaConfig, device: &Device) -> Self {
        let decoder = &config.decoder;
        let around = || (config.model_type != GemmaKind::Gemma).then(|| norm(config, device));
        let of_heads = || {
            let (width, epsilon) = (decoder.head_width(), decoder.rms_norm_eps);
            (config.model_type == GemmaKind::Gemma3)
                .then(|| RmsNorm::from_one(width, epsilon, device))
        };
        Self {
            self_attn: SelfAttention {
                q_norm: of_heads(),
                k_norm: of_heads(),
                ..decoder.self_attention(config.scores(), device)
            },
            mlp: decoder.gated_mlp(config.activation(), false, device),
            input_layernorm: norm(config, device),
            post_attention_layernorm: norm(config, device),
            pre_feedforward_layernorm: around(),
            post_feedforward_layernorm: around(),
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
        let normed = self.input_layernorm.input(x.clone());
        let attended = (self.self_attn).forward(layer, normed, Some(angles), mask, cache);
        let (Some(before), Some(after)) = (
            &self.pre_feedforward_layernorm,
            &self.post_feedforward_layernorm,
        ) else {
            let x = x + attended;
            let normed = self.post_attention_layernorm.input(x.clone());
            return x + self.mlp.forward(normed);
        };
        let x = x + self.post_attention_layernorm.forward(attended);
        let normed = before.input(x.clone());
        x + after.forward(self.mlp.forward(normed))
    }
}
