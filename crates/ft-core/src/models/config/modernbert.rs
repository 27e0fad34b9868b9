//! Configuration of ModernBERT.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::encoder;
use crate::{Dims, Result};

/// Settings of ModernBERT, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct ModernBertConfig {
    pub model_type: ModernBertType,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    #[serde(default = "hidden_activation")]
    pub hidden_activation: Activation,
    pub max_position_embeddings: usize,
    #[serde(default = "norm_eps")]
    pub norm_eps: f64,
    #[serde(default)]
    pub norm_bias: bool,
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    #[serde(default = "global_attn_every_n_layers")]
    pub global_attn_every_n_layers: usize,
    /// `full_attention` or `sliding_attention` for each block; without it every so many blocks see all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// A token of the other blocks sees half as many on either side.
    #[serde(default = "local_attention")]
    pub local_attention: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_rope_theta: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rope_theta: Option<f64>,
    /// The same as transformers 5 writes it, by type of block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<Value>,
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
pub enum ModernBertType {
    ModernBert,
}

fn hidden_activation() -> Activation {
    Activation::Gelu
}

fn norm_eps() -> f64 {
    1e-5
}

fn global_attn_every_n_layers() -> usize {
    3
}

fn local_attention() -> usize {
    128
}

fn initializer_range() -> f64 {
    0.02
}

impl ModernBertConfig {
    /// The `model_type`s of this configuration.
    pub const MODEL_TYPES: &[&str] = &["modernbert"];

    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`](crate::Error::Settings) with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        encoder::read(json, "ModernBERT", Self::validate)
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
            (
                "global_attn_every_n_layers",
                self.global_attn_every_n_layers,
            ),
        ];
        let types = self.layer_types.as_deref().unwrap_or(&[]);
        let unknown = types
            .iter()
            .find(|kind| !matches!(kind.as_str(), "full_attention" | "sliding_attention"));
        let scaled = self.rope_parameters.as_ref().is_some_and(|parameters| {
            let kinds = ["full_attention", "sliding_attention"].map(|kind| parameters.get(kind));
            let named = kinds
                .into_iter()
                .flatten()
                .filter_map(|of| of.get("rope_type"));
            named.into_iter().any(|kind| kind != "default")
        });
        let more = [
            self.norm_bias
                .then(|| "norm_bias true is not supported".to_string()),
            unknown.map(|kind| format!("layer_types has {kind:?}, which is not supported")),
            (self.layer_types.is_some() && types.len() != self.num_hidden_layers).then(|| {
                format!(
                    "layer_types has {} entries for {} layers",
                    types.len(),
                    self.num_hidden_layers
                )
            }),
            scaled.then(|| {
                "rope_parameters with another rope_type than default are not supported".to_string()
            }),
        ];
        encoder::check(&sizes, (self.hidden_size, self.num_attention_heads), more)
    }

    /// Whether a block sees all tokens.
    pub(crate) fn is_global(&self, layer: usize) -> bool {
        match &self.layer_types {
            Some(types) => types[layer] == "full_attention",
            None => layer.is_multiple_of(self.global_attn_every_n_layers),
        }
    }

    /// The base of the rotation's frequencies.
    pub(crate) fn rope_theta(&self, global: bool) -> f64 {
        let (kind, own, usual) = match global {
            true => ("full_attention", self.global_rope_theta, 160_000.0),
            false => ("sliding_attention", self.local_rope_theta, 10_000.0),
        };
        let parameters = self.rope_parameters.as_ref();
        let newer = parameters.and_then(|all| all.get(kind)?.get("rope_theta")?.as_f64());
        newer.or(own).unwrap_or(usual)
    }

    /// The measures of the encoder.
    pub fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.max_position_embeddings,
        }
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        encoder::written(self, "ModernBertModel")
    }
}
