//! ModernBERT (Warner et al., 2024, arXiv:2412.13663): norms before sublayers and without biases, rotary positions, a gated
//! feed-forward layer, and blocks that see only near tokens between those that see all.

#![allow(non_snake_case)] // Fields spell the checkpoint's names: `Wqkv`.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use ft_kernels::{Activation, AttentionMask, Input};

use crate::files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
use crate::files::sizes::check_folder;
use crate::layers::attention::{attend, split_heads};
use crate::layers::blocks::run_blocks;
use crate::layers::embedding::Embedding;
use crate::layers::linear::{Layout, Linear, ones};
use crate::layers::rope::{Angles, Rope};
use crate::layers::rope_scaling::RopeScaling;
use crate::models::config::{ModernBertConfig, read_config};
use crate::{Backbone, Dims, Error, Parts, Pass, Result, Weights};

/// The encoder of ModernBERT.
#[derive(Module, Parts, Debug)]
#[parts(output = "", encoder)]
pub struct ModernBert {
    embeddings: Embeddings,
    layers: Vec<Block>,
    final_norm: Norm,
    #[module(skip)]
    config: ModernBertConfig,
}

#[derive(Module, Parts, Debug)]
struct Embeddings {
    tok_embeddings: Embedding,
    norm: Norm,
}

/// A layer norm without bias.
#[derive(Module, Parts, Debug)]
struct Norm {
    weight: Param<Tensor<1>>,
    epsilon: f64,
}

#[derive(Module, Parts, Debug)]
struct Block {
    /// Absent in the first block, whose input is normed already.
    attn_norm: Option<Norm>,
    attn: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    /// Queries, keys and values of all heads, in this order.
    Wqkv: Linear,
    Wo: Linear,
    heads: usize,
}

#[derive(Module, Parts, Debug)]
struct Mlp {
    /// What is activated, and the gate.
    Wi: Linear,
    Wo: Linear,
    #[module(skip)]
    act: Activation,
}

impl ModernBert {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &ModernBertConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let norm = || Norm {
            weight: ones([width], device),
            epsilon: config.norm_eps,
        };
        let linear = |from, to, bias| {
            let std = config.initializer_range;
            Linear::new(from, to, bias, Layout::OutIn, std, device)
        };
        let block = |layer: usize| Block {
            attn_norm: (layer > 0).then(norm),
            attn: Attention {
                Wqkv: linear(width, 3 * width, config.attention_bias),
                Wo: linear(width, width, config.attention_bias),
                heads: config.num_attention_heads,
            },
            mlp_norm: norm(),
            mlp: Mlp {
                Wi: linear(width, 2 * config.intermediate_size, config.mlp_bias),
                Wo: linear(config.intermediate_size, width, config.mlp_bias),
                act: config.hidden_activation,
            },
        };
        let table = Embedding::new(config.vocab_size, width, config.initializer_range, device);
        Self {
            embeddings: Embeddings {
                tok_embeddings: table.with_padding(config.pad_token_id),
                norm: norm(),
            },
            layers: (0..config.num_hidden_layers).map(block).collect(),
            final_norm: norm(),
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
        let config = ModernBertConfig::from_json(json);
        let config = config.map_err(|error| Error::invalid(&path, error.to_string()))?;
        check_folder(config.dims(), &[], folder)?;
        let keys = Keys {
            body_prefixes: &["model."],
            ignored: |name| {
                let own = ["embeddings.", "layers.", "final_norm."];
                !own.iter().any(|start| name.starts_with(start))
            },
            old_names: &[],
            bare: true,
        };
        load_pretrained(Self::from_config(&config, device), folder, weights, &keys)
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
        &self.embeddings.tok_embeddings
    }

    /// The configuration.
    pub fn config(&self) -> &ModernBertConfig {
        &self.config
    }
}

impl Backbone for ModernBert {
    fn dims(&self) -> Dims {
        self.config.dims()
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embeddings.tok_embeddings.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let place = pass.place_of_encoder(&embeddings, self.config.max_position_embeddings);
        let head_dim = self.config.hidden_size / self.config.num_attention_heads;
        let [global, local] = [true, false].map(|global| {
            let theta = self.config.rope_theta(global);
            let angles =
                Rope::new(head_dim, theta, &RopeScaling::Default).angles(place.positions.clone());
            let mask = match global {
                true => place.bidirectional_mask(),
                false => place.bidirectional_mask_within(self.config.local_attention / 2 + 1),
            };
            (angles, mask)
        });
        let kinds: Vec<bool> = (0..self.layers.len())
            .map(|layer| self.config.is_global(layer))
            .collect();
        run_blocks(
            &self.layers,
            self.embeddings.norm.forward(embeddings),
            pass,
            move |number, layer, x, _| {
                let (angles, mask) = if kinds[number] { &global } else { &local };
                layer.forward(x, angles, mask)
            },
            |x| self.final_norm.forward(x),
        )
    }
}

impl Norm {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.weight.val();
        let bias = Tensor::zeros(weight.dims(), &weight.device());
        ft_kernels::layer_norm(x, weight, bias, self.epsilon)
    }
}

impl Block {
    fn forward(&self, x: Tensor<3>, angles: &Angles, mask: &AttentionMask) -> Tensor<3> {
        let normed = match &self.attn_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let x = x + self.attn.forward(normed, angles, mask);
        x.clone() + self.mlp.forward(self.mlp_norm.forward(x))
    }
}

impl Attention {
    fn forward(&self, x: Tensor<3>, angles: &Angles, mask: &AttentionMask) -> Tensor<3> {
        let width = x.dims()[2];
        let qkv = self.Wqkv.forward(x);
        let part = |i: usize| split_heads(qkv.clone().narrow(2, i * width, width), self.heads);
        let q = angles.rotate(part(0));
        let k = angles.rotate(part(1));
        let scale = ((width / self.heads) as f64).powf(-0.5);
        self.Wo
            .forward(attend([q, k, part(2)], scale, mask, 0, None))
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let both = self.Wi.forward(x);
        let inner = both.dims()[2] / 2;
        let activated = both.clone().narrow(2, 0, inner);
        let gate = both.narrow(2, inner, inner);
        self.Wo.forward(Input::gated_mlp(activated, gate, self.act))
    }
}
