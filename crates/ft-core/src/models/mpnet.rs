//! MPNet (Song et al., 2020, arXiv:2004.09297): BERT with a bias of scores by relative position, the same in all blocks.
//!
//! The bias goes into every score, so attention holds all scores of a row: rows of a text each, not of several. Gradient
//! checkpointing has no effect.

#![allow(non_snake_case)] // Fields spell the checkpoint's names: `LayerNorm`.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::softmax};
use ft_kernels::Activation;

use crate::files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
use crate::files::sizes::check_folder;
use crate::layers::attention::{merge_heads, split_heads};
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::models::config::{MpNetConfig, read_config};
use crate::{Backbone, Dims, Error, Parts, Pass, Result, Weights};

/// The encoder of MPNet.
#[derive(Module, Parts, Debug)]
#[parts(output = "", encoder)]
pub struct MpNet {
    embeddings: Embeddings,
    encoder: Encoder,
    #[module(skip)]
    config: MpNetConfig,
}

#[derive(Module, Parts, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    LayerNorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Encoder {
    layer: Vec<Block>,
    /// `[buckets, heads]`.
    relative_attention_bias: Embedding,
}

#[derive(Module, Parts, Debug)]
struct Block {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    attn: SelfAttention,
    LayerNorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
}

#[derive(Module, Parts, Debug)]
struct Intermediate {
    dense: Linear,
    #[module(skip)]
    act: Activation,
}

#[derive(Module, Parts, Debug)]
struct Output {
    dense: Linear,
    LayerNorm: LayerNorm,
}

impl MpNet {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &MpNetConfig, device: &Device) -> Self {
        let (width, std) = (config.hidden_size, config.initializer_range);
        let embedding = |rows, width| Embedding::new(rows, width, std, device);
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(config.vocab_size, width).with_padding(Some(1)),
                position_embeddings: embedding(config.max_position_embeddings, width)
                    .with_padding(Some(1)),
                LayerNorm: LayerNorm::new(width, config.layer_norm_eps, device),
            },
            encoder: Encoder {
                layer: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                relative_attention_bias: embedding(
                    config.relative_attention_num_buckets,
                    config.num_attention_heads,
                ),
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
        let config = MpNetConfig::from_json(json);
        let config = config.map_err(|error| Error::invalid(&path, error.to_string()))?;
        check_folder(config.dims(), &[], folder)?;
        let keys = Keys {
            body_prefixes: &["mpnet."],
            ignored: |name| {
                name == "embeddings.position_ids"
                    || !(name.starts_with("embeddings.") || name.starts_with("encoder."))
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
        &self.embeddings.word_embeddings
    }

    /// The configuration.
    pub fn config(&self) -> &MpNetConfig {
        &self.config
    }

    /// The bias of scores, `[1, heads, seq, seq]`.
    fn bias(&self, seq: usize, device: &Device) -> Tensor<4> {
        let buckets: Vec<i64> = (0..seq)
            .flat_map(|i| (0..seq).map(move |j| bucket(j as i64 - i as i64)))
            .collect();
        let buckets = Tensor::<2, Int>::from_data(TensorData::new(buckets, [1, seq * seq]), device);
        let bias = self.encoder.relative_attention_bias.forward(buckets);
        let heads = bias.dims()[2];
        bias.reshape([1, seq, seq, heads]).permute([0, 3, 1, 2])
    }
}

/// The row of the bias for a key so many tokens after the query: a row a distance below 8, then rows for distances that
/// grow by a constant factor, up to 128.
fn bucket(ahead: i64) -> i64 {
    let distance = ahead.abs();
    let row = match distance {
        0..8 => distance,
        _ => {
            let steps = (distance as f32 / 8.0).ln() / 16f32.ln() * 8.0;
            (8 + steps as i64).min(15)
        }
    };
    row + if ahead > 0 { 16 } else { 0 }
}

impl Backbone for MpNet {
    fn dims(&self) -> Dims {
        self.config.dims()
    }

    fn attends_by_tile(&self) -> bool {
        false
    }

    fn embed(&self, input_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embeddings.word_embeddings.forward(input_ids)
    }

    fn forward(&self, embeddings: Tensor<3>, mut pass: Pass<'_>) -> Tensor<3> {
        let [batch, seq, _] = embeddings.dims();
        let device = embeddings.device();
        let place = pass.place_of_encoder(&embeddings, self.dims().max_position_embeddings);
        let forbidden = place.segments.map(|segments| {
            let shape = [batch, 1, seq, seq];
            let of_key = segments.clone().reshape([batch, 1, 1, seq]).expand(shape);
            of_key.not_equal(segments.reshape([batch, 1, seq, 1]).expand(shape))
        });
        let positions = place.positions + MpNetConfig::FIRST_POSITION as i64;
        let tables = &self.embeddings;
        let x = embeddings + tables.position_embeddings.forward(positions);
        let mut x = tables.LayerNorm.forward(x);
        let bias = self.bias(seq, &device);
        let count = pass.layers.unwrap_or(self.encoder.layer.len());
        for layer in &self.encoder.layer[..count] {
            if let Some(states) = &mut pass.states {
                states.push(x.clone());
            }
            let bias = bias.clone();
            let attended = layer.attention.attn.forward(x.clone(), |scores| {
                let shape = scores.dims();
                let scores = scores + bias.expand(shape);
                match &forbidden {
                    None => scores,
                    Some(forbidden) => {
                        scores.mask_fill(forbidden.clone().expand(shape), f32::NEG_INFINITY)
                    }
                }
            });
            x = layer.attention.LayerNorm.forward(attended + x);
            let inner = layer.intermediate.dense.forward(x.clone());
            let inner = layer.intermediate.act.forward(inner);
            x = layer
                .output
                .LayerNorm
                .forward(layer.output.dense.forward(inner) + x);
        }
        if let Some(states) = pass.states {
            states.push(x.clone());
        }
        x
    }
}

impl Block {
    fn new(config: &MpNetConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let std = config.initializer_range;
        let linear = |from, to| Linear::new(from, to, true, Layout::OutIn, std, device);
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        Self {
            attention: Attention {
                attn: SelfAttention {
                    q: linear(width, width),
                    k: linear(width, width),
                    v: linear(width, width),
                    o: linear(width, width),
                    heads: config.num_attention_heads,
                },
                LayerNorm: norm(),
            },
            intermediate: Intermediate {
                dense: linear(width, inner),
                act: config.hidden_act,
            },
            output: Output {
                dense: linear(inner, width),
                LayerNorm: norm(),
            },
        }
    }
}

impl SelfAttention {
    /// `change` gets the scaled scores, `[batch, heads, seq, seq]`.
    fn forward(&self, x: Tensor<3>, change: impl FnOnce(Tensor<4>) -> Tensor<4>) -> Tensor<3> {
        let head_dim = x.dims()[2] / self.heads;
        let q = split_heads(self.q.forward(x.clone()), self.heads);
        let k = split_heads(self.k.forward(x.clone()), self.heads);
        let v = split_heads(self.v.forward(x), self.heads);
        let scores = q.matmul(k.transpose()) * (head_dim as f64).powf(-0.5);
        let weights = softmax(change(scores), 3);
        self.o.forward(merge_heads(weights.matmul(v)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_keys_have_rows_of_their_own_and_far_ones_share() {
        let rows = [0, 1, -1, 7, -7, 8, -8, 15, -16, 64, -127, 500].map(bucket);
        // 8 + ⌊8·ln(15/8)/ln 16⌋ = 9; 16: 10; 64: 14; beyond 128: 15
        assert_eq!(rows, [0, 17, 1, 23, 7, 24, 8, 25, 10, 30, 15, 31]);
    }
}
