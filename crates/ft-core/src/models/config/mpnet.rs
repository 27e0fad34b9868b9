//! Configuration of MPNet.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::encoder;
use crate::{Dims, Result};

/// Settings of MPNet, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct MpNetConfig {
    pub model_type: MpNetType,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    #[serde(default = "hidden_act")]
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Only 32 is supported: transformers computes with no other number.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The only `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum MpNetType {
    MpNet,
}

fn hidden_act() -> Activation {
    Activation::Gelu
}

fn layer_norm_eps() -> f64 {
    1e-12
}

fn buckets() -> usize {
    32
}

fn initializer_range() -> f64 {
    0.02
}

impl MpNetConfig {
    /// The `model_type`s of this configuration.
    pub const MODEL_TYPES: &[&str] = &["mpnet"];

    /// The row of the first token's position: the padding's id is always 1.
    pub(crate) const FIRST_POSITION: usize = 2;

    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`](crate::Error::Settings) with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        encoder::read(json, "MPNet", Self::validate)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// All mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        let buckets = self.relative_attention_num_buckets;
        let more = [
            (buckets != 32).then(|| {
                format!("relative_attention_num_buckets {buckets} is not supported, only 32")
            }),
            (self.max_position_embeddings <= Self::FIRST_POSITION)
                .then(|| "max_position_embeddings leaves no room for a token".to_string()),
        ];
        encoder::check(&sizes, (self.hidden_size, self.num_attention_heads), more)
    }

    /// The measures of the encoder.
    pub fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.max_position_embeddings - Self::FIRST_POSITION,
        }
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        encoder::written(self, "MPNetModel")
    }
}
