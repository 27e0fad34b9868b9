//! Configuration of Phi-3, Phi-3.5 and Phi-4-mini.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use ft_kernels::Activation;

use super::{
    Family, RopeScaling, fill_absent, multiple, object, parse, positive, rope_parameters, to_json,
};
use crate::{Dims, Result};

/// Settings of Phi-3, in the keys of `config.json`.
///
/// The dropouts of pretraining (`resid_pdrop`, `embd_pdrop`, `attention_dropout`) are kept in the file but not applied
/// in fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct Phi3Config {
    model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// As many as query heads when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    #[serde(default)]
    pub hidden_act: Activation,
    #[serde(default = "context")]
    pub max_position_embeddings: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "rms_norm_eps")]
    pub rms_norm_eps: f64,
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// None, or LongRoPE.
    pub rope_scaling: RopeScaling,
    /// The part of each head that rotates.
    pub partial_rotary_factor: f64,
    /// How many tokens back a token sees, itself included; `None` for all.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

const ORIGINAL: &str = "original_max_position_embeddings";

fn context() -> usize {
    4096
}

fn initializer_range() -> f64 {
    0.02
}

fn rms_norm_eps() -> f64 {
    1e-5
}

impl Phi3Config {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["phi3"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        // What early files call `su` or `yarn` is LongRoPE.
        for scaling in ["rope_scaling", "rope_parameters"] {
            for key in ["type", "rope_type"] {
                if let Some(kind) = map
                    .get_mut(scaling)
                    .and_then(|scaling| scaling.get_mut(key))
                    && (kind == "su" || kind == "yarn")
                {
                    *kind = "longrope".into();
                }
            }
        }
        fill_absent(
            &mut map,
            json!({ORIGINAL: context(), "pad_token_id": 32_000}),
        );
        rope_parameters::take_partial(&mut map, 10_000.0, 1.0)?;
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

impl Family for Phi3Config {
    fn model_type(&self) -> &'static str {
        "phi3"
    }

    fn architecture(&self) -> &'static str {
        "Phi3ForCausalLM"
    }

    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_layers: self.num_hidden_layers,
            max_position_embeddings: self.max_position_embeddings,
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

    /// The context of pretraining lies beside the scaling, and the scaling has three keys unless more are needed:
    /// transformers 4 takes no others.
    fn json(&self) -> Value {
        let mut json = to_json(self);
        if let RopeScaling::LongRope {
            factor,
            original_max_position_embeddings: original,
            short_factor,
            long_factor,
            attention_factor,
        } = &self.rope_scaling
        {
            let mut scaling = json!({
                "type": "longrope", "short_factor": short_factor, "long_factor": long_factor,
            });
            if *factor != self.max_position_embeddings as f64 / *original as f64 {
                scaling["factor"] = (*factor).into();
            }
            if let Some(given) = attention_factor {
                scaling["attention_factor"] = (*given).into();
            }
            json["rope_scaling"] = scaling;
            json[ORIGINAL] = (*original).into();
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
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
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
        if !matches!(
            self.rope_scaling,
            RopeScaling::Default | RopeScaling::LongRope { .. }
        ) {
            mistakes.push("the rope_scaling of phi3 must be of type longrope, or null".into());
        }
        mistakes
    }
}
