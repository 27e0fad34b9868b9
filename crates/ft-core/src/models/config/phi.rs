//! Configuration of Phi-1, Phi-1.5 and Phi-2.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{Family, RopeScaling, multiple, object, parse, positive, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of Phi, in the keys of `config.json`.
///
/// The dropouts of pretraining (`resid_pdrop`, `embd_pdrop`, `attention_dropout`) are kept in the file but not applied
/// in fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct PhiConfig {
    model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// As many as query heads when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    #[serde(default = "hidden_act")]
    pub hidden_act: Activation,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// The part of each head that rotates.
    pub partial_rotary_factor: f64,
    /// Whether query and key heads have layer norms.
    #[serde(default)]
    pub qk_layernorm: bool,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn hidden_act() -> Activation {
    Activation::GeluTanh
}

fn max_position_embeddings() -> usize {
    2048
}

fn initializer_range() -> f64 {
    0.02
}

fn layer_norm_eps() -> f64 {
    1e-5
}

impl PhiConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["phi"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        rope_parameters::take_partial(&mut map, 10_000.0, 0.5)?;
        parse(Value::Object(map))
    }

    /// Number of key and value heads.
    pub fn kv_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// How many features of a head rotate.
    pub fn rotated(&self) -> usize {
        rope_parameters::rotated(self.head_width(), self.partial_rotary_factor)
    }
}

impl Family for PhiConfig {
    fn model_type(&self) -> &'static str {
        "phi"
    }

    fn architecture(&self) -> &'static str {
        "PhiForCausalLM"
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
        to_json(self)
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
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = ("num_attention_heads", self.num_attention_heads);
        multiple(&mut mistakes, ("hidden_size", self.hidden_size), heads);
        multiple(
            &mut mistakes,
            heads,
            ("num_key_value_heads", self.kv_heads()),
        );
        mistakes.extend(self.rope_scaling.mistakes(self.rotated()));
        if self.tie_word_embeddings {
            mistakes.push(
                "tie_word_embeddings true is not supported for phi, whose head has a bias: set it to false and store \
                 the embedding as lm_head.weight too"
                    .into(),
            );
        }
        mistakes
    }
}
