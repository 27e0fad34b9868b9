//! Evaluation for `ft`: numbers that equal those of the reference implementations.
//!
//! Without features beyond the default ones this is a small library of measures on texts, labels
//! and ratings:
//!
//! - [`text`]: BLEU, chrF, TER, ROUGE, METEOR, exact match, token F1, edit distance, SQuAD;
//! - [`classification`]: accuracy, precision, recall, F1, Matthews, ROC-AUC, calibration;
//! - [`tagging`]: F1 of entities, as seqeval counts them;
//! - [`agreement`]: Cohen, Fleiss, Krippendorff, with intervals;
//! - [`significance`]: whether a difference between two systems is one.
//!
//! Features add what needs more:
//!
//! - `harness`: benchmarks described as lm-evaluation-harness describes them, over any
//!   [`LanguageModel`](harness::LanguageModel);
//! - `judges`: judgements by a [`ChatModel`](judges::ChatModel), factuality;
//! - `models`: the models of ft-core as both, and BERTScore.

pub mod agreement;
pub mod classification;
mod error;
#[cfg(feature = "harness")]
pub mod harness;
#[cfg(feature = "judges")]
pub mod judges;
mod random;
pub mod significance;
pub mod tagging;
pub mod text;

pub use error::{Error, Result};
