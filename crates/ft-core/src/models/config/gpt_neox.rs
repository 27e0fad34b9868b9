//! Configuration of GPT-NeoX and Pythia.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{Family, RopeScaling, multiple, object, parse, positive, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of GPT-NeoX, in the keys of `config.json`.
///
/// The dropouts of pretraining (`hidden_dropout`, `attention_dropout`) are kept in the file but not applied in
/// fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct GptNeoxConfig {
    model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
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
    #[serde(rename = "rotary_emb_base")]
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// The part of each head that rotates.
    #[serde(rename = "rotary_pct")]
    pub partial_rotary_factor: f64,
    /// Whether attention and feed-forward layer read the same input, or one follows the other.
    #[serde(default = "yes")]
    pub use_parallel_residual: bool,
    /// Biases on the projections of attention.
    #[serde(default = "yes")]
    pub attention_bias: bool,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn hidden_act() -> Activation {
    Activation::Gelu
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

fn yes() -> bool {
    true
}

impl GptNeoxConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["gpt_neox"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        // The two names of a setting: of this family, and of all others.
        const NAMES: [(&str, &str); 2] = [
            ("rotary_emb_base", "rope_theta"),
            ("rotary_pct", "partial_rotary_factor"),
        ];
        let mut map = object(json)?;
        let rename = |map: &mut Map<String, Value>, from: &str, to: &str| {
            // Beside the scaling transformers reads the names of this family only.
            map.remove(to);
            if let Some(value) = map.remove(from) {
                map.insert(to.into(), value);
            }
        };
        for (own, common) in NAMES {
            rename(&mut map, own, common);
        }
        rope_parameters::take_partial(&mut map, 10_000.0, 0.25)?;
        for (own, common) in NAMES {
            rename(&mut map, common, own);
        }
        parse(Value::Object(map))
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

impl Family for GptNeoxConfig {
    fn model_type(&self) -> &'static str {
        "gpt_neox"
    }

    fn architecture(&self) -> &'static str {
        "GPTNeoXForCausalLM"
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

    fn body_prefix(&self) -> &'static str {
        "gpt_neox."
    }

    fn embedding(&self) -> &'static str {
        "gpt_neox.embed_in"
    }

    fn output_layer(&self) -> &'static str {
        "embed_out"
    }

    fn padding(&self) -> Option<usize> {
        None
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
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = ("num_attention_heads", self.num_attention_heads);
        multiple(&mut mistakes, ("hidden_size", self.hidden_size), heads);
        mistakes.extend(self.rope_scaling.mistakes(self.rotated()));
        mistakes
    }
}
