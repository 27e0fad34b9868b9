//! A task with its documents: the parts of its prompts, and the correct answers.

use std::path::Path;

use serde_json::Value;

use super::OutputType;
use super::dataset::Dataset;
use super::functions::Doc;
use super::python_literal::literal_eval;
use super::python_value::is_digits;
use super::task_config::{DocField, TaskConfig};
use super::template;
use crate::{Error, Result};

/// A benchmark: its description, its documents, and its few-shot examples.
#[derive(Clone, Debug)]
pub struct Task {
    pub(super) config: TaskConfig,
    /// The documents that are evaluated.
    pub(super) docs: Vec<Doc>,
    pub(super) fewshot_docs: Result<Vec<Doc>, String>,
    /// The fields of the documents.
    features: Vec<String>,
    /// Whether the choices are different prompts with the same continuation (Winogrande).
    pub(super) multiple_input: bool,
    /// Whether a document has several correct answers.
    pub(super) multiple_target: bool,
}

impl Task {
    /// Reads the documents of a task.
    pub(super) fn load(config: TaskConfig, data: &Path) -> Result<Task> {
        let name = config.task.clone();
        let error = |reason: String| Error::Task {
            task: name.clone(),
            reason,
        };
        let dataset = Dataset::new(&config, data)?;
        let processed = |split: &str| {
            let rows = dataset.split(split)?;
            match config.process_docs {
                Some(process) => {
                    process(rows).map_err(|reason| error(format!("process_docs: {reason}")))
                }
                None => Ok(rows),
            }
        };
        let docs_split = config
            .test_split
            .as_ref()
            .or(config.validation_split.as_ref());
        let docs_split = docs_split.ok_or_else(|| {
            error("it has neither a test_split nor a validation_split".to_string())
        })?;
        let docs = processed(docs_split)?;
        if docs.is_empty() {
            return Err(error(format!("the split {docs_split:?} has no documents")));
        }
        // An error in the examples is reported when examples are used.
        let fewshot = &config.fewshot;
        let fewshot_docs = if let Some(split) = &fewshot.split {
            let rows = dataset.split(split).map_err(|error| error.to_string());
            match fewshot.process_docs {
                Some(process) => rows.and_then(|rows| Ok(process(rows)?)),
                None => rows,
            }
        } else if let Some(samples) = &fewshot.samples {
            Ok(samples.clone())
        } else {
            let split = config
                .training_split
                .as_ref()
                .or(config.validation_split.as_ref());
            match split.filter(|split| *split != docs_split) {
                Some(split) => processed(split).map_err(|error| error.to_string()),
                None => Ok(docs.clone()),
            }
        };
        let mut features: Vec<String> = Vec::new();
        for doc in &docs {
            let fields = doc
                .as_object()
                .ok_or_else(|| error("a document has no fields".to_string()))?;
            for field in fields.keys() {
                if !features.contains(field) {
                    features.push(field.clone());
                }
            }
        }
        let mut task = Task {
            config,
            docs,
            fewshot_docs,
            features,
            multiple_input: false,
            multiple_target: false,
        };
        let first = &task.docs[0];
        let described = |reason| task.error(format!("in the first document: {reason}"));
        let text_is_index = task.doc_to_text(first, None).map_err(described)?.is_i64();
        let targets = task
            .doc_to_target(first, None)
            .map_err(described)?
            .is_array();
        if task.config.doc_to_choice.is_some() {
            task.doc_to_choice(first, None).map_err(described)?;
            task.multiple_input = text_is_index;
        } else if task.config.output_type == OutputType::MultipleChoice {
            return Err(
                task.error("doc_to_choice is missing: a multiple-choice task needs it".to_string())
            );
        }
        task.multiple_target = targets;
        Ok(task)
    }

    /// The name of the task.
    pub fn name(&self) -> &str {
        &self.config.task
    }

    /// The documents that are evaluated.
    pub fn docs(&self) -> &[Doc] {
        &self.docs
    }

    /// The kind of the requests.
    pub fn output_type(&self) -> OutputType {
        self.config.output_type
    }

    /// The number of examples in the task's file.
    pub fn num_fewshot(&self) -> Option<usize> {
        self.config.num_fewshot
    }

    pub(super) fn error(&self, reason: String) -> Error {
        Error::Task {
            task: self.config.task.clone(),
            reason,
        }
    }

    /// The value of a field, or a rendered template.
    fn field_or_template(&self, text: &str, doc: &Doc) -> Result<Result<Value, String>, String> {
        if self.features.iter().any(|feature| feature == text) {
            return match doc.get(text) {
                Some(value) => Ok(Ok(value.clone())),
                None => Err(format!("the document has no field {text:?}")),
            };
        }
        template::render(text, doc).map(Err)
    }

    /// `description` and `gen_prefix` of examples: a field of this document, or a template.
    pub(super) fn resolve(text: Option<&str>, doc: &Doc) -> Result<Option<String>, String> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match doc.get(text) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Null) => Ok(None),
            Some(_) => Err(format!("the field {text:?} is not a text")),
            None => template::render(text, doc).map(Some),
        }
    }

    /// The beginning of the answer.
    pub(super) fn doc_to_prefix(&self, doc: &Doc) -> Result<Option<String>, String> {
        let Some(prefix) = &self.config.gen_prefix else {
            return Ok(None);
        };
        match self.field_or_template(prefix, doc)? {
            Err(text) | Ok(Value::String(text)) => Ok(Some(text)),
            Ok(Value::Null) => Ok(None),
            Ok(other) => Err(format!("gen_prefix is not a text: {other}")),
        }
    }

    /// The question: a text, or the index of the correct choice if the choices are prompts.
    pub(super) fn doc_to_text(&self, doc: &Doc, own: Option<&DocField>) -> Result<Value, String> {
        match own.or(self.config.doc_to_text.as_ref()) {
            None => Err("doc_to_text is missing".to_string()),
            Some(DocField::Number(number)) => Ok(Value::from(*number)),
            Some(DocField::List(_)) => Err("doc_to_text is a list".to_string()),
            Some(DocField::Function(function)) => {
                function(doc).map_err(|reason| format!("doc_to_text: {reason}"))
            }
            Some(DocField::Template(text)) => match self.field_or_template(text, doc)? {
                Ok(value) => Ok(value),
                Err(text) if is_digits(&text) && self.config.doc_to_choice.is_some() => {
                    read_number("doc_to_text", &text)
                }
                Err(text) => Ok(Value::String(text)),
            },
        }
    }

    /// The correct answer: a text, the index of a choice, or a list of either.
    pub(super) fn doc_to_target(&self, doc: &Doc, own: Option<&DocField>) -> Result<Value, String> {
        match own.or(self.config.doc_to_target.as_ref()) {
            None => Err("doc_to_target is missing".to_string()),
            Some(DocField::Number(number)) => Ok(Value::from(*number)),
            Some(DocField::List(items)) => Ok(Value::Array(items.clone())),
            Some(DocField::Function(function)) => {
                function(doc).map_err(|reason| format!("doc_to_target: {reason}"))
            }
            Some(DocField::Template(text)) => match self.field_or_template(text, doc)? {
                Ok(value) => Ok(value),
                Err(text) if is_digits(&text) && self.config.doc_to_choice.is_some() => {
                    read_number("doc_to_target", &text)
                }
                Err(text) if text.len() >= 2 && text.starts_with('[') && text.ends_with(']') => {
                    Ok(literal_eval(&text).map_or(Value::String(text), |value| value.to_json()))
                }
                Err(text) => Ok(Value::String(text)),
            },
        }
    }

    /// The choices.
    pub(super) fn doc_to_choice(
        &self,
        doc: &Doc,
        own: Option<&DocField>,
    ) -> Result<Vec<String>, String> {
        let choices = match own.or(self.config.doc_to_choice.as_ref()) {
            None => return Err("doc_to_choice is missing".to_string()),
            Some(DocField::Number(_)) => return Err("doc_to_choice is a number".to_string()),
            Some(DocField::List(items)) => Value::Array(items.clone()),
            Some(DocField::Function(function)) => {
                function(doc).map_err(|reason| format!("doc_to_choice: {reason}"))?
            }
            Some(DocField::Template(text)) => match self.field_or_template(text, doc)? {
                Ok(value) => value,
                Err(text) => literal_eval(text.trim_start_matches([' ', '\t']))
                    .map_err(|reason| {
                        format!("doc_to_choice gives {text:?}, which is not a list: {reason}")
                    })?
                    .to_json(),
            },
        };
        let texts = choices.as_array().and_then(|choices| {
            let texts = choices
                .iter()
                .map(|choice| choice.as_str().map(str::to_string));
            texts.collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) if !texts.is_empty() => Ok(texts),
            _ => Err(format!(
                "doc_to_choice has to be a list of texts, not {choices}"
            )),
        }
    }
}

fn read_number(field: &str, text: &str) -> Result<Value, String> {
    literal_eval(text)
        .map(|value| value.to_json())
        .map_err(|reason| format!("{field} gives {text:?}: {reason}"))
}
