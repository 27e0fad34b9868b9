//! Configuration of Llama and of its relatives Mistral, Qwen2 and Qwen3.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{Family, RopeScaling, multiple, object, parse, positive, rope_parameters, to_json};
use crate::{Dims, Result};

/// Which member of the family a configuration describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LlamaKind {
    /// Llama 1 to 3.x, SmolLM, SmolLM2 and whatever else calls itself `llama`.
    Llama,
    /// Mistral: no biases, sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: norms on query and key heads.
    Qwen3,
}

impl LlamaKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    pub(super) fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }
}

/// Settings of a Llama-like decoder, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct LlamaConfig {
    pub model_type: LlamaKind,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// As many as query heads when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_key_value_heads: Option<usize>,
    /// `hidden_size / num_attention_heads` when absent, 128 for Qwen3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    #[serde(default = "rope_theta")]
    pub rope_theta: f64,
    #[serde(default)]
    pub rope_scaling: RopeScaling,
    /// Biases on query, key, value and output projections (Llama, Qwen3).
    #[serde(default)]
    pub attention_bias: bool,
    #[serde(default)]
    pub mlp_bias: bool,
    /// In tokens; see [`window`](Self::window).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Qwen: whether `sliding_window` applies at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_sliding_window: Option<bool>,
    /// Qwen: layers from this one on use the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_window_layers: Option<usize>,
    /// `full_attention` or `sliding_attention` for every layer; derived when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn max_position_embeddings() -> usize {
    2048
}

fn initializer_range() -> f64 {
    0.02
}

fn rms_norm_eps() -> f64 {
    1e-6
}

fn rope_theta() -> f64 {
    10_000.0
}

impl LlamaConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["llama", "mistral", "qwen2", "qwen3"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        rope_parameters::take(&mut map, rope_theta())?;
        // The window of Mistral, Qwen2 and Qwen3 is 4096 when the key is absent, and none when it is null.
        let slides = match map.get("model_type").and_then(Value::as_str) {
            Some("mistral") => true,
            Some("qwen2" | "qwen3") => map.get("use_sliding_window") == Some(&Value::Bool(true)),
            _ => false,
        };
        if slides {
            map.entry("sliding_window").or_insert(Value::from(4096));
        }
        parse(Value::Object(map))
    }

    /// Number of key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.head_dim.unwrap_or(match self.model_type {
            LlamaKind::Qwen3 => 128,
            _ => self.hidden_size / self.num_attention_heads.max(1),
        })
    }

    /// Whether query, key and value projections have biases.
    pub fn qkv_bias(&self) -> bool {
        match self.model_type {
            LlamaKind::Llama | LlamaKind::Qwen3 => self.attention_bias,
            LlamaKind::Mistral => false,
            LlamaKind::Qwen2 => true,
        }
    }

    /// Whether the output projection of attention has a bias.
    pub fn output_bias(&self) -> bool {
        match self.model_type {
            LlamaKind::Llama | LlamaKind::Qwen3 => self.attention_bias,
            LlamaKind::Mistral | LlamaKind::Qwen2 => false,
        }
    }

    /// How many tokens back a layer sees, itself included; `None` for all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        match self.model_type {
            LlamaKind::Llama => None,
            LlamaKind::Mistral => self.sliding_window,
            LlamaKind::Qwen2 | LlamaKind::Qwen3 => {
                if self.use_sliding_window != Some(true) {
                    return None;
                }
                let slides = match &self.layer_types {
                    Some(types) => types[layer] == "sliding_attention",
                    None => layer >= self.max_window_layers.unwrap_or(28),
                };
                self.sliding_window.filter(|_| slides)
            }
        }
    }
}

impl Family for LlamaConfig {
    fn model_type(&self) -> &'static str {
        self.model_type.name()
    }

    fn architecture(&self) -> &'static str {
        self.model_type.architecture()
    }

    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.rope_scaling.longest(self.max_position_embeddings),
        }
    }

    fn set_vocab_size(&mut self, vocab_size: usize) {
        self.vocab_size = vocab_size;
    }

    fn set_tie_word_embeddings(&mut self, tied: bool) {
        self.tie_word_embeddings = tied;
    }

    fn tie_word_embeddings(&self) -> bool {
        self.tie_word_embeddings
    }

    fn json(&self) -> Value {
        let mut json = to_json(self);
        // What is absent would be read as a default of the reader's own.
        json["num_key_value_heads"] = self.kv_heads().into();
        if self.model_type == LlamaKind::Mistral || self.use_sliding_window == Some(true) {
            json["sliding_window"] = self.sliding_window.into();
        }
        json
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.kv_heads()),
            ("head_dim", self.head_width()),
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = self.num_attention_heads;
        multiple(
            &mut mistakes,
            ("num_attention_heads", heads),
            ("num_key_value_heads", self.kv_heads()),
        );
        if self.head_dim.is_none() && heads > 0 && !self.hidden_size.is_multiple_of(heads) {
            mistakes.push(format!(
                "hidden_size {} must be a multiple of num_attention_heads {heads} unless head_dim \
                 is given",
                self.hidden_size
            ));
        }
        mistakes.extend(self.rope_scaling.mistakes(self.head_width()));
        if let Some(types) = &self.layer_types {
            if types.len() != self.num_hidden_layers {
                mistakes.push(format!(
                    "layer_types names {} layers, num_hidden_layers is {}",
                    types.len(),
                    self.num_hidden_layers
                ));
            }
            for other in types
                .iter()
                .filter(|t| !matches!(t.as_str(), "full_attention" | "sliding_attention"))
            {
                mistakes.push(format!("layer type {other:?} is not supported"));
            }
        }
        mistakes
    }
}
