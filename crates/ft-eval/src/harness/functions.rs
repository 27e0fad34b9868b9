//! Native functions behind the `!function` tags of task files.
//!
//! lm-evaluation-harness lets a task file name Python functions that lie beside it
//! (`process_docs: !function utils.process_docs`). Here such a name is looked up in a
//! [`FunctionRegistry`], as `FOLDER/MODULE.FUNCTION`, where the folder is the task's own name or the
//! folder its file lies in: `hellaswag/utils.process_docs`. So a file of the harness runs unchanged
//! as long as its functions are known; one that is not known is an error that names it. Those of the
//! built-in tasks are known to every [`TaskIndex`](super::TaskIndex).

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

/// What is left of a model's answer after the filters.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// Of a `loglikelihood` or `multiple_choice` request.
    LogLikelihood(LogLikelihood),
    /// Of a `loglikelihood_rolling` request.
    Rolling(f64),
    /// Of a `generate_until` request, or what a filter took from it.
    Text(String),
    /// What the `map` filter put in place of a text.
    Mapped(Value),
    /// All repeats, where no filter picked one.
    Repeats(Vec<Response>),
}

/// The value of a metric on one document. Most are numbers; some metrics are computed from all
/// documents at once and hand their parts to the aggregation: `(gold, prediction)` for F1,
/// `(log-likelihood, words)` for perplexities.
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
    /// The number, if it is one.
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

/// A native function, by the place it is used in.
#[derive(Clone, Copy, Debug)]
pub enum Function {
    /// `process_docs`: all documents of a split to those that are used.
    ProcessDocs(fn(Vec<Doc>) -> FunctionResult<Vec<Doc>>),
    /// `doc_to_text`, `doc_to_target`, `doc_to_choice`: a document to a text, a number or a list.
    Doc(fn(&Doc) -> FunctionResult<Value>),
    /// `fewshot_config.samples`: the examples themselves.
    Samples(fn() -> Vec<Doc>),
    /// `process_results`: a document and the filtered answer to each of its requests, to metrics.
    ProcessResults(fn(&Doc, &[Response]) -> FunctionResult<Metrics>),
    /// `aggregation`: the values of a metric on all documents, to one number.
    Aggregation(fn(&[MetricValue]) -> FunctionResult<f64>),
}

impl Function {
    /// Where it can stand, for messages.
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

    /// Adds a function, or replaces the one of that name: `insert("hellaswag/utils.process_docs", ..)`.
    pub fn insert(&mut self, name: impl Into<String>, function: Function) {
        self.functions.insert(name.into(), function);
    }

    /// Adds all functions of another registry, in place of those of the same names.
    pub fn extend(&mut self, other: FunctionRegistry) {
        self.functions.extend(other.functions);
    }

    /// The function `name` of the first of the folders that has one.
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
    fn a_task_s_own_function_goes_before_that_of_its_folder() {
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
