//! Configuration of Falcon.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{Family, RopeScaling, multiple, object, parse, positive, rope_parameters, to_json};
use crate::{Dims, Result};

/// Settings of Falcon, in the keys of `config.json`.
///
/// The dropouts of pretraining (`hidden_dropout`, `attention_dropout`) are kept in the file but not applied in
/// fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct FalconConfig {
    model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    /// With `new_decoder_architecture`; as many as query heads when absent.
    #[serde(default)]
    pub num_kv_heads: Option<usize>,
    /// Width of the feed-forward layer; `4·hidden_size` when absent.
    #[serde(default)]
    pub ffn_hidden_size: Option<usize>,
    #[serde(default = "activation")]
    pub activation: Activation,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Biases on scores in place of rotation, as in Falcon-RW.
    #[serde(default)]
    pub alibi: bool,
    /// Biases on all projections but the head.
    #[serde(default)]
    pub bias: bool,
    /// One key and value head for all query heads; without effect with `new_decoder_architecture`.
    #[serde(default = "yes")]
    pub multi_query: bool,
    /// Whether attention and feed-forward layer read the same input, or one follows the other.
    #[serde(default = "yes")]
    pub parallel_attn: bool,
    /// The blocks of Falcon-40B.
    #[serde(default)]
    pub new_decoder_architecture: bool,
    /// With `new_decoder_architecture`: one layer norm for attention and feed-forward layer, or two, which is the
    /// default.
    #[serde(default)]
    pub num_ln_in_parallel_attn: Option<usize>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn activation() -> Activation {
    Activation::Gelu
}

fn max_position_embeddings() -> usize {
    2048
}

fn initializer_range() -> f64 {
    0.02
}

fn layer_norm_epsilon() -> f64 {
    1e-5
}

fn yes() -> bool {
    true
}

impl FalconConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["falcon"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        rope_parameters::take(&mut map, 10_000.0)?;
        parse(Value::Object(map))
    }

    /// Number of key and value heads.
    pub fn kv_heads(&self) -> usize {
        match (self.new_decoder_architecture, self.multi_query) {
            (false, true) => 1,
            _ => self.num_kv_heads.unwrap_or(self.num_attention_heads),
        }
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.hidden_size / self.num_attention_heads.max(1)
    }

    /// Width of the feed-forward layer.
    pub fn inner(&self) -> usize {
        self.ffn_hidden_size.unwrap_or(4 * self.hidden_size)
    }

    /// Whether attention and feed-forward layer of a block have layer norms of their own, side by side.
    pub fn two_norms(&self) -> bool {
        self.new_decoder_architecture && self.num_ln_in_parallel_attn != Some(1)
    }
}

impl Family for FalconConfig {
    fn model_type(&self) -> &'static str {
        "falcon"
    }

    fn architecture(&self) -> &'static str {
        "FalconForCausalLM"
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
        "transformer."
    }

    fn embedding(&self) -> &'static str {
        "transformer.word_embeddings"
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
            ("ffn_hidden_size", self.inner()),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_kv_heads", self.kv_heads()),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = ("num_attention_heads", self.num_attention_heads);
        multiple(&mut mistakes, ("hidden_size", self.hidden_size), heads);
        multiple(&mut mistakes, heads, ("num_kv_heads", self.kv_heads()));
        mistakes.extend(self.rope_scaling.mistakes(self.head_width()));
        let (new, kv_heads) = (self.new_decoder_architecture, self.kv_heads());
        if !new && !self.multi_query && kv_heads != heads.1 {
            mistakes.push(format!(
                "num_kv_heads {kv_heads} needs new_decoder_architecture: without it and without multi_query each of \
                 the {} heads has keys of its own",
                heads.1
            ));
        }
        if self.alibi && kv_heads != heads.1 {
            mistakes.push(
                "alibi is supported where each head has keys of its own: multi_query and new_decoder_architecture \
                 must be false"
                    .into(),
            );
        }
        if new && !self.parallel_attn {
            mistakes.push("new_decoder_architecture needs parallel_attn".into());
        }
        match self.num_ln_in_parallel_attn {
            None | Some(1) => {}
            Some(2) if new => {}
            Some(2) => {
                mistakes.push("num_ln_in_parallel_attn 2 needs new_decoder_architecture".into())
            }
            Some(other) => mistakes.push(format!(
                "num_ln_in_parallel_attn must be 1 or 2, not {other}"
            )),
        }
        mistakes
    }
}
