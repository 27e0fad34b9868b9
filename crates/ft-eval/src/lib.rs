//! Evaluation for `ft`: numbers that equal those of the reference implementations.
//!
//! Without features beyond the default ones this is a small library of measures on texts and ratings:
//!
//! - [`text`]: ROUGE, METEOR, exact match, token F1, edit distance, SQuAD, perplexity;
//! - [`agreement`]: Cohen, Fleiss, Krippendorff, with intervals;
//! - [`significance`]: whether a difference between two systems is one.
//!
//! The feature `harness` adds benchmarks described as lm-evaluation-harness describes them, over
//! any implementation of its trait `LanguageModel`.

pub mod agreement;
mod error;
#[cfg(feature = "harness")]
pub mod harness;
mod random;
pub mod significance;
pub mod text;

pub use error::{Error, Result};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
