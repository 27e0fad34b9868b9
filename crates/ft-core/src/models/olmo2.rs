//! OLMo 2 (OLMo Team, 2024, arXiv:2501.00656): norms after attention and feed-forward layer, not before, and norms over
//! all query and all key heads.

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
use crate::models::config::{Family, Olmo2Config};
use crate::{Backbone, CausalLm, Dims, Head, KvCache, Parts, Pass};

/// An OLMo 2 language model.
#[derive(Module, Parts, Debug)]
pub struct Olmo2 {
    model: Decoder,
    /// Absent when the embedding serves as head.
    lm_head: Option<Linear>,
    #[module(skip)]
    config: Olmo2Config,
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
}

#[derive(Module, Parts, Debug)]
struct Block {
    self_attn: SelfAttention,
    mlp: GatedMlp,
    post_attention_layernorm: RmsNorm,
    post_feedforward_layernorm: RmsNorm,
}

impl Olmo2 {
    /// A model with random weights, drawn when first read.
    pub(crate) fn from_config(config: &Olmo2Config, device: &Device) -> Self {
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
            },
            lm_head: decoder.lm_head(device),
            config: config.clone(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &Olmo2Config {
        &self.config
    }
}

impl CausalLm for Olmo2 {
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
        let mask = place.causal_mask(None);
        let angles = self.rope.angles(place.positions);
        run_blocks(
            &self.layers,
            embeddings,
            pass,
            move |i, block, x, cache| block.forward(i, x, &angles, &mask, cache),
            |x| self.norm.forward(x),
        )
    }
}

impl Block {
    fn new(config: &Olmo2Config, device: &Device) -> Self {
        let decoder = &config.decoder;
        let norm = |width| RmsNorm::new(width, decoder.rms_norm_eps, device);
        let of_heads = |heads| Some(norm(heads * decoder.head_width()));
        Self {
            self_attn: SelfAttention {
                q_norm: of_heads(decoder.num_attention_heads),
                k_norm: of_heads(decoder.num_key_value_heads),
                ..decoder.self_attention(decoder.plain_scores(), device)
            },
            mlp: decoder.gated_mlp(config.hidden_act, false, device),
            post_attention_layernorm: norm(decoder.hidden_size),
            post_feedforward_layernorm: norm(decoder.hidden_size),
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
        let attended = (self.self_attn).forward(layer, x.clone(), Some(angles), mask, cache);
        let x = x + self.post_attention_layernorm.forward(attended);
        let inner = self.mlp.forward(x.clone());
        x + self.post_feedforward_layernorm.forward(inner)
    }
}
