//! Benchmarks described and scored as lm-evaluation-harness 0.4 does, on local data files.

mod functions;
mod language_model;
mod tasks;

pub use functions::{
    Doc, Function, FunctionRegistry, FunctionResult, MetricValue, Metrics, Response,
};
pub use language_model::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
