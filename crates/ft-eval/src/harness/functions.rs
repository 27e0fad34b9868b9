//! Native functions behind the `!function` tags of task files.
//!
//! In lm-evaluation-harness a task file can name Python functions of the same folder
//! (`process_docs: !function utils.process_docs`). Here the name is looked up in a [`FunctionRegistry`] as
//! `FOLDER/MODULE.FUNCTION`, where the folder is the task's name or the folder of its file:
//! `hellaswag/utils.process_docs`. A file of the harness therefore runs unchanged if its functions are registered.
//! An unknown function is an error that names it. Every [`TaskIndex`](super::TaskIndex) has the functions of the
//! built-in tasks.

use std::collections::BTreeMap;

use serde_json::Value;

use super::LogLikelihood;

/// The result of a native function. The engine adds the task's name to an error.
pub type FunctionResult<T> = std::result::Result<T, FunctionError>;

/// The reason why a native function has no value. Made from a text: `Err("no query".into())`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FunctionError(String);

impl From<String> for FunctionError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for FunctionError {
    fn from(reason: &str) -> Self {
        Self(reason.to_string())
    }
}

impl From<FunctionError> for String {
    fn from(error: FunctionError) -> Self {
        error.0
    }
}

/// A document: a row of the data, its fields in the order of the file.
pub type Doc = Value;

/// A model's answer after the filters.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// The answer to a `loglikelihood` or `multiple_choice` request.
    LogLikelihood(LogLikelihood),
    /// The answer to a `loglikelihood_rolling` request.
    Rolling(f64),
    /// The answer to a `generate_until` request, or the text that a filter extracted from it.
    Text(String),
    /// The value that the `map` filter found for a text.
    Mapped(Value),
    /// All repeats, if no filter selected one.
    Repeats(Vec<Response>),
}

/// The value of a metric on one document. Most values are numbers. Metrics that are computed from all documents at
/// once have pairs: `(gold, prediction)` for F1, `(log-likelihood, words)` for perplexities.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricValue {
    /// Python's `None`.
    None,
    /// A whole number.
    Int(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A tuple or list.
    List(Vec<MetricValue>),
}

impl MetricValue {
    /// The number, if the value is one.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            MetricValue::Int(value) => Some(*value as f64),
            MetricValue::Number(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<f64> for MetricValue {
    fn from(value: f64) -> Self {
        MetricValue::Number(value)
    }
}

/// The metrics of one document by name, in the order in which they are reported.
pub type Metrics = Vec<(String, MetricValue)>;

/// A native function, by its use.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// `process_docs`: from all documents of a split to those that are used.
    ProcessDocs(fn(Vec<Doc>) -> FunctionResult<Vec<Doc>>),
    /// `doc_to_text`, `doc_to_target`, `doc_to_choice`: from a document to a text, a number or a list.
    Doc(fn(&Doc) -> FunctionResult<Value>),
    /// `fewshot_config.samples`: the examples.
    Samples(fn() -> Vec<Doc>),
    /// `process_results`: from a document and the filtered answer to each of its requests to metrics.
    ProcessResults(fn(&Doc, &[Response]) -> FunctionResult<Metrics>),
    /// `aggregation`: from the values of a metric on all documents to one number.
    Aggregation(fn(&[MetricValue]) -> FunctionResult<f64>),
}

impl Function {
    /// The keys that can name it, for messages.
    pub(super) fn place(&self) -> &'static str {
        match self {
            Function::ProcessDocs(_) => "process_docs",
            Function::Doc(_) => "doc_to_text, doc_to_target or doc_to_choice",
            Function::Samples(_) => "fewshot_config.samples",
            Function::ProcessResults(_) => "process_results",
            Function::Aggregation(_) => "aggregation",
        }
    }
}

/// Native functions by `FOLDER/MODULE.FUNCTION`.
#[derive(Clone, Debug, Default)]
pub struct FunctionRegistry {
    functions: BTreeMap<String, Function>,
}

impl FunctionRegistry {
    /// A registry without functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function, or replaces the one with this name: `insert("hellaswag/utils.process_docs", ..)`.
    pub fn insert(&mut self, name: impl Into<String>, function: Function) {
        self.functions.insert(name.into(), function);
    }

    /// Adds all functions of another registry. They replace functions with the same names.
    pub fn extend(&mut self, other: FunctionRegistry) {
        self.functions.extend(other.functions);
    }

    /// The function `name` of the first folder that has one.
    pub fn get(&self, folders: &[&str], name: &str) -> Option<Function> {
        folders
            .iter()
            .find_map(|folder| self.functions.get(&format!("{folder}/{name}")))
            .copied()
    }

    /// The names of all functions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_the_task_takes_precedence_over_that_of_its_folder() {
        fn none() -> Vec<Doc> {
            Vec::new()
        }
        fn one() -> Vec<Doc> {
            vec![Value::Null]
        }
        let mut registry = FunctionRegistry::new();
        registry.insert("folder/utils.samples", Function::Samples(none));
        assert!(registry.get(&["task"], "utils.samples").is_none());
        let count = |function| match function {
            Some(Function::Samples(samples)) => samples().len(),
            _ => usize::MAX,
        };
        assert_eq!(count(registry.get(&["task", "folder"], "utils.samples")), 0);
        registry.insert("task/utils.samples", Function::Samples(one));
        assert_eq!(count(registry.get(&["task", "folder"], "utils.samples")), 1);
        assert_eq!(registry.names().count(), 2);
    }
}
