//! How to decode: the settings of `generation_config.json`, with transformers' names.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::gguf::{GgufModel, is_gguf};
use crate::{Error, Result, Tokenizer};

/// Settings of [`generate`](crate::generate()).
///
/// A temperature of zero is greedy decoding, whatever the other sampling settings say.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// Divides the logits; 0 takes the most probable token always.
    pub temperature: f32,
    /// Keep the `k` most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens that together have this probability.
    pub top_p: f32,
    /// Keep tokens at least this probable relative to the most probable one.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen so far; 1 does nothing.
    pub repetition_penalty: f32,
    /// Seed of the sampling; the same seed gives the same text.
    pub seed: u64,
    /// Tokens that end a sequence. They are part of the output.
    pub eos_token_ids: Vec<u32>,
    /// Text that ends a sequence as soon as it appears in the output; it is cut off the text.
    pub stop_strings: Vec<String>,
    /// The id that pads shorter prompts of a batch; never seen by the model's other tokens.
    pub pad_token_id: u32,
}

/// Greedy decoding of 128 tokens that nothing ends: no end tokens, no stop strings. For a model's answers take
/// [`from_pretrained`](GenerationConfig::from_pretrained), which knows what ends them.
impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            eos_token_ids: Vec::new(),
            stop_strings: Vec::new(),
            pad_token_id: 0,
        }
    }
}

/// Copies `generation_config.json` from one model folder to another, if there is one: what ends an
/// answer belongs to a model as much as its weights.
///
/// # Errors
///
/// If the file cannot be read or written.
pub fn copy_generation_config(from: &Path, to: &Path) -> Result<()> {
    let path = from.join(FILE);
    if !path.is_file() {
        return Ok(());
    }
    let bytes = std::fs::read(&path).map_err(Error::read(&path))?;
    crate::files::safetensors_folder::write_file(&to.join(FILE), &bytes)
}

const FILE: &str = "generation_config.json";

/// Settings of transformers that act on greedy decoding and have no counterpart here, with a value that does nothing.
const NOT_SUPPORTED: [(&str, u32); 8] = [
    ("no_repeat_ngram_size", 0),
    ("min_length", 0),
    ("min_new_tokens", 0),
    ("bad_words_ids", 0),
    ("suppress_tokens", 0),
    ("begin_suppress_tokens", 0),
    ("forced_bos_token_id", 0),
    ("num_beams", 1),
];

/// One value or several, as the file may say either.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// A setting, unless it is null.
fn set<'a>(file: &'a Value, key: &str) -> Option<&'a Value> {
    file.get(key).filter(|value| !value.is_null())
}

impl GenerationConfig {
    /// Greedy decoding as the model's files want it, and as transformers does it with `do_sample=False`.
    ///
    /// Taken over are the end tokens of `generation_config.json`, of `config.json` and of the tokenizer, the padding token,
    /// and of `generation_config.json` what acts on greedy decoding: `repetition_penalty` and `stop_strings`. Callers who
    /// sample keep both.
    ///
    /// Not taken over are `do_sample`, `temperature`, `top_k`, `top_p` and `min_p`: a caller's temperature should mean the
    /// same for every model. Lengths (`max_new_tokens`, `max_length`) are the caller's too. Settings that only transformers
    /// has (`no_repeat_ngram_size`, `suppress_tokens` and others) are reported as a warning of `tracing` if they would act on
    /// greedy decoding.
    ///
    /// # Errors
    ///
    /// If one of the files exists but cannot be read, or a setting that is taken over makes no sense.
    pub fn from_pretrained(folder: &Path, tokenizer: Option<&Tokenizer>) -> Result<Self> {
        let mut result = Self::default();
        let read = |name: &str| {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(Value::Null);
            }
            let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
            serde_json::from_str::<Value>(&text)
                .map_err(|e| Error::invalid(&path, format!("not valid JSON: {e}")))
        };
        let mut ends = Vec::new();
        let (file, config) = if is_gguf(folder) {
            let model = GgufModel::open(folder)?;
            ends = model.end_tokens()?;
            (Value::Null, model.config().clone())
        } else {
            (read(FILE)?, read("config.json")?)
        };
        let ids = |json: &Value, key: &str| {
            serde_json::from_value::<OneOrMany<u32>>(json[key].clone())
                .map(OneOrMany::into_vec)
                .unwrap_or_default()
        };
        let mut eos = ids(&file, "eos_token_id");
        eos.extend(ids(&config, "eos_token_id"));
        eos.extend(ends);
        eos.extend(tokenizer.and_then(Tokenizer::eos_token_id));
        eos.sort_unstable();
        eos.dedup();
        let pad = ids(&file, "pad_token_id")
            .into_iter()
            .chain(ids(&config, "pad_token_id"))
            .chain(tokenizer.and_then(Tokenizer::pad_token_id))
            .chain(eos.first().copied())
            .next();
        result.eos_token_ids = eos;
        result.pad_token_id = pad.unwrap_or(0);
        let path = folder.join(FILE);
        let invalid = |reason: String| Error::invalid(&path, reason);
        if let Some(penalty) = set(&file, "repetition_penalty") {
            let penalty = penalty.as_f64().ok_or_else(|| {
                invalid(format!(
                    "repetition_penalty must be a number, not {penalty}"
                ))
            })?;
            result.repetition_penalty = penalty as f32;
        }
        if let Some(stops) = set(&file, "stop_strings") {
            let stops: OneOrMany<String> = serde_json::from_value(stops.clone()).map_err(|_| {
                invalid(format!(
                    "stop_strings must be a text or a list of texts, not {stops}"
                ))
            })?;
            result.stop_strings = stops.into_vec();
        }
        result
            .validate()
            .map_err(|error| invalid(error.to_string()))?;
        let lacking: Vec<&str> = (NOT_SUPPORTED.into_iter())
            .filter(|(key, neutral)| set(&file, key).is_some_and(|value| *value != *neutral))
            .map(|(key, _)| key)
            .collect();
        if !lacking.is_empty() {
            tracing::warn!(
                "{} has settings that are not supported and are ignored: {}",
                path.display(),
                lacking.join(", ")
            );
        }
        Ok(result)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes at once.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = Vec::new();
        if self.max_new_tokens == 0 {
            mistakes.push("max_new_tokens must be at least 1".to_string());
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            mistakes.push(format!(
                "temperature must be 0 or more, not {}",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            mistakes.push(format!(
                "top_p must be above 0 and at most 1, not {}",
                self.top_p
            ));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            mistakes.push(format!("min_p must be from 0 to 1, not {}", self.min_p));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            mistakes.push(format!(
                "repetition_penalty must be above 0, not {}",
                self.repetition_penalty
            ));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            mistakes.push("stop_strings must not be empty".to_string());
        }
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Settings(mistakes.join("; ")))
        }
    }
}
