#![doc = include_str!("../README.md")]

mod answers;
mod classification;
mod error;
mod forward;
mod masked;
pub mod pipelines;
mod tagging;

pub use answers::{
    AnswerBatch, AnswerSettings, Candidate, PredictedAnswer, answer_batches, answer_questions,
    answer_step, evaluate_answers,
};
pub use classification::{
    ClassificationBatch, ClassificationReport, classification_batches, classification_step,
    evaluate_classification, text_scores,
};
pub use error::{Error, Result};
pub use ft_embed::text_layout;
pub use masked::masked_step;
pub use tagging::{TagBatch, evaluate_tags, predict_tags, tag_batches, tag_step, token_scores};
