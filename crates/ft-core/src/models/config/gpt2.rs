//! Configuration of GPT-2.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use ft_kernels::Activation;

use super::{Family, multiple, parse, positive, to_json};
use crate::{Dims, Result};

/// Settings of GPT-2, in the keys of `config.json`.
///
/// The dropouts that GPT-2 was pretrained with (`resid_pdrop`, `embd_pdrop`, `attn_pdrop`) are kept
/// in the file but not applied in fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct Gpt2Config {
    #[serde(default = "model_type")]
    model_type: String,
    pub vocab_size: usize,
    pub n_positions: usize,
    pub n_embd: usize,
    pub n_layer: usize,
    pub n_head: usize,
    /// Width of the feed-forward layer; `4·n_embd` when absent.
    #[serde(default)]
    pub n_inner: Option<usize>,
    #[serde(default = "activation_function")]
    pub activation_function: Activation,
    #[serde(default = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "yes")]
    pub tie_word_embeddings: bool,
    #[serde(default = "yes")]
    pub scale_attn_weights: bool,
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn model_type() -> String {
    "gpt2".into()
}

fn activation_function() -> Activation {
    Activation::GeluTanh
}

fn layer_norm_epsilon() -> f64 {
    1e-5
}

fn initializer_range() -> f64 {
    0.02
}

fn yes() -> bool {
    true
}

impl Gpt2Config {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["gpt2"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        parse(json)
    }

    /// Width of the feed-forward layer.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}

impl Family for Gpt2Config {
    fn model_type(&self) -> &'static str {
        "gpt2"
    }

    fn architecture(&self) -> &'static str {
        "GPT2LMHeadModel"
    }

    fn dims(&self) -> Dims {
        Dims {
            vocab_size: self.vocab_size,
            hidden_size: self.n_embd,
            num_layers: self.n_layer,
            max_position_embeddings: self.n_positions,
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
        "transformer.wte"
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
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.inner()),
        ] {
            positive(&mut mistakes, name, value);
        }
        let heads = ("n_head", self.n_head);
        multiple(&mut mistakes, ("n_embd", self.n_embd), heads);
        mistakes
    }
}
