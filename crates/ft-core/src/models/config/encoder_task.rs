//! Configuration of encoders with the head of a task.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::sequence_classifier::labels_in;
use super::{BertKind, ProblemType, read_config};
use crate::{BackboneConfig, Error, Result};

/// What the head of an encoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderTask {
    /// Scores of whole texts.
    SequenceClassification,
    /// Scores of each token.
    TokenClassification,
    /// Where an answer starts and ends.
    QuestionAnswering,
    /// Which token was in the place of a mask.
    MaskedLm,
}

impl EncoderTask {
    /// Whether a class of transformers has a head of this task.
    fn is_of(self, architecture: &str) -> bool {
        // The model of BERT's pretraining has the head of masked tokens, too.
        architecture.ends_with(self.suffix())
            || (self == Self::MaskedLm && architecture.ends_with("ForPreTraining"))
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::SequenceClassification => "ForSequenceClassification",
            Self::TokenClassification => "ForTokenClassification",
            Self::QuestionAnswering => "ForQuestionAnswering",
            Self::MaskedLm => "ForMaskedLM",
        }
    }
}

/// Settings of an encoder with a head: those of its body, and what its labels are.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderTaskConfig {
    /// The settings of the body.
    pub body: BackboneConfig,
    /// The task.
    pub task: EncoderTask,
    /// The names of the labels (`id2label`). In question answering there are two scores, which have no names, and scores of
    /// masked tokens have none either.
    pub labels: Vec<String>,
    /// What the scores of texts mean, which decides the loss in transformers.
    pub problem_type: Option<ProblemType>,
}

impl EncoderTaskConfig {
    /// A head with these labels on a body with these settings.
    ///
    /// # Errors
    ///
    /// If there are no labels, or the body is a decoder's.
    pub fn new(body: BackboneConfig, task: EncoderTask, labels: Vec<String>) -> Result<Self> {
        let config = Self {
            body,
            task,
            labels,
            problem_type: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not that of an encoder, or its labels are not numbered from 0.
    pub fn from_pretrained(folder: &Path, task: EncoderTask) -> Result<Self> {
        let (path, json) = read_config(folder)?;
        Self::from_json(json, task).map_err(|error| Error::invalid(&path, error.to_string()))
    }

    /// The settings of a folder that has a head of this task, by the `architectures` of its `config.json`. None if it has another
    /// head or none.
    ///
    /// # Errors
    ///
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn of_trained(folder: &Path, task: EncoderTask) -> Result<Option<Self>> {
        match Self::is_trained(folder, task)? {
            true => Self::from_pretrained(folder, task).map(Some),
            false => Ok(None),
        }
    }

    /// Whether a folder has a head of this task.
    pub(crate) fn is_trained(folder: &Path, task: EncoderTask) -> Result<bool> {
        let (_, json) = read_config(folder)?;
        let class = json.get("architectures").and_then(|names| names.get(0));
        Ok(class
            .and_then(Value::as_str)
            .is_some_and(|name| task.is_of(name)))
    }

    /// Reads a parsed `config.json`. Without `id2label` and `num_labels` there are two labels, as in transformers.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with what is wrong.
    pub fn from_json(json: Value, task: EncoderTask) -> Result<Self> {
        let labels = labels_in(&json)?;
        let problem_type = match json.get("problem_type") {
            None => None,
            Some(name) => serde_json::from_value(name.clone())
                .map_err(|error| Error::Settings(format!("problem_type: {error}")))?,
        };
        let config = Self {
            body: BackboneConfig::from_json(json)?,
            task,
            labels,
            problem_type,
        };
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        if matches!(self.body, BackboneConfig::Decoder(_)) {
            return Err(Error::Settings(
                "it is the configuration of a causal language model, not of an encoder: AutoSequenceClassifier has heads for these"
                    .into(),
            ));
        }
        let named = self.task != EncoderTask::MaskedLm;
        match named && self.labels.is_empty() {
            true => Err(Error::Settings(
                "there are no labels: a head needs at least one".into(),
            )),
            false => Ok(()),
        }
    }

    /// How many scores a text or a token gets.
    pub fn num_labels(&self) -> usize {
        match self.task {
            EncoderTask::QuestionAnswering => 2,
            EncoderTask::MaskedLm => self.body.dims().vocab_size,
            _ => self.labels.len(),
        }
    }

    /// The configuration as transformers reads it.
    pub fn to_json(&self) -> Value {
        let mut json = self.body.to_json();
        let family = match &self.body {
            BackboneConfig::Bert(config) => match config.model_type {
                BertKind::Bert => "Bert",
                BertKind::Roberta => "Roberta",
                BertKind::XlmRoberta => "XLMRoberta",
            },
            BackboneConfig::Deberta(_) => "DebertaV2",
            BackboneConfig::DistilBert(_) => "DistilBert",
            BackboneConfig::MpNet(_) => "MPNet",
            BackboneConfig::ModernBert(_) => "ModernBert",
            BackboneConfig::Decoder(_) => "",
        };
        let names = || self.labels.iter().enumerate();
        let id2label: Map<_, _> = names()
            .map(|(id, name)| (id.to_string(), name.as_str().into()))
            .collect();
        let label2id: Map<_, _> = names()
            .map(|(id, name)| (name.clone(), id.into()))
            .collect();
        if let Some(map) = json.as_object_mut() {
            map.remove("num_labels");
            map.insert(
                "architectures".into(),
                json!([format!("{family}{}", self.task.suffix())]),
            );
            if !id2label.is_empty() {
                map.insert("id2label".into(), id2label.into());
                map.insert("label2id".into(), label2id.into());
            }
            // The settings of the body may have that of another head.
            match self.problem_type {
                Some(problem_type) => map.insert("problem_type".into(), json!(problem_type)),
                None => map.remove("problem_type"),
            };
        }
        json
    }

    /// A setting of the file that only heads read.
    pub(crate) fn extra(&self, name: &str) -> Option<Value> {
        self.body.to_json().get(name).cloned()
    }
}
