//! Configuration of Granite.

use ft_kernels::{Activation, LogitOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::decoder::{DecoderConfig, complete};
use super::{Family, object, parse, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of Granite, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct GraniteConfig {
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default)]
    pub mlp_bias: bool,
    /// Factor of the embeddings.
    #[serde(default = "one")]
    pub embedding_multiplier: f64,
    /// Factor of what a layer adds to its input.
    #[serde(default = "one")]
    pub residual_multiplier: f64,
    /// Factor of the products of queries and keys.
    #[serde(default = "one")]
    pub attention_multiplier: f64,
    /// Logits are divided by it.
    #[serde(default = "one")]
    pub logits_scaling: f64,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn one() -> f64 {
    1.0
}

impl GraniteConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["granite"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        let defaults = json!({
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": false,
            "attention_bias": false,
            "max_position_embeddings": 2048,
        });
        complete(&mut map, defaults);
        rope_parameters::take(&mut map, 1e4)?;
        parse(Value::Object(map))
    }

    /// What the model does to its logits.
    pub fn logits(&self) -> LogitOptions {
        LogitOptions {
            scale: 1.0 / self.logits_scaling,
            softcap: None,
        }
    }
}

impl Family for GraniteConfig {
    fn model_type(&self) -> &'static str {
        "granite"
    }

    fn architecture(&self) -> &'static str {
        "GraniteForCausalLM"
    }

    fn dims(&self) -> Dims {
        self.decoder.dims()
    }

    fn set_vocab_size(&mut self, vocab_size: usize) {
        self.decoder.vocab_size = vocab_size;
    }

    fn set_tie_word_embeddings(&mut self, tied: bool) {
        self.decoder.tie_word_embeddings = tied;
    }

    fn tie_word_embeddings(&self) -> bool {
        self.decoder.tie_word_embeddings
    }

    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = self.decoder.mistakes();
        for (name, value) in [
            ("embedding_multiplier", self.embedding_multiplier),
            ("residual_multiplier", self.residual_multiplier),
            ("attention_multiplier", self.attention_multiplier),
            ("logits_scaling", self.logits_scaling),
        ] {
            if !value.is_finite() || value == 0.0 {
                mistakes.push(format!("{name} must be a number other than 0, not {value}"));
            }
        }
        mistakes
    }

    fn json(&self) -> Value {
        let mut json = to_json(self);
        json["model_type"] = "granite".into();
        json
    }
}
