//! Language models for `ft`: Hugging Face files in and out, tokenizer, chat template, generation.
//!
//! The pieces, by folder:
//!
//! - `models`: [`AutoCausalLm`], one loader by `model_type`. A model is a body ([`Backbone`]) that turns ids into
//!   embeddings and embeddings into hidden states, and a [`Head`], separately, so that training never holds the logits.
//!   [`Bert`] is a body too, the encoder of BERT and RoBERTa. [`AutoSequenceClassifier`] is a body with a head that scores
//!   whole sequences;
//! - [`layers`]: what models are made of. [`Linear`] is the one projection of every model, with adapters
//!   applied to activations; operations are functions of [`ft_kernels`];
//! - [`Parts`]: the walk over a model's layers by path, and [`mod@module_path`], the same over parameters;
//! - `loss`: [`causal_lm_loss`], head and loss in one, chunk by chunk; [`token_logps`] the same for
//!   log-probabilities, and [`score_tokens`] also tells whether a token is the model's first choice;
//! - `text`: [`Tokenizer`] and [`ChatTemplate`], text to ids, rendered as transformers does;
//! - `generation`: [`generate()`], texts that continue prompts, and [`Decoder`], the same in steps, whose rows join and
//!   leave;
//! - `files`: checkpoints, one file or sharded, memory-mapped ([`load_pretrained`], [`safetensors_folder`]), in few bits
//!   ([`packed_folder`], [`gguf`]), and models by hub id ([`resolve`]).

// `#[derive(Parts)]` names the crate.
extern crate self as ft_core;

mod error;
mod files;
mod generation;
pub mod layers;
mod loss;
mod models;
pub mod module_path;
mod seed;
mod text;

pub use error::{Error, Result};
pub use files::gguf;
pub use files::hub::{HubOptions, resolve, resolve_dataset};
pub use files::packed_folder;
pub use files::pretrained::{Keys, SaveOptions, load_pretrained, save_pretrained};
pub use files::safetensors_folder::{self, Weights};
pub use files::stage::{StageManifest, weights_hash};
pub use files::weight_source::{PackedBytes, RawTensor, WeightSource, open_weights};
pub use ft_kernels::{LogitOptions, TokenScore, branch};
pub use generation::decoder::{Decoder, NextToken, RowId};
pub use generation::generate::{FinishReason, Generated, Streamed, generate};
pub use generation::generation_config::{GenerationConfig, copy_generation_config};
pub use generation::rollout::{Rollout, RolloutConfig, sample_rollouts};
pub use generation::sampling;
pub use generation::selection::ChosenLogps;
pub use layers::{
    Head, KvCache, Layout, Linear, Part, PartMut, Parts, Pass, Place, RopeScaling, dequantize,
};
pub use loss::distillation::{TeacherStates, check_distillation_head, distillation_loss};
pub use loss::linear_cross_entropy::{
    IGNORE_INDEX, LossSum, causal_lm_loss, causal_lm_loss_with, linear_cross_entropy,
    linear_cross_entropy_with,
};
pub use loss::score_tokens::score_tokens;
pub use loss::token_logps::{
    Predicted, TokenLogps, predicted_log_sum_squares, predicted_logps, predicted_logps_and_entropy,
    token_logps, token_logps_and_entropy,
};
pub use models::*;
pub use seed::{fnv1a, mix_seed, split_mix};
pub use text::chat_template::{ChatOptions, ChatTemplate, Message};
pub use text::tokenizer::Tokenizer;
pub use text::tokenizer::encoded::{Encoded, Truncation};

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
