//! How to decode: the settings of `generation_config.json`, with transformers' names.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

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

/// One id or several, as the file may say either.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

impl GenerationConfig {
    /// Greedy decoding that stops where the model's files say: the end tokens of
    /// `generation_config.json`, of `config.json` and of the tokenizer.
    ///
    /// Sampling settings of the file are not taken over: a caller's temperature should mean the
    /// same for every model.
    ///
    /// # Errors
    ///
    /// If one of the files exists but cannot be read.
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
        let (file, config) = (read(FILE)?, read("config.json")?);
        let ids = |json: &Value, key: &str| {
            serde_json::from_value::<Ids>(json[key].clone())
                .map(Ids::into_vec)
                .unwrap_or_default()
        };
        let mut eos = ids(&file, "eos_token_id");
        eos.extend(ids(&config, "eos_token_id"));
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
