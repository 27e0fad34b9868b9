//! Configuration of Gemma 1, 2 and 3 (text).

use ft_kernels::{Activation, LogitOptions, Scores};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::decoder::{DecoderConfig, complete, layer_type_mistakes};
use super::{Family, fill_absent, object, parse, rope_parameters, to_json};
use crate::{Dims, Error, Result};

/// Which Gemma a configuration describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GemmaKind {
    /// Gemma 1: a norm before attention and one before the feed-forward layer.
    #[serde(rename = "gemma")]
    Gemma,
    /// Gemma 2: norms before and after, capped scores and logits, a window in every other layer.
    #[serde(rename = "gemma2")]
    Gemma2,
    /// Gemma 3: norms on query and key heads, five layers with a window and rotary frequencies of their own to each one
    /// without.
    #[serde(rename = "gemma3_text")]
    Gemma3,
}

/// Settings of a Gemma, in the keys of `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are those of transformers, and documented there
pub struct GemmaConfig {
    pub model_type: GemmaKind,
    #[serde(flatten)]
    pub decoder: DecoderConfig,
    /// Of Gemma 1; `gelu` stands for the approximation by tanh, as in transformers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<Activation>,
    /// Of Gemma 2 and 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_activation: Option<Activation>,
    /// Scores are divided by the root of it; by the root of the head's width in Gemma 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_pre_attn_scalar: Option<usize>,
    #[serde(default)]
    pub attn_logit_softcapping: Option<f64>,
    #[serde(default)]
    pub final_logit_softcapping: Option<f64>,
    /// In tokens, of the layers with a window.
    #[serde(default)]
    pub sliding_window: Option<usize>,
    /// `full_attention` or `sliding_attention` for every layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_types: Option<Vec<String>>,
    /// Base of the rotary frequencies in Gemma 3's layers with a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_local_base_freq: Option<f64>,
    #[serde(default)]
    pub use_bidirectional_attention: Option<bool>,
    /// Everything else in the file, kept for writing it again.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl GemmaConfig {
    pub(crate) const MODEL_TYPES: &'static [&'static str] = &["gemma", "gemma2", "gemma3_text"];

    /// Reads a parsed `config.json` and checks it.
    pub(crate) fn read(json: Value) -> Result<Self> {
        let mut map = object(json)?;
        let kind = map.get("model_type").and_then(Value::as_str);
        let heads = match kind {
            Some("gemma2" | "gemma3_text") => 4,
            _ => 16,
        };
        let (context, theta, own) = match kind {
            Some("gemma2") => (
                8192,
                1e4,
                json!({
                    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
                    "sliding_window": 4096, "query_pre_attn_scalar": 256,
                }),
            ),
            Some("gemma3_text") => (
                131_072,
                1e6,
                json!({"sliding_window": 4096, "query_pre_attn_scalar": 256, "rope_local_base_freq": 1e4}),
            ),
            _ => (8192, 1e4, json!({})),
        };
        split_frequencies(&mut map)?;
        // A cap, a window or a padding of null is none.
        fill_absent(&mut map, own);
        fill_absent(
            &mut map,
            json!({"pad_token_id": 0, "num_key_value_heads": heads}),
        );
        let defaults = json!({
            "head_dim": 256,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": true,
            "attention_bias": false,
            "max_position_embeddings": context,
        });
        complete(&mut map, defaults);
        rope_parameters::take(&mut map, theta)?;
        parse(Value::Object(map))
    }

    /// The activation of the feed-forward layer.
    pub fn activation(&self) -> Activation {
        match (self.model_type, self.hidden_act, self.hidden_activation) {
            (GemmaKind::Gemma, Some(Activation::Gelu), _) => Activation::GeluTanh,
            (GemmaKind::Gemma, Some(act), _) => act,
            (GemmaKind::Gemma2 | GemmaKind::Gemma3, _, Some(act)) => act,
            _ => Activation::GeluTanh,
        }
    }

    /// How scores are made of products.
    pub fn scores(&self) -> Scores {
        let width = self.decoder.head_width() as f64;
        Scores {
            scale: self
                .query_pre_attn_scalar
                .map_or(width, |scalar| scalar as f64)
                .powf(-0.5),
            softcap: self.attn_logit_softcapping,
        }
    }

    /// What the model does to its logits.
    pub fn logits(&self) -> LogitOptions {
        LogitOptions {
            softcap: self.final_logit_softcapping,
            ..LogitOptions::default()
        }
    }

    /// How many tokens back a layer sees, itself included; `None` for all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        let slides = match (&self.layer_types, self.model_type) {
            (Some(types), _) => types[layer] == "sliding_attention",
            (None, GemmaKind::Gemma) => false,
            (None, GemmaKind::Gemma2) => layer.is_multiple_of(2),
            (None, GemmaKind::Gemma3) => {
                let pattern = self.extra.get("sliding_window_pattern");
                let pattern = pattern.and_then(Value::as_u64).unwrap_or(6).max(1);
                !(layer as u64 + 1).is_multiple_of(pattern)
            }
        };
        self.sliding_window.filter(|_| slides)
    }
}

/// Transformers 5 writes the rotary settings of Gemma 3 for each type of layer, transformers 4 those of layers with a
/// window as `rope_local_base_freq`.
fn split_frequencies(map: &mut Map<String, Value>) -> Result<()> {
    let Some(full) = map
        .get("rope_parameters")
        .and_then(|all| all.get("full_attention"))
    else {
        return Ok(());
    };
    let (full, sliding) = (
        full.clone(),
        map["rope_parameters"]["sliding_attention"].clone(),
    );
    if !matches!(sliding["rope_type"].as_str(), None | Some("default")) {
        return Err(Error::Settings(format!(
            "rope_type {} of layers with a window is not supported, only default",
            sliding["rope_type"]
        )));
    }
    map.insert("rope_parameters".into(), full);
    if let Some(theta) = sliding.get("rope_theta") {
        map.insert("rope_local_base_freq".into(), theta.clone());
    }
    Ok(())
}

impl Family for GemmaConfig {
    fn model_type(&self) -> &'static str {
        match self.model_type {
            GemmaKind::Gemma => "gemma",
            GemmaKind::Gemma2 => "gemma2",
            GemmaKind::Gemma3 => "gemma3_text",
        }
    }

    fn architecture(&self) -> &'static str {
        match self.model_type {
            GemmaKind::Gemma => "GemmaForCausalLM",
            GemmaKind::Gemma2 => "Gemma2ForCausalLM",
            GemmaKind::Gemma3 => "Gemma3ForCausalLM",
        }
    }

    fn classifier_architecture(&self) -> String {
        match self.model_type {
            GemmaKind::Gemma => "GemmaForSequenceClassification".into(),
            GemmaKind::Gemma2 => "Gemma2ForSequenceClassification".into(),
            GemmaKind::Gemma3 => "Gemma3TextForSequenceClassification".into(),
        }
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
        if let Some(types) = &self.layer_types {
            mistakes.extend(layer_type_mistakes(types, self.decoder.num_hidden_layers));
        }
        if self.query_pre_attn_scalar == Some(0) {
            mistakes.push("query_pre_attn_scalar must be at least 1".into());
        }
        if self.sliding_window == Some(0) {
            mistakes.push("sliding_window must be at least 1, or null".into());
        }
        if self.use_bidirectional_attention == Some(true) {
            mistakes.push("use_bidirectional_attention is not supported".into());
        }
        if self.model_type == GemmaKind::Gemma3 && self.attn_logit_softcapping.is_some() {
            mistakes.push(
                "attn_logit_softcapping is not supported for gemma3_text: transformers ignores it, so \
                 set it to null"
                    .into(),
            );
        }
        for (name, value) in [
            ("attn_logit_softcapping", self.attn_logit_softcapping),
            ("final_logit_softcapping", self.final_logit_softcapping),
            ("rope_local_base_freq", self.rope_local_base_freq),
        ] {
            if value.is_some_and(|value| !(value > 0.0 && value.is_finite())) {
                mistakes.push(format!("{name} must be above 0"));
            }
        }
        mistakes
    }

    fn json(&self) -> Value {
        to_json(self)
    }
}
