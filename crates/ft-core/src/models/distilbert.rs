//! DistilBERT (Sanh et al., 2019, arXiv:1910.01108): BERT with half the blocks, without token types and pooler.

#![allow(non_snake_case)] // Fields spell the checkpoint's names: `LayerNorm`.

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
use crate::models::config::{DistilBertConfig, read_config};
use crate::{Backbone, Dims, Error, Parts, Pass, Result, Weights};

/// The norms' term in the denominator, which no setting changes.
const EPSILON: f64 = 1e-12;

/// The encoder of DistilBERT.
#[derive(Module, Parts, Debug)]
#[parts(output = "", encoder)]
pub struct DistilBert {
    embeddings: Embeddings,
    transformer: Transformer,
    #[module(skip)]
    config: DistilBertConfig,
}

#[derive(Module, Parts, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    LayerNorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Transformer {
    layer: Vec<Block>,
}

#[derive(Module, Parts, Debug)]
struct Block {
    attention: Attention,
    sa_layer_norm: LayerNorm,
    ffn: FeedForward,
    output_layer_norm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    q_lin: Linear,
    k_lin: Linear,
    v_lin: Linear,
    out_lin: Linear,
    heads: usize,
}

#[derive(Module, Parts, Debug)]
struct FeedForward {
    lin1: Linear,
    lin2: Linear,
    #[module(skip)]
    act: Activation,
}

impl DistilBert {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &DistilBertConfig, device: &Device) -> Self {
        let (width, std) = (config.dim, config.initializer_range);
        let embedding = |rows| Embedding::new(rows, width, std, device);
        let padding = config.pad_token_id.unwrap_or(0);
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(config.vocab_size).with_padding(Some(padding)),
                position_embeddings: embedding(config.max_position_embeddings),
                LayerNorm: LayerNorm::new(width, EPSILON, device),
            },
            transformer: Transformer {
                layer: (0..config.n_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
            },
            config: config.clone(),
        }
    }

    /// Loads a model folder, with the weights held as `weights` says. The checkpoint may be the bare encoder or a model
    /// around it.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit the configuration.
    pub fn from_pretrained_with(folder: &Path, device: &Device, weights: Weights) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        let config = DistilBertConfig::from_json(json);
        let config = config.map_err(|error| Error::invalid(&path, error.to_string()))?;
        check_folder(config.dims(), &[], folder)?;
        load_pretrained(
            Self::from_config(&config, device),
            folder,
            weights,
            &Self::KEYS,
        )
    }

    /// Keys in files.
    pub(crate) const KEYS: Keys<'static> = Keys {
        body_prefixes: &["distilbert."],
        ignored: |name| {
            name == "embeddings.position_ids"
                || !(name.starts_with("embeddings.") || name.starts_with("transformer."))
        },
        old_names: &[],
        bare: true,
    };

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
    pub fn config(&self) -> &DistilBertConfig {
        &self.config
    }
}

impl Backbone for DistilBert {
    fn dims(&self) -> Dims {
        self.config.dims()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embeddings.word_embeddings.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place_of_encoder(&embeddings, self.config.max_position_embeddings);
        let mask = place.bidirectional_mask();
        let tables = &self.embeddings;
        let x = embeddings + tables.position_embeddings.forward(place.positions);
        run_blocks(
            &self.transformer.layer,
            tables.LayerNorm.forward(x),
            pass,
            move |_, layer, x, _| layer.forward(x, &mask),
            |x| x,
        )
    }
}

impl Block {
    fn new(config: &DistilBertConfig, device: &Device) -> Self {
        let (width, inner, std) = (config.dim, config.hidden_dim, config.initializer_range);
        let linear = |from, to| Linear::new(from, to, true, Layout::OutIn, std, device);
        let norm = || LayerNorm::new(width, EPSILON, device);
        Self {
            attention: Attention {
                q_lin: linear(width, width),
                k_lin: linear(width, width),
                v_lin: linear(width, width),
                out_lin: linear(width, width),
                heads: config.n_heads,
            },
            sa_layer_norm: norm(),
            ffn: FeedForward {
                lin1: linear(width, inner),
                lin2: linear(inner, width),
                act: config.activation,
            },
            output_layer_norm: norm(),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let x = self
            .sa_layer_norm
            .forward(self.attention.forward(x.clone(), mask) + x);
        let inner = self.ffn.act.forward(self.ffn.lin1.forward(x.clone()));
        self.output_layer_norm
            .forward(self.ffn.lin2.forward(inner) + x)
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let head_dim = x.dims()[2] / self.heads;
        let q = split_heads(self.q_lin.forward(x.clone()), self.heads);
        let k = split_heads(self.k_lin.forward(x.clone()), self.heads);
        let v = split_heads(self.v_lin.forward(x), self.heads);
        let scale = (head_dim as f64).powf(-0.5);
        self.out_lin
            .forward(attend([q, k, v], scale, mask, 0, None))
    }
}
