//! DeBERTa-v2 and v3 (He et al., 2021, arXiv:2006.03654 and 2111.09543): attention to content and to distances apart.
//!
//! `s_ij = (qᵢ·kⱼ + qᵢ·PK_t + kⱼ·PQ_t) / √(d·n)`, where `t` is the bucket of the distance `i − j`, `PK` and `PQ` are the table of
//! distances through the projections of keys and queries, and `n` counts the terms (equation 4 of the first paper).
//!
//! Attention holds all scores of a row: rows of a text each, not of several. Gradient checkpointing has no effect.

#![allow(non_snake_case)] // Fields spell the checkpoint's names: `LayerNorm`.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData, activation::softmax};
use ft_kernels::Activation;

use crate::files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
use crate::files::sizes::check_folder;
use crate::layers::attention::{merge_heads, split_heads};
use crate::layers::embedding::Embedding;
use crate::layers::layer_norm::LayerNorm;
use crate::layers::linear::{Layout, Linear};
use crate::models::config::{DebertaConfig, read_config};
use crate::{Backbone, Dims, Error, Parts, Pass, Result, Weights};

/// The encoder of DeBERTa-v2 and v3.
#[derive(Module, Parts, Debug)]
#[parts(output = "", encoder)]
pub struct Deberta {
    embeddings: Embeddings,
    encoder: Encoder,
    #[module(skip)]
    config: DebertaConfig,
}

#[derive(Module, Parts, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Option<Embedding>,
    token_type_embeddings: Option<Embedding>,
    LayerNorm: LayerNorm,
}

#[derive(Module, Parts, Debug)]
struct Encoder {
    layer: Vec<Block>,
    /// A vector a bucket of distances, `[2·span, width]`.
    rel_embeddings: Embedding,
    /// The norm of that table.
    LayerNorm: Option<LayerNorm>,
}

#[derive(Module, Parts, Debug)]
struct Block {
    attention: Attention,
    intermediate: Intermediate,
    output: Output,
}

#[derive(Module, Parts, Debug)]
struct Attention {
    self_: SelfAttention,
    output: Output,
}

#[derive(Module, Parts, Debug)]
struct SelfAttention {
    query_proj: Linear,
    key_proj: Linear,
    value_proj: Linear,
    /// Absent where distances go through the projections of content.
    pos_key_proj: Option<Linear>,
    pos_query_proj: Option<Linear>,
    heads: usize,
    to_positions: bool,
    from_positions: bool,
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

/// Distances of the tokens of a row.
struct Distances {
    /// The vectors of the buckets that occur, `[1, buckets, width]`.
    table: Tensor<3>,
    /// For each query and key the place of the bucket in the table, `[1, 1, seq, seq]`, and the same with keys first.
    of_key: Tensor<4, Int>,
    of_query: Tensor<4, Int>,
}

impl Deberta {
    /// An encoder with random weights, drawn when first read.
    pub fn from_config(config: &DebertaConfig, device: &Device) -> Self {
        let (width, std) = (config.hidden_size, config.initializer_range);
        let embedding = |rows| Embedding::new(rows, width, std, device);
        let norm = || LayerNorm::new(width, config.layer_norm_eps, device);
        let normed = config.norm_rel_ebd.as_deref() == Some("layer_norm");
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(config.vocab_size).with_padding(Some(config.padding())),
                position_embeddings: (config.position_biased_input)
                    .then(|| embedding(config.max_position_embeddings)),
                token_type_embeddings: (config.type_vocab_size > 0)
                    .then(|| embedding(config.type_vocab_size)),
                LayerNorm: norm(),
            },
            encoder: Encoder {
                layer: (0..config.num_hidden_layers)
                    .map(|_| Block::new(config, device))
                    .collect(),
                rel_embeddings: embedding(2 * config.span()),
                LayerNorm: normed.then(norm),
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
        let config = DebertaConfig::from_json(json);
        let config = config.map_err(|error| Error::invalid(&path, error.to_string()))?;
        check_folder(config.dims(), &[], folder)?;
        let keys = Keys {
            body_prefixes: &["deberta."],
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
    pub fn config(&self) -> &DebertaConfig {
        &self.config
    }

    fn distances(&self, seq: usize, device: &Device) -> Distances {
        let span = self.config.span() as i64;
        let buckets = self.config.buckets().map(|buckets| buckets as i64);
        let most = self.config.max_distance() as i64;
        let row = |ahead: i64| {
            let bucket = buckets.map_or(ahead, |buckets| bucket(ahead, buckets, most));
            (bucket + span).clamp(0, 2 * span - 1)
        };
        // Only the rows of distances that occur are projected.
        let (first, last) = (row(1 - seq as i64), row(seq as i64 - 1));
        let rows: Vec<i64> = (first..=last).collect();
        let shape = [1, rows.len()];
        let rows = Tensor::<2, Int>::from_data(TensorData::new(rows, shape), device);
        let table = self.encoder.rel_embeddings.forward(rows);
        let table = match &self.encoder.LayerNorm {
            Some(norm) => norm.forward(table),
            None => table,
        };
        let places = |towards: i64| {
            let places = (0..seq as i64)
                .flat_map(|i| (0..seq as i64).map(move |j| row(towards * (i - j)) - first));
            let places = TensorData::new(places.collect::<Vec<i64>>(), [1, 1, seq, seq]);
            Tensor::<4, Int>::from_data(places, device)
        };
        Distances {
            table,
            of_key: places(1),
            of_query: places(-1),
        }
    }
}

/// The bucket of a distance: near distances are their own, further ones share buckets that grow by a constant factor.
fn bucket(distance: i64, buckets: i64, most: i64) -> i64 {
    let middle = buckets / 2;
    let far = distance.abs();
    if far <= middle {
        return distance;
    }
    let middle = middle as f32;
    let steps = (far as f32 / middle).ln() / ((most - 1) as f32 / middle).ln() * (middle - 1.0);
    distance.signum() * (steps.ceil() + middle) as i64
}

impl Backbone for Deberta {
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
        let tables = &self.embeddings;
        let mut x = embeddings;
        if let Some(table) = &tables.position_embeddings {
            x = x + table.forward(place.positions);
        }
        if let Some(table) = &tables.token_type_embeddings {
            let types = (pass.token_type_ids.take())
                .unwrap_or_else(|| Tensor::zeros([batch, seq], &device));
            x = x + table.forward(types);
        }
        let mut x = tables.LayerNorm.forward(x);
        let distances = self.distances(seq, &device);
        let count = pass.layers.unwrap_or(self.encoder.layer.len());
        for layer in &self.encoder.layer[..count] {
            if let Some(states) = &mut pass.states {
                states.push(x.clone());
            }
            let own = &layer.attention;
            let attended = own.self_.forward(x.clone(), &distances, forbidden.as_ref());
            x = own.output.forward(attended, x);
            let inner = layer.intermediate.dense.forward(x.clone());
            x = layer
                .output
                .forward(layer.intermediate.act.forward(inner), x);
        }
        if let Some(states) = pass.states {
            states.push(x.clone());
        }
        x
    }
}

impl Block {
    fn new(config: &DebertaConfig, device: &Device) -> Self {
        let (width, inner) = (config.hidden_size, config.intermediate_size);
        let std = config.initializer_range;
        let linear = |from, to| Linear::new(from, to, true, Layout::OutIn, std, device);
        let output = |from| Output {
            dense: linear(from, width),
            LayerNorm: LayerNorm::new(width, config.layer_norm_eps, device),
        };
        let (to_positions, from_positions) = config.attends_to_positions();
        let own = !config.share_att_key;
        Self {
            attention: Attention {
                self_: SelfAttention {
                    query_proj: linear(width, width),
                    key_proj: linear(width, width),
                    value_proj: linear(width, width),
                    pos_key_proj: (own && to_positions).then(|| linear(width, width)),
                    pos_query_proj: (own && from_positions).then(|| linear(width, width)),
                    heads: config.num_attention_heads,
                    to_positions,
                    from_positions,
                },
                output: output(width),
            },
            intermediate: Intermediate {
                dense: linear(width, inner),
                act: config.hidden_act,
            },
            output: output(inner),
        }
    }
}

impl Output {
    fn forward(&self, x: Tensor<3>, residual: Tensor<3>) -> Tensor<3> {
        self.LayerNorm.forward(self.dense.forward(x) + residual)
    }
}

impl SelfAttention {
    fn forward(
        &self,
        x: Tensor<3>,
        distances: &Distances,
        forbidden: Option<&Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let [batch, seq, width] = x.dims();
        let terms = 1 + usize::from(self.to_positions) + usize::from(self.from_positions);
        let scale = ((width / self.heads * terms) as f64).powf(-0.5);
        let q = split_heads(self.query_proj.forward(x.clone()), self.heads);
        let k = split_heads(self.key_proj.forward(x.clone()), self.heads);
        let v = split_heads(self.value_proj.forward(x), self.heads);
        let shape = [batch, self.heads, seq, seq];
        // `[1, heads, buckets, head_dim]`, transposed and for every row.
        let projected = |layer: &Linear| {
            let table = split_heads(layer.forward(distances.table.clone()), self.heads);
            let [_, heads, rows, head_dim] = table.dims();
            table.transpose().expand([batch, heads, head_dim, rows])
        };
        let mut scores = q.clone().matmul(k.clone().transpose());
        if self.to_positions {
            let keys = projected(self.pos_key_proj.as_ref().unwrap_or(&self.key_proj));
            let of_key = distances.of_key.clone().expand(shape);
            scores = scores + q.matmul(keys).gather(3, of_key);
        }
        if self.from_positions {
            let queries = projected(self.pos_query_proj.as_ref().unwrap_or(&self.query_proj));
            let of_query = distances.of_query.clone().expand(shape);
            scores = scores + k.matmul(queries).gather(3, of_query).transpose();
        }
        let scores = scores * scale;
        let scores = match forbidden {
            None => scores,
            Some(forbidden) => scores.mask_fill(forbidden.clone().expand(shape), f32::NEG_INFINITY),
        };
        merge_heads(softmax(scores, 3).matmul(v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of transformers' `make_log_bucket_position` for 256 buckets and 512 positions.
    #[test]
    fn near_distances_are_their_own_buckets_and_far_ones_share() {
        let found = [0, 5, -128, 129, 200, -300, 511].map(|distance| bucket(distance, 256, 512));
        assert_eq!(found, [0, 5, -128, 129, 169, -207, 255]);
    }
}
