//! Configuration of decoders that score whole sequences or tokens, in transformers' keys.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::read_config;
use crate::models::auto::ModelConfig;
use crate::{Error, Result};

/// What the scores of a classifier mean, which decides its loss in transformers. Without it, one label means a regression,
/// and more labels mean a choice of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemType {
    /// Scores are numbers.
    Regression,
    /// Scores are logits of labels of which one holds.
    SingleLabelClassification,
    /// Each score is the logit of a label that may hold.
    MultiLabelClassification,
}

/// Settings of a model that scores sequences or tokens: those of its body, and what its labels are.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceClassifierConfig {
    /// The settings of the body.
    pub body: ModelConfig,
    /// The names of the labels (`id2label`). A score of its own belongs to each of them.
    pub labels: Vec<String>,
    /// What the scores mean.
    pub problem_type: Option<ProblemType>,
    /// The id that transformers takes for padding. It reads a batch of several rows only if there is one.
    pub pad_token_id: Option<i64>,
    /// What stands behind each step of a solution, for process reward models. transformers keeps it and makes no use of it.
    pub step_separator: Option<String>,
}

impl SequenceClassifierConfig {
    /// A classifier with labels `LABEL_0`, `LABEL_1`, ..., as transformers calls them, on a body with these settings.
    pub fn new(body: ModelConfig, num_labels: usize) -> Self {
        let json = body.family().json();
        Self {
            labels: label_names(num_labels),
            problem_type: None,
            pad_token_id: json.get("pad_token_id").and_then(Value::as_i64),
            step_separator: separator_of(&json),
            body,
        }
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// As [`ModelConfig::from_pretrained`], and if the labels are not numbered from 0.
    pub fn from_pretrained(folder: &Path) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        Self::from_json(json).map_err(|error| Error::invalid(&path, error.to_string()))
    }

    /// Reads a parsed `config.json`.
    ///
    /// Without `id2label` and `num_labels` there are two labels, as in transformers.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with what is wrong.
    pub fn from_json(json: Value) -> Result<Self> {
        let labels = labels_in(&json)?;
        let problem_type = match json.get("problem_type") {
            None => None,
            Some(name) => serde_json::from_value(name.clone())
                .map_err(|error| Error::Settings(format!("problem_type: {error}")))?,
        };
        let count = json.get("num_labels").and_then(Value::as_u64);
        if let Some(count) = count.filter(|count| *count != labels.len() as u64) {
            return Err(Error::Settings(format!(
                "num_labels is {count}, but id2label has {} labels: remove one of the two",
                labels.len()
            )));
        }
        let pad_token_id = json.get("pad_token_id").and_then(Value::as_i64);
        let config = Self {
            step_separator: separator_of(&json),
            body: ModelConfig::from_json(json)?,
            labels,
            problem_type,
            pad_token_id,
        };
        config.validate()?;
        Ok(config)
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        self.on(self.body.to_json())
    }

    /// How many scores a sequence gets.
    pub fn num_labels(&self) -> usize {
        self.labels.len()
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with what is wrong.
    pub fn validate(&self) -> Result<()> {
        if self.labels.is_empty() {
            return Err(Error::Settings(
                "there are no labels: a classifier needs at least one".into(),
            ));
        }
        self.body.validate()
    }

    /// These settings in the configuration of the body.
    pub(crate) fn on(&self, mut body: Value) -> Value {
        let names = || self.labels.iter().enumerate();
        let id2label: Map<_, _> = names()
            .map(|(id, name)| (id.to_string(), name.as_str().into()))
            .collect();
        let label2id: Map<_, _> = names()
            .map(|(id, name)| (name.clone(), id.into()))
            .collect();
        if let Some(map) = body.as_object_mut() {
            // The number of labels is that of their names.
            map.remove("num_labels");
            map.insert(
                "architectures".into(),
                json!([self.body.family().classifier_architecture()]),
            );
            map.insert("id2label".into(), id2label.into());
            map.insert("label2id".into(), label2id.into());
            map.insert("problem_type".into(), json!(self.problem_type));
            if let Some(id) = self.pad_token_id {
                map.insert("pad_token_id".into(), id.into());
            }
            if let Some(separator) = &self.step_separator {
                map.insert("step_separator".into(), separator.as_str().into());
            }
        }
        body
    }

    /// The deviation of weights that are drawn.
    pub(crate) fn initializer_range(&self) -> f64 {
        let json = self.body.family().json();
        let range = json.get("initializer_range").and_then(Value::as_f64);
        range.unwrap_or(0.02)
    }
}

fn separator_of(json: &Value) -> Option<String> {
    Some(json.get("step_separator")?.as_str()?.to_string())
}

/// The most labels that a file may have without naming them.
const MOST_LABELS: u64 = 1 << 20;

/// The labels of a `config.json`: those of `id2label`, as many as `num_labels`, or two.
pub(super) fn labels_in(json: &Value) -> Result<Vec<String>> {
    if let Some(id2label) = json.get("id2label").filter(|labels| !labels.is_null()) {
        return labels_of(id2label);
    }
    match json.get("num_labels").and_then(Value::as_u64).unwrap_or(2) {
        count @ ..=MOST_LABELS => Ok(label_names(count as usize)),
        count => Err(Error::Settings(format!(
            "num_labels is {count}, more than {MOST_LABELS}: name the labels in id2label"
        ))),
    }
}

fn label_names(count: usize) -> Vec<String> {
    (0..count).map(|id| format!("LABEL_{id}")).collect()
}

/// The labels of `id2label`, in the order of their numbers.
fn labels_of(id2label: &Value) -> Result<Vec<String>> {
    let by_text: BTreeMap<String, String> = serde_json::from_value(id2label.clone())
        .map_err(|error| Error::Settings(format!("id2label: {error}")))?;
    let labels = (0..by_text.len()).map(|id| by_text.get(&id.to_string()).cloned());
    labels.collect::<Option<_>>().ok_or_else(|| {
        Error::Settings(format!(
            "id2label must number its {} labels from 0",
            by_text.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Value {
        json!({"model_type": "llama", "vocab_size": 10, "hidden_size": 4, "intermediate_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 1, "architectures": ["LlamaForCausalLM"]})
    }

    fn with(key: &str, value: Value) -> Value {
        let mut json = body();
        json[key] = value;
        json
    }

    #[test]
    fn labels_are_named_counted_or_two() {
        let labels = |json| SequenceClassifierConfig::from_json(json).map(|config| config.labels);
        let names = labels(with("id2label", json!({"1": "good", "0": "bad"})));
        assert_eq!(names.expect("named"), ["bad", "good"]);
        assert_eq!(
            labels(with("num_labels", 1.into())).expect("counted"),
            ["LABEL_0"]
        );
        assert_eq!(labels(body()).expect("two"), ["LABEL_0", "LABEL_1"]);
    }

    #[test]
    fn what_is_wrong_with_labels_is_said() {
        let mut contradiction = with("id2label", json!({"0": "bad"}));
        contradiction["num_labels"] = 2.into();
        for (json, part) in [
            (with("id2label", json!({"1": "good"})), "from 0"),
            (with("id2label", json!({})), "at least one"),
            (with("num_labels", 0.into()), "at least one"),
            (with("problem_type", "ranking".into()), "problem_type"),
            (contradiction, "num_labels is 2"),
        ] {
            let error = SequenceClassifierConfig::from_json(json).expect_err(part);
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn everything_is_kept_and_the_class_is_named() {
        let mut json = with("id2label", json!({"0": "bad", "1": "good"}));
        json["label2id"] = json!({"bad": 0, "good": 1});
        json["problem_type"] = "multi_label_classification".into();
        json["pad_token_id"] = 3.into();
        json["custom"] = "kept".into();
        json["step_separator"] = "\n\n".into();
        let config = SequenceClassifierConfig::from_json(json.clone()).expect("reads");
        let written = config.to_json();
        assert_eq!(
            written["architectures"],
            json!(["LlamaForSequenceClassification"])
        );
        for key in [
            "id2label",
            "label2id",
            "problem_type",
            "pad_token_id",
            "custom",
            "step_separator",
        ] {
            assert_eq!(written[key], json[key], "{key}");
        }
        assert_eq!(
            SequenceClassifierConfig::from_json(written).expect("reads again"),
            SequenceClassifierConfig::from_json(config.to_json()).expect("reads again")
        );
    }

    /// transformers has no class of the name of Gemma 3's language model.
    #[test]
    fn classes_are_called_as_in_transformers() {
        let mut json = body();
        json["head_dim"] = 4.into();
        json["num_key_value_heads"] = 1.into();
        for (model_type, class) in [
            ("qwen2", "Qwen2ForSequenceClassification"),
            ("gemma3_text", "Gemma3TextForSequenceClassification"),
        ] {
            json["model_type"] = model_type.into();
            json.as_object_mut().map(|map| map.remove("architectures"));
            let config = SequenceClassifierConfig::from_json(json.clone()).expect("reads");
            assert_eq!(config.to_json()["architectures"], json!([class]));
        }
    }
}
