//! `config.json`, in the keys of Hugging Face, both as transformers 4 and as transformers 5 writes
//! them.

mod bert;
mod deberta;
mod decoder;
mod distilbert;
mod encoder;
mod encoder_task;
mod falcon;
mod gemma;
mod gpt2;
mod gpt_neox;
mod granite;
mod llama;
mod modernbert;
mod mpnet;
mod olmo2;
mod phi;
mod phi3;
mod rope_parameters;
mod sequence_classifier;
mod smollm3;

use std::path::{Path, PathBuf};

use crate::files::safetensors_folder::read_json;
use crate::gguf::{GgufModel, is_gguf};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::layers::rope_scaling::RopeScaling;
use crate::{Dims, Error, Result};

pub use bert::{BertConfig, BertKind};
pub use deberta::{DebertaConfig, DebertaType};
pub use decoder::DecoderConfig;
pub use distilbert::{DistilBertConfig, DistilBertType};
pub use encoder_task::{EncoderTask, EncoderTaskConfig};
pub use falcon::FalconConfig;
pub use gemma::{GemmaConfig, GemmaKind};
pub use gpt_neox::GptNeoxConfig;
pub use gpt2::Gpt2Config;
pub use granite::GraniteConfig;
pub use llama::{LlamaConfig, LlamaKind};
pub use modernbert::{ModernBertConfig, ModernBertType};
pub use mpnet::{MpNetConfig, MpNetType};
pub use olmo2::Olmo2Config;
pub use phi::PhiConfig;
pub use phi3::Phi3Config;
pub use sequence_classifier::{ProblemType, SequenceClassifierConfig};
pub use smollm3::SmolLm3Config;

/// What the configurations of all families of causal language models say.
pub(crate) trait Family {
    /// The `model_type` of `config.json`.
    fn model_type(&self) -> &'static str;

    /// The name of transformers' class.
    fn architecture(&self) -> &'static str;

    /// The name of transformers' class whose head scores sequences.
    fn classifier_architecture(&self) -> String {
        let name = self.architecture();
        let ends = ["ForCausalLM", "LMHeadModel"];
        let family = ends.iter().find_map(|end| name.strip_suffix(end));
        format!("{}ForSequenceClassification", family.unwrap_or(name))
    }

    /// The measures of the model.
    fn dims(&self) -> Dims;

    /// Another number of rows of embedding and head.
    fn set_vocab_size(&mut self, vocab_size: usize);

    /// Whether the embedding serves as head too.
    fn tie_word_embeddings(&self) -> bool;

    /// Whether the embedding serves as head too. A model of such a configuration has no weights of an output layer.
    fn set_tie_word_embeddings(&mut self, tied: bool);

    /// The beginning of the body's keys in a checkpoint.
    fn body_prefix(&self) -> &'static str {
        "model."
    }

    /// The path of the embedding of tokens.
    fn embedding(&self) -> &'static str {
        "model.embed_tokens"
    }

    /// The row of that embedding which being looked up does not train: transformers' `padding_idx`, which for most
    /// families is `pad_token_id`.
    fn padding(&self) -> Option<usize> {
        padding_row(self.json().get("pad_token_id")?, self.dims().vocab_size)
    }

    /// The path of the output layer, where the embedding does not serve as head.
    fn output_layer(&self) -> &'static str {
        "lm_head"
    }

    /// What is wrong with the settings.
    fn mistakes(&self) -> Vec<String>;

    /// The configuration as transformers reads it; `architectures` is added where it is missing.
    fn json(&self) -> Value;
}

/// `config.json` of a folder, and its path; of a GGUF file what its keys say.
pub(super) fn read_config(folder: &Path) -> Result<(PathBuf, Value)> {
    if is_gguf(folder) {
        return Ok((
            folder.to_path_buf(),
            GgufModel::open(folder)?.config().clone(),
        ));
    }
    let path = folder.join("config.json");
    let mut json = read_json(&path)?;
    // It says how the folder's files lie, and a model that is written lies in others.
    if let Some(keys) = json.as_object_mut() {
        keys.remove("quantization_config");
    }
    Ok((path, json))
}

/// The `model_type` of a configuration, which must be one of `known`.
pub(super) fn family_of(json: &Value, known: &[&str]) -> Result<String> {
    let found = match json.get("model_type").and_then(Value::as_str) {
        Some(found) if known.contains(&found) => return Ok(found.to_string()),
        Some(found) => format!("model_type {found:?} is not supported"),
        None => "no model_type".to_string(),
    };
    let known = known.join(", ");
    Err(Error::Settings(format!(
        "{found}; it must be one of {known}"
    )))
}

/// All mistakes as one error, separated by semicolons.
pub(super) fn validate(family: &(impl Family + ?Sized)) -> Result<()> {
    let mistakes = family.mistakes();
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(Error::Settings(mistakes.join("; ")))
    }
}

/// The keys of a parsed `config.json`.
fn object(json: Value) -> Result<Map<String, Value>> {
    match json {
        Value::Object(map) => Ok(map),
        _ => Err(Error::Settings("config.json must hold an object".into())),
    }
}

/// Adds the keys of `defaults` that are absent; those that are null stay so.
fn fill_absent(map: &mut Map<String, Value>, defaults: Value) {
    if let Value::Object(defaults) = defaults {
        for (key, value) in defaults {
            map.entry(key).or_insert(value);
        }
    }
}

/// A configuration of plain serde, checked.
fn parse<C: Family + DeserializeOwned>(json: Value) -> Result<C> {
    let config: C = serde_json::from_value(json).map_err(|e| Error::Settings(e.to_string()))?;
    validate(&config)?;
    Ok(config)
}

/// The same of a configuration with rotary settings, which lie in several keys.
fn to_json(config: &impl Serialize) -> Value {
    let mut json = serde_json::to_value(config).unwrap_or_default();
    // Readers that know no type `default` take its absence for it.
    if json
        .pointer("/rope_scaling/rope_type")
        .is_some_and(|kind| kind == "default")
    {
        json["rope_scaling"] = Value::Null;
    }
    json
}

/// The row of a `pad_token_id` in a table of so many. As in PyTorch, −1 is the last row.
fn padding_row(pad_token_id: &Value, rows: usize) -> Option<usize> {
    let row = match pad_token_id.as_i64()? {
        id @ ..0 => rows.checked_sub(usize::try_from(id.unsigned_abs()).ok()?)?,
        id => usize::try_from(id).ok()?,
    };
    (row < rows).then_some(row)
}

/// Says that `name` must be at least one.
fn positive(mistakes: &mut Vec<String>, name: &str, value: usize) {
    if value == 0 {
        mistakes.push(format!("{name} must be at least 1"));
    }
}

/// Says that the first must be a multiple of the second; a second of zero is another mistake.
fn multiple(mistakes: &mut Vec<String>, (name, value): (&str, usize), (of, unit): (&str, usize)) {
    if unit > 0 && !value.is_multiple_of(unit) {
        mistakes.push(format!("{name} {value} must be a multiple of {of} {unit}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_a_row_of_the_embedding_or_none() {
        let row = |id: Value| padding_row(&id, 10);
        assert_eq!(row(Value::Null), None);
        assert_eq!(row(0.into()), Some(0));
        assert_eq!(row((-1).into()), Some(9));
        assert_eq!(row(10.into()), None);
        assert_eq!(row((-11).into()), None);
    }
}
