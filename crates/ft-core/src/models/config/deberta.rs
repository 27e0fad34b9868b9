//! Configuration of DeBERTa-v2 and v3.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::encoder;
use crate::{Dims, Result};

/// Settings of DeBERTa-v2 and v3, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct DebertaConfig {
    pub model_type: DebertaType,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    #[serde(default = "hidden_act")]
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    #[serde(default)]
    pub type_vocab_size: usize,
    #[serde(default)]
    pub pad_token_id: Option<usize>,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// Only true is supported.
    #[serde(default)]
    pub relative_attention: bool,
    #[serde(default = "none")]
    pub max_relative_positions: i64,
    #[serde(default = "none")]
    pub position_buckets: i64,
    /// `c2p` and `p2c`, as a list or with `|` between them.
    #[serde(default)]
    pub pos_att_type: Value,
    #[serde(default = "yes")]
    pub position_biased_input: bool,
    #[serde(default)]
    pub share_att_key: bool,
    /// `layer_norm`, or `none`.
    #[serde(default)]
    pub norm_rel_ebd: Option<String>,
    /// Only the width of the model is supported.
    #[serde(default)]
    pub embedding_size: Option<usize>,
    /// Only 0 is supported.
    #[serde(default)]
    pub conv_kernel_size: usize,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The only `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DebertaType {
    #[serde(rename = "deberta-v2")]
    DebertaV2,
}

fn hidden_act() -> Activation {
    Activation::Gelu
}

fn layer_norm_eps() -> f64 {
    1e-7
}

fn initializer_range() -> f64 {
    0.02
}

fn none() -> i64 {
    -1
}

fn yes() -> bool {
    true
}

impl DebertaConfig {
    /// The `model_type`s of this configuration.
    pub const MODEL_TYPES: &[&str] = &["deberta-v2"];

    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`](crate::Error::Settings) with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        encoder::read(json, "DeBERTa-v2", Self::validate)
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
        let other_width = self.embedding_size.filter(|size| *size != self.hidden_size);
        let unknown = self
            .kinds()
            .into_iter()
            .find(|kind| kind != "c2p" && kind != "p2c");
        let norm = self.norm_rel_ebd.as_deref();
        let more = [
            (!self.relative_attention).then(|| "relative_attention must be true".to_string()),
            (self.conv_kernel_size > 0).then(|| {
                "conv_kernel_size is not supported: convolutions are in a few models of version 2 only".to_string()
            }),
            other_width.map(|size| format!("embedding_size {size} is not supported, only hidden_size")),
            unknown.map(|kind| format!("pos_att_type {kind:?} is not supported: c2p and p2c are")),
            norm.filter(|norm| !matches!(*norm, "layer_norm" | "none"))
                .map(|norm| format!("norm_rel_ebd {norm:?} is not supported: layer_norm and none are")),
        ];
        encoder::check(&sizes, (self.hidden_size, self.num_attention_heads), more)
    }

    /// The kinds of attention to positions.
    fn kinds(&self) -> Vec<String> {
        match &self.pos_att_type {
            Value::String(names) => {
                let names = names.split('|').map(|name| name.trim().to_lowercase());
                names.filter(|name| !name.is_empty()).collect()
            }
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_string).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether content attends to positions (`c2p`), and positions to content (`p2c`).
    pub(crate) fn attends_to_positions(&self) -> (bool, bool) {
        let kinds = self.kinds();
        let has = |name: &str| kinds.iter().any(|kind| kind == name);
        (has("c2p"), has("p2c"))
    }

    /// The largest distance that is distinguished from larger ones.
    pub(crate) fn max_distance(&self) -> usize {
        match usize::try_from(self.max_relative_positions) {
            Ok(distance) if distance > 0 => distance,
            _ => self.max_position_embeddings,
        }
    }

    /// The number of buckets of distances; none if every distance is its own.
    pub(crate) fn buckets(&self) -> Option<usize> {
        usize::try_from(self.position_buckets)
            .ok()
            .filter(|buckets| *buckets > 0)
    }

    /// Half of the rows of the table of distances.
    pub(crate) fn span(&self) -> usize {
        self.buckets().unwrap_or(self.max_distance())
    }

    /// The id of the padding.
    pub(crate) fn padding(&self) -> usize {
        self.pad_token_id.unwrap_or(0)
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
        encoder::written(self, "DebertaV2Model")
    }
}
