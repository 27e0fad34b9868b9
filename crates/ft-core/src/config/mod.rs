//! `config.json`, in the keys of Hugging Face, both as transformers 4 and as transformers 5 writes
//! them.

mod bert;
mod gpt2;
mod llama;
mod rope_scaling;

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

pub use bert::{BertConfig, BertKind};
pub use gpt2::Gpt2Config;
pub use llama::{LlamaConfig, LlamaKind};
pub use rope_scaling::RopeScaling;

/// `model_type`s that can be loaded.
pub const MODEL_TYPES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "gpt2"];

/// The configuration of any model of this crate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// Llama, Mistral, Qwen2 and Qwen3.
    Llama(LlamaConfig),
    /// GPT-2.
    Gpt2(Gpt2Config),
}

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not JSON, names a `model_type` that is not one of
    /// [`MODEL_TYPES`], or has settings that are missing, contradictory or not supported; all of
    /// them are listed at once.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&path, format!("not valid JSON: {e}")))?;
        Self::from_json(json).map_err(|reason| Error::invalid(&path, reason))
    }

    /// Reads a parsed `config.json`; the error says all that is wrong.
    pub fn from_json(json: Value) -> Result<Self, String> {
        let Some(model_type) = json.get("model_type").and_then(Value::as_str) else {
            return Err(format!(
                "no model_type; it must be one of {}",
                MODEL_TYPES.join(", ")
            ));
        };
        let config = match model_type {
            "llama" | "mistral" | "qwen2" | "qwen3" => Self::Llama(LlamaConfig::from_json(json)?),
            "gpt2" => Self::Gpt2(serde_json::from_value(json).map_err(|e| e.to_string())?),
            other => {
                return Err(format!(
                    "model_type {other:?} is not supported; it must be one of {}",
                    MODEL_TYPES.join(", ")
                ));
            }
        };
        config.validate()?;
        Ok(config)
    }

    /// The configuration as transformers reads it.
    ///
    /// Rotary settings are written as `rope_theta` and `rope_scaling`, which every version reads.
    pub fn to_json(&self) -> Value {
        let (json, architecture) = match self {
            Self::Llama(config) => (
                serde_json::to_value(config),
                config.model_type.architecture(),
            ),
            Self::Gpt2(config) => (serde_json::to_value(config), "GPT2LMHeadModel"),
        };
        let mut json = json.unwrap_or_default();
        // What is absent would be read as a default of the reader's own.
        if let Self::Llama(config) = self {
            json["num_key_value_heads"] = config.kv_heads().into();
            if config.model_type == LlamaKind::Mistral {
                json["sliding_window"] = config.sliding_window.into();
            }
        }
        // Readers that know no type `default` take its absence for it.
        if json
            .pointer("/rope_scaling/rope_type")
            .is_some_and(|kind| kind == "default")
        {
            json["rope_scaling"] = Value::Null;
        }
        if json.get("architectures").is_none() {
            json["architectures"] = Value::from(vec![architecture]);
        }
        json
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// All mistakes, separated by semicolons.
    pub fn validate(&self) -> Result<(), String> {
        let mistakes = match self {
            Self::Llama(config) => config.mistakes(),
            Self::Gpt2(config) => config.mistakes(),
        };
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(mistakes.join("; "))
        }
    }

    /// Number of decoder layers.
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Llama(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
        }
    }

    /// Number of token ids that the embedding holds.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
        }
    }

    /// Width of the hidden states.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.hidden_size,
            Self::Gpt2(config) => config.n_embd,
        }
    }

    /// The longest sequence the model was made for, in tokens.
    pub fn max_position_embeddings(&self) -> usize {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
        }
    }

    /// The `model_type` of `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Llama(config) => config.model_type.name(),
            Self::Gpt2(_) => "gpt2",
        }
    }

    /// Whether the embedding serves as head too.
    pub fn tie_word_embeddings(&self) -> bool {
        match self {
            Self::Llama(config) => config.tie_word_embeddings,
            Self::Gpt2(config) => config.tie_word_embeddings,
        }
    }

    /// Refuses sequences that are longer than the model allows.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with both lengths.
    pub fn check_length(&self, tokens: usize) -> Result<()> {
        let most = self.max_position_embeddings();
        if tokens > most {
            return Err(Error::Settings(format!(
                "{tokens} tokens are more than the model allows: max_position_embeddings is {most}; \
                 use shorter sequences"
            )));
        }
        Ok(())
    }
}

/// Says that `name` must be at least one.
fn positive(mistakes: &mut Vec<String>, name: &str, value: usize) {
    if value == 0 {
        mistakes.push(format!("{name} must be at least 1"));
    }
}
