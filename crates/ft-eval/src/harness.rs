//! Benchmarks described and scored as lm-evaluation-harness 0.4 does, on local data files.
//!
//! A [`TaskIndex`] finds task files (the built-in ones and those of folders), [`evaluate`] runs them
//! on a [`LanguageModel`], and the [`Evaluation`] that comes out has the numbers, every document with
//! its prompts and answers, and the reference's JSON.
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

mod aggregation;
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
mod python_literal;
mod python_random;
mod python_regex;
mod python_value;
mod requests;
mod response_cache;
mod results_files;
mod scoring;
mod table;
mod task;
mod task_config;
mod task_file;
mod task_index;
mod tasks;
mod template;

pub use comparison::{ComparedMetric, Comparison, SavedResults, compare};
pub use evaluate::{EvaluateOptions, evaluate};
pub use evaluation::{Evaluation, MetricResult, Sample, TaskResult};
pub use functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
pub use language_model::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
pub use python_random::PythonRandom;
pub use results_files::ResultsFiles;
pub use task::Task;
pub use task_config::OutputType;
pub use task_index::{TaskIndex, TaskSet};
