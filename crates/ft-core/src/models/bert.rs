//! BERT (Devlin et al., 2018, arXiv:1810.04805) and RoBERTa (Liu et al., 2019, arXiv:1907.11692): encoders, in which
//! every token sees every other.
//!
//! The encoder alone: what a checkpoint has besides (the pooler, heads of pretraining or of a task) is ignored.

// Fields spell the checkpoint's names: `LayerNorm`.
#![allow(non_snake_case)]

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::{Activation, AttentionMask};

use crate::files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
use crate::files::sizes::check_folder;
use crate::layers::attention::{attend, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::layers::residual::Residual;
use crate::layers::virtual_tokens::VirtualTokens;
use crate::models::config::BertConfig;
use crate::{Backbone, Dims, Parts, Pass, Result, Weights};

/// The encoder of BERT, RoBERTa and XLM-RoBERTa.
#[derive(Module, Parts, Debug)]
#[parts(output = "", encoder)]
pub struct Bert {
    embeddings: Embeddings,
    encoder: Encoder,
    #[module(skip)]
    config: BertConfig,
}

#[derive(Module, Parts, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    LayerNorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Encoder {
    layer: Vec<Block>,
}

#[derive(Module, Parts, Debug)]
struct Block {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
    attention_adapters: Residual,
    output_adapters: Residual,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    self_: SelfAttention,
    output: Output,
}

#[derive(Module, Parts, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    heads: usize,
}

#[derive(Module, Parts, Debug)]
struct Intermediate {
    dense: Linear,
    #[module(skip)]
    act: Activation,
}

/// A projection back, the residual, and the norm after both.
#[derive(Module, Parts, Debug)]
struct Output {
    dense: Linear,
    LayerNorm: LayerNorm,
}

impl Bert {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &BertConfig, device: &Device) -> Self {
        let (width, std) = (config.hidden_size, config.initializer_range);
        let embedding = |rows| Embedding::new(rows, width, std, device);
        let padding = config.padding();
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(config.vocab_size).with_padding(Some(padding)),
                position_embeddings: embedding(config.max_position_embeddings)
                    .with_padding(config.first_position().checked_sub(1)),
                token_type_embeddings: embedding(config.type_vocab_size),
                LayerNorm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
            },
            encoder: Encoder {
                layer: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
            },
            config: config.clone(),
        }
    }

    /// Loads a model folder: `config.json` and `model.safetensors`, whole or sharded; weights are widened to `f32`. The
    /// checkpoint may be the bare encoder or a model around it.
    ///
    /// # Errors
    ///
    /// If a file is missing, truncated or malformed, or the weights do not fit the configuration:
    /// [`Error::Keys`](crate::Error::Keys) lists every missing and misshapen key, and those of the encoder that are left
    /// over.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        Self::from_pretrained_with(folder, device, Weights::F32)
    }

    /// [`from_pretrained`](Self::from_pretrained) with the weights held as `weights` says.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let config = BertConfig::from_pretrained(folder)?;
        check_folder(config.dims(), &[], folder)?;
        let model = Self::from_config(&config, device);
        let keys = Keys {
            body_prefixes: &["bert.", "roberta."],
            ignored: |name| {
                name == "embeddings.position_ids"
                    || !(name.starts_with("embeddings.") || name.starts_with("encoder."))
            },
            // Checkpoints from TensorFlow call the weights of norms gamma and beta.
            old_names: &[
                ("LayerNorm.weight", "LayerNorm.gamma"),
                ("LayerNorm.bias", "LayerNorm.beta"),
            ],
            bare: true,
        };
        load_pretrained(model, folder, weights, &keys)
    }

    /// Writes `config.json` and the weights of the encoder, so that transformers' `AutoModel` loads the folder.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or the model carries adapters.
    pub fn save_pretrained(&self, folder: &Path, options: &SaveOptions) -> Result<()> {
        save_pretrained(self, self.config.to_json(), folder, options)
    }

    /// The embedding of tokens.
    pub(crate) fn word_embeddings(&self) -> &Embedding {
        &self.embeddings.word_embeddings
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }
}

/// Positions count from 0 in each row, also for RoBERTa, if none are given; so rows are padded on the right.
///
/// # Panics
///
/// [`forward`](Backbone::forward) panics if a sequence without given positions is longer than the model's; see
/// [`Dims::check_length`].
impl Backbone for Bert {
    fn dims(&self) -> Dims {
        self.config.dims()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        assert_eq!(
            VirtualTokens::count(self),
            0,
            "virtual tokens (prompt tuning, p-tuning, prefix tuning) are not supported on encoders: use another adapter"
        );
        self.embeddings.word_embeddings.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let [batch, seq, _] = embeddings.dims();
        let place = pass.place_of_encoder(&embeddings, self.config.max_length());
        let mask = place.bidirectional_mask();
        let device = embeddings.device();
        let token_types =
            (pass.token_type_ids.take()).unwrap_or_else(|| Tensor::zeros([batch, seq], &device));
        let positions = place.positions + self.config.first_position() as i64;
        let tables = &self.embeddings;
        // In transformers' order, so that sums round alike.
        let x = embeddings
            + tables.token_type_embeddings.forward(token_types)
            + tables.position_embeddings.forward(positions);
        run_blocks(
            &self.encoder.layer,
            tables.LayerNorm.forward(x),
            pass,
            move |_, layer, x, _| layer.forward(x, &mask),
            |x| x,
        )
    }
}

impl Block {
    fn new(config: &BertConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let linear = |from, to| {
            Linear::new(
                from,
                to,
                true,
                Layout::OutIn,
                config.initializer_range,
                device,
            )
        };
        let output = |from| Output {
            dense: linear(from, width),
            LayerNorm: LayerNorm::new(config.hidden_size, config.layer_norm_eps, device),
        };
        Self {
            attention: Attention {
                self_: SelfAttention {
                    query: linear(width, width),
                    key: linear(width, width),
                    value: linear(width, width),
                    heads: config.num_attention_heads,
                },
                output: output(width),
            },
            intermediate: Intermediate {
                dense: linear(width, inner),
                act: config.hidden_act,
            },
            output: output(inner),
            attention_adapters: Residual::new(width),
            output_adapters: Residual::new(width),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let attended = self.attention.self_.forward(x.clone(), mask);
        let x = (self.attention.output).forward(attended, x, &self.attention_adapters);
        let inner = self
            .intermediate
            .act
            .forward(self.intermediate.dense.forward(x.clone()));
        self.output.forward(inner, x, &self.output_adapters)
    }
}

impl SelfAttention {
    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let head_dim = x.dims()[2] / self.heads;
        let q = split_heads(self.query.forward(x.clone()), self.heads);
        let k = split_heads(self.key.forward(x.clone()), self.heads);
        let v = split_heads(self.value.forward(x), self.heads);
        attend([q, k, v], (head_dim as f64).powf(-0.5), mask, 0, None)
    }
}

impl Output {
    fn forward(&self, inner: Tensor<3>, x: Tensor<3>, residual: &Residual) -> Tensor<3> {
        residual.add_and_norm(x, self.dense.forward(inner), &self.LayerNorm)
    }
}
