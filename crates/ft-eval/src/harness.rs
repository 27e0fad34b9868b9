//! Benchmarks described and scored as lm-evaluation-harness 0.4 does, on local data files.

mod language_model;

pub use language_model::{Continuation, GenerateUntil, LanguageModel, LogLikelihood};
