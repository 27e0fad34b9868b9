//! Configuration of OLMo 2.

use ft_kernels::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::decoder::{DecoderConfig, complete};
use super::{Family, fill_absent, object, parse, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of OLMo 2, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct Olmo2Config {
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    #[serde(default)]
    pub hidden_act: Activation,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Olmo2Config {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["olmo2"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        let defaults = json!({
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": false,
            "attention_bias": false,
            "max_position_embeddings": 2048,
        });
        complete(&mut map, defaults);
        fill_absent(&mut map, json!({"pad_token_id": 1}));
        rope_parameters::take(&mut map, 1e4)?;
        parse(Value::Object(map))
    }
}

impl Family for Olmo2Config {
    fn model_type(&self) -> &'static str {
        "olmo2"
    }

    fn architecture(&self) -> &'static str {
        "Olmo2ForCausalLM"
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
        self.decoder.mistakes()
    }

    fn json(&self) -> Value {
        let mut json = to_json(self);
        json["model_type"] = "olmo2".into();
        json
    }
}
