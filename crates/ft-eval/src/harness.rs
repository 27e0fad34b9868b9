//! Benchmarks in the format of lm-evaluation-harness 0.4, on local data files.
//!
//! A [`TaskIndex`] finds task files (the built-in ones and those of folders). [`evaluate`] runs them
//! on a [`LanguageModel`] and returns an [`Evaluation`]: the numbers, every document with its prompts and
//! answers, and JSON in the format of the reference.
//!
//! Prompts, answers, hashes and numbers equal those of lm-evaluation-harness 0.4.13 on the same task file
//! and the same answers of a model. Differences:
//!
//! - Python is not run: `!function` names a function of a [`FunctionRegistry`], and task classes, images,
//!   sound, custom filters and promptsource are errors;
//! - data is read from local JSON and JSON lines, and texts that look like times stay texts;
//! - YAML is read as 1.2: `yes` and `no` are texts, and a duplicate key is an error;
//! - mistakes that the reference ignores are errors: a metric that is not computed for the output type, an
//!   unknown setting of a generation, a text filter after `take_first`, a request without an answer;
//! - in the samples, a correct answer of true or false is written as 1 or 0, and probabilities as numbers;
//! - a perplexity for which Python raises an OverflowError is infinite;
//! - the metrics of generated texts are `exact_match`, `bleu`, `chrf`, `chrf++`, `ter` and those that a task computes
//!   itself; for documents with several correct answers only `exact_match` and those of the task.
//!
//! ```no_run
//! use ft_eval::harness::{EvaluateOptions, LanguageModel, TaskIndex, evaluate};
//!
//! fn run(model: &dyn LanguageModel) -> ft_eval::Result<()> {
//!     let tasks = TaskIndex::new(&["my_tasks"])?.load(&["piqa"], "data")?;
//!     let evaluation = evaluate(model, &tasks, &EvaluateOptions::default(), &mut |_, _| {})?;
//!     println!("{}", evaluation.to_json());
//!     Ok(())
//! }
//! ```
//!
#![doc = include_str!("../tasks/README.md")]

mod aggregation;
mod answers;
mod comparison;
mod dataset;
mod evaluate;
mod evaluation;
mod exact_match;
mod filters;
mod functions;
#[cfg(test)]
mod golden;
mod group;
mod language_model;
mod metric;
mod prompt;
mod python_case;
mod python_literal;
mod python_random;
mod python_regex;
mod python_value;
mod requests;
mod response_cache;
mod results_files;
mod scoring;
mod swe_bench;
mod table;
mod task;
mod task_config;
mod task_file;
mod task_index;
mod tasks;
mod template;

pub use crate::refusal_phrases::looks_like_refusal;
pub use comparison::{ComparedMetric, Comparison, SavedResults, compare};
pub use evaluate::{EvaluateOptions, evaluate};
pub use evaluation::{Evaluation, MetricResult, Sample, TaskResult};
pub use functions::{
    Doc, Function, FunctionError, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
pub use language_model::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
pub use python_random::PythonRandom;
pub use results_files::ResultsFiles;
pub use swe_bench::{SwePrediction, extract_patch, write_swe_predictions};
pub use task::Task;
pub use task_config::OutputType;
pub use task_index::{TaskIndex, TaskSet};
