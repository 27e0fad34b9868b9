//! Configuration of DistilBERT.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::encoder;
use crate::{Dims, Result};

/// Settings of DistilBERT, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct DistilBertConfig {
    pub model_type: DistilBertType,
    pub vocab_size: usize,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub hidden_dim: usize,
    #[serde(default = "activation")]
    pub activation: Activation,
    pub max_position_embeddings: usize,
    #[serde(default)]
    pub pad_token_id: Option<usize>,
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
pub enum DistilBertType {
    DistilBert,
}

fn activation() -> Activation {
    Activation::Gelu
}

fn initializer_range() -> f64 {
    0.02
}

impl DistilBertConfig {
    /// The `model_type`s of this configuration.
    pub const MODEL_TYPES: &[&str] = &["distilbert"];

    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`](crate::Error::Settings) with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        encoder::read(json, "DistilBERT", Self::validate)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// All mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        encoder::check(&sizes, (self.dim, self.n_heads), [])
    }

    /// The measures of the encoder.
    pub fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            num_layers: self.n_layers,
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        encoder::written(self, "DistilBertModel")
    }
}
