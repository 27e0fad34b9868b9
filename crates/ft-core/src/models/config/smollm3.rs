//! Configuration of SmolLM3.

use ft_kernels::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::decoder::{DecoderConfig, complete, layer_type_mistakes};
use super::{Family, fill_absent, object, parse, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of SmolLM3, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct SmolLm3Config {
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default)]
    pub mlp_bias: bool,
    /// 0 for every layer without rotary positions, 1 for the others; every fourth when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_rope_layers: Option<Vec<u8>>,
    #[serde(default = "no_rope_layer_interval")]
    pub no_rope_layer_interval: usize,
    #[serde(default)]
    pub use_sliding_window: bool,
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// `full_attention` or `sliding_attention` for every layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn no_rope_layer_interval() -> usize {
    4
}

impl SmolLm3Config {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["smollm3"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        let defaults = json!({
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": true,
            "attention_bias": false,
            "max_position_embeddings": 32_768,
        });
        fill_absent(
            &mut map,
            json!({"pad_token_id": 128_004, "num_key_value_heads": 4}),
        );
        complete(&mut map, defaults);
        rope_parameters::take(&mut map, 2e6)?;
        parse(Value::Object(map))
    }

    /// Whether the heads of a layer are rotated.
    pub fn rotates(&self, layer: usize) -> bool {
        match &self.no_rope_layers {
            Some(layers) => layers[layer] != 0,
            None => !(layer + 1).is_multiple_of(self.no_rope_layer_interval),
        }
    }

    /// How many tokens back a layer sees, itself included; `None` for all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let slides = match &self.layer_types {
            Some(types) => types[layer] == "sliding_attention",
            None => !self.rotates(layer),
        };
        (self.sliding_window).filter(|_| self.use_sliding_window && slides)
    }
}

impl Family for SmolLm3Config {
    fn model_type(&self) -> &'static str {
        "smollm3"
    }

    fn architecture(&self) -> &'static str {
        "SmolLM3ForCausalLM"
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
        let layers = self.decoder.num_hidden_layers;
        let mut mistakes = self.decoder.mistakes();
        if let Some(types) = &self.layer_types {
            mistakes.extend(layer_type_mistakes(types, layers));
        }
        if let Some(list) = &self.no_rope_layers
            && list.len() != layers
        {
            mistakes.push(format!(
                "no_rope_layers has {} entries, num_hidden_layers is {layers}",
                list.len()
            ));
        }
        if self.no_rope_layer_interval == 0 {
            mistakes.push("no_rope_layer_interval must be at least 1".into());
        }
        if self.sliding_window == Some(0) {
            mistakes.push("sliding_window must be at least 1, or null".into());
        }
        mistakes
    }

    fn json(&self) -> Value {
        let mut json = to_json(self);
        json["model_type"] = "smollm3".into();
        json
    }
}
