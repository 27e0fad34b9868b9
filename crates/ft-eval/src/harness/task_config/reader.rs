//! A reader for typed keys of a task file.

use serde_json::{Map, Value};

use super::{DocField, ProcessDocs};
use crate::harness::functions::{Doc, Function, FunctionRegistry};
use crate::harness::task_file::{FunctionTag, Origin};
use crate::{Error, Result};

/// Reads keys of a task with their types.
#[derive(Clone, Copy)]
pub(in crate::harness) struct Reader<'a> {
    pub(in crate::harness) keys: &'a Map<String, Value>,
    pub(in crate::harness) origin: &'a Origin,
    pub(in crate::harness) functions: &'a FunctionRegistry,
    pub(in crate::harness) task: &'a str,
    pub(super) prefix: &'a str,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub(in crate::harness) fn wrong(&self, key: &str, kind: &str) -> Error {
        self.origin
            .invalid(format!("'{}{key}' has to be {kind}", self.prefix))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .and_then(|count| usize::try_from(count).ok())
                    .ok_or_else(|| self.wrong(key, "a whole number, 0 or more"))
            })
            .transpose()
    }

    pub(super) fn mapping(&self, key: &str) -> Result<Option<Map<String, Value>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(fields.clone())),
            Some(_) => Err(self.wrong(key, "a mapping")),
        }
    }

    /// The function that a key names.
    pub(super) fn function(&self, key: &str) -> Result<Option<Function>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match FunctionTag::of(value) {
                Some(tag) => self.resolve(key, &tag).map(Some),
                None => Err(self.wrong(key, "a !function")),
            },
        }
    }

    pub(in crate::harness) fn resolve(&self, key: &str, tag: &FunctionTag) -> Result<Function> {
        self.functions
            .get(&[self.task, &tag.folder], &tag.name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.functions.names().collect();
                self.origin.invalid(format!(
                    "'{}{key}' names the function {:?}, which is not known as {}/{} or {}/{}: Python is not run, \
                     so register a native function under one of these names. Known are: {}",
                    self.prefix, tag.name, self.task, tag.name, tag.folder, tag.name,
                    if known.is_empty() { "none".to_string() } else { known.join(", ") }
                ))
            })
    }

    pub(in crate::harness) fn misplaced(&self, key: &str, function: Function) -> Error {
        self.wrong(
            key,
            &format!("another function: this one is for {}", function.place()),
        )
    }

    pub(super) fn process_docs(&self) -> Result<Option<ProcessDocs>> {
        match self.function("process_docs")? {
            None => Ok(None),
            Some(Function::ProcessDocs(function)) => Ok(Some(function)),
            Some(other) => Err(self.misplaced("process_docs", other)),
        }
    }

    pub(super) fn doc_field(&self, key: &str) -> Result<Option<DocField>> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        if let Some(tag) = FunctionTag::of(value) {
            return match self.resolve(key, &tag)? {
                Function::Doc(function) => Ok(Some(DocField::Function(function))),
                other => Err(self.misplaced(key, other)),
            };
        }
        Ok(Some(match value {
            Value::String(text) => DocField::Template(text.clone()),
            Value::Number(number) if number.is_i64() && key != "doc_to_choice" => {
                DocField::Number(number.as_i64().unwrap_or(0))
            }
            Value::Array(items) if key != "doc_to_text" => DocField::List(items.clone()),
            Value::Object(fields) if key == "doc_to_choice" => {
                DocField::List(fields.values().cloned().collect())
            }
            _ => {
                return Err(self.wrong(
                    key,
                    "the name of a field, a template, a list or a !function",
                ));
            }
        }))
    }

    pub(super) fn samples(&self) -> Result<Option<Vec<Doc>>> {
        match self.get("samples") {
            None => Ok(None),
            Some(Value::Array(samples)) => Ok(Some(samples.clone())),
            Some(_) => match self.function("samples")? {
                Some(Function::Samples(function)) => Ok(Some(function())),
                Some(other) => Err(self.misplaced("samples", other)),
                None => Ok(None),
            },
        }
    }
}

/// True and false, and the other words for them in YAML 1.1.
pub(in crate::harness) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" => Some(true),
            "no" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
