//! Evaluation for `ft`: numbers that equal those of the reference implementations.
//!
//! Without features beyond the default ones this is a small library of measures on texts and ratings:
//!
//! - [`text`]: BLEU, chrF, TER, ROUGE, METEOR, exact match, token F1, edit distance, SQuAD, perplexity;
//! - [`classification`] and [`tagging`]: accuracy, F1, ROC-AUC, calibration; entities as seqeval finds them;
//! - [`regression`]: squared error and correlations of numbers;
//! - [`agreement`]: Cohen, Fleiss, Krippendorff, with intervals;
//! - [`retrieval`]: rankings against judgements of relevance, and comparisons of systems;
//! - [`significance`]: whether a difference between two systems is significant.
//!
//! Three features add more:
//!
//! - `harness`: benchmarks in the task format of lm-evaluation-harness, for any implementation of `LanguageModel`;
//! - `judges`: models that judge replies, for any implementation of `ChatModel`;
//! - `models`: both traits for models of ft-core, and BERTScore.

pub mod agreement;
#[cfg(any(feature = "harness", feature = "judges"))]
mod answer_store;
#[cfg(feature = "models")]
pub mod bert_score;
pub mod classification;
mod error;
#[cfg(feature = "judges")]
pub mod factuality;
#[cfg(feature = "harness")]
pub mod harness;
#[cfg(feature = "judges")]
pub mod judges;
#[cfg(feature = "models")]
pub mod models;
mod random;
#[cfg(any(feature = "harness", feature = "judges"))]
mod refusal_phrases;
pub mod regression;
pub mod retrieval;
#[cfg(feature = "judges")]
pub mod server;
pub mod significance;
#[cfg(all(feature = "harness", feature = "judges"))]
pub mod stages;
pub mod tagging;
pub mod text;

pub use error::{Error, Result};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
