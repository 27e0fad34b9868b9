//! The settings that decoders with rotary positions, grouped heads and a gated feed-forward layer have in common.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{RopeScaling, fill_absent, multiple, positive};
use crate::Dims;

/// Settings of a decoder, in the keys of `config.json`. What a family takes where a key is absent is in the file of its
/// configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct DecoderConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    /// `hidden_size / num_attention_heads` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Biases on query, key, value and output projections.
    pub attention_bias: bool,
}

/// Adds what a family takes where a key is absent or null.
pub(super) fn complete(config: &mut Map<String, Value>, defaults: Value) {
    let heads = config.get("num_attention_heads").cloned();
    let common = json!({"initializer_range": 0.02, "num_key_value_heads": heads});
    for defaults in [defaults, common] {
        let keys = defaults.as_object().into_iter().flat_map(Map::keys);
        let null: Vec<_> = keys
            .filter(|key| config.get(*key).is_some_and(Value::is_null))
            .cloned()
            .collect();
        null.iter().for_each(|key| drop(config.remove(key)));
        fill_absent(config, defaults);
    }
}

impl DecoderConfig {
    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    pub(super) fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.rope_scaling.longest(self.max_position_embeddings),
        }
    }

    pub(super) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_width()),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = self.num_attention_heads;
        multiple(
            &mut mistakes,
            ("num_attention_heads", heads),
            ("num_key_value_heads", self.num_key_value_heads),
        );
        if self.head_dim.is_none() && heads > 0 && !self.hidden_size.is_multiple_of(heads) {
            mistakes.push(format!(
                "hidden_size {} must be a multiple of num_attention_heads {heads} unless head_dim \
                 is given",
                self.hidden_size
            ));
        }
        mistakes.extend(self.rope_scaling.mistakes(self.head_width()));
        mistakes
    }
}

/// What is wrong with `layer_types`, one for each layer: `full_attention` or `sliding_attention`.
pub(super) fn layer_type_mistakes(types: &[String], layers: usize) -> Vec<String> {
    let mut mistakes = Vec::new();
    if types.len() != layers {
        mistakes.push(format!(
            "layer_types names {} layers, num_hidden_layers is {layers}",
            types.len(),
        ));
    }
    let known = |kind: &&String| ["full_attention", "sliding_attention"].contains(&kind.as_str());
    for other in types.iter().filter(|kind| !known(kind)) {
        mistakes.push(format!("layer type {other:?} is not supported"));
    }
    mistakes
}
