//! Configuration of BERT and RoBERTa.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{positive, read_config};
use crate::{Dims, Error, Result};

/// Which of the relatives; they differ in how positions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BertKind {
    /// BERT: positions from 0.
    #[serde(rename = "bert")]
    Bert,
    /// RoBERTa: positions from one after the padding's id.
    #[serde(rename = "roberta")]
    Roberta,
    /// XLM-RoBERTa, likewise.
    #[serde(rename = "xlm-roberta")]
    XlmRoberta,
}

/// Settings of BERT and RoBERTa, in the keys of `config.json`.
///
/// The dropouts of pretraining are kept in the file but not applied in fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct BertConfig {
    pub model_type: BertKind,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    #[serde(default = "hidden_act")]
    pub hidden_act: Activation,
    pub max_position_embeddings: usize,
    #[serde(default = "type_vocab_size")]
    pub type_vocab_size: usize,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub pad_token_id: Option<usize>,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    /// Only `absolute` is supported.
    #[serde(default)]
    pub position_embedding_type: Option<String>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn hidden_act() -> Activation {
    Activation::Gelu
}

fn type_vocab_size() -> usize {
    2
}

fn layer_norm_eps() -> f64 {
    1e-12
}

fn initializer_range() -> f64 {
    0.02
}

impl BertConfig {
    /// The `model_type`s of this configuration.
    pub const MODEL_TYPES: &[&str] = &["bert", "roberta", "xlm-roberta"];

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not JSON, is of another model, or has settings that are missing, contradictory
    /// or not supported.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        Self::from_json(json).map_err(|error| Error::invalid(&path, error.to_string()))
    }

    /// Reads a parsed `config.json`.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        let config: Self = serde_json::from_value(json).map_err(|e| {
            Error::Settings(format!(
                "not the configuration of an encoder (bert, roberta, xlm-roberta): {e}"
            ))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// All mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = Vec::new();
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            positive(&mut mistakes, name, value);
        }
        if self.num_attention_heads > 0
            && !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            mistakes.push(format!(
                "hidden_size {} must be a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if let Some(kind) = &self.position_embedding_type
            && kind != "absolute"
        {
            mistakes.push(format!(
                "position_embedding_type {kind:?} is not supported, only absolute"
            ));
        }
        if self.max_length() == 0 {
            mistakes.push("max_position_embeddings leaves no room for a token".to_string());
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(mistakes.join("; ")))
        }
    }

    /// The measures of the encoder.
    pub fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.max_length(),
        }
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        let mut json = super::to_json(self);
        let model = match self.model_type {
            BertKind::Bert => "BertModel",
            BertKind::Roberta => "RobertaModel",
            BertKind::XlmRoberta => "XLMRobertaModel",
        };
        json["architectures"] = Value::from(vec![model]);
        json
    }

    /// The id of the padding, whose embedding does not train.
    pub(crate) fn padding(&self) -> usize {
        self.pad_token_id.unwrap_or(match self.model_type {
            BertKind::Bert => 0,
            BertKind::Roberta | BertKind::XlmRoberta => 1,
        })
    }

    /// The row of the first token's position.
    pub(crate) fn first_position(&self) -> usize {
        match self.model_type {
            BertKind::Bert => 0,
            BertKind::Roberta | BertKind::XlmRoberta => self.padding() + 1,
        }
    }

    /// The longest sequence, in tokens.
    pub fn max_length(&self) -> usize {
        self.max_position_embeddings
            .saturating_sub(self.first_position())
    }
}
