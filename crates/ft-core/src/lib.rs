//! Language models for `ft`: Hugging Face files in and out, tokenizer, chat template, generation.
//!
//! The pieces, each in the file of its name:
//!
//! - [`AutoCausalLm`]: one loader by `model_type` over the [`CausalLm`] trait, which gives hidden
//!   states and head separately, so that training never holds the logits;
//! - [`Bert`]: the encoder of BERT and RoBERTa;
//! - [`Linear`]: the one projection of every model, with low-rank adapters applied to activations;
//! - the operations that models share are functions of [`ft_kernels`];
//! - [`linear_cross_entropy`]: head and loss in one, chunk by chunk; [`token_logps`] the same for
//!   log-probabilities, and [`score_tokens`] also tells whether a token is the model's first choice;
//! - [`Tokenizer`] and [`ChatTemplate`]: text to ids, rendered as transformers does;
//! - [`generate()`]: decoding with a key-value cache;
//! - [`safetensors_folder`]: checkpoints, one file or sharded, memory-mapped.

mod auto;
mod bert;
mod blocks;
mod causal_lm;
mod chat_template;
mod config;
mod embedding;
mod error;
mod generate;
mod generation_config;
mod gpt2;
mod hub;
mod kv_cache;
mod layer_norm;
mod linear;
mod linear_cross_entropy;
mod linears;
mod llama;
mod lora;
pub mod module_path;
mod rope;
pub mod safetensors_folder;
pub mod sampling;
mod score_tokens;
mod token_batch;
mod token_logps;
mod tokenizer;

pub use auto::{AutoCausalLm, SaveOptions};
pub use bert::Bert;
pub use causal_lm::{CausalLm, Head};
pub use chat_template::{ChatTemplate, Message};
pub use config::{
    BertConfig, BertKind, Gpt2Config, LlamaConfig, LlamaKind, MODEL_TYPES, ModelConfig, RopeScaling,
};
pub use error::{Error, Result};
pub use ft_kernels::{LogitOptions, LossOptions, TokenScore};
pub use generate::{FinishReason, Generated, Streamed, generate};
pub use generation_config::{GenerationConfig, copy_generation_config};
pub use gpt2::Gpt2;
pub use hub::{HubOptions, resolve};
pub use kv_cache::KvCache;
pub use linear::{Layout, Linear};
pub use linear_cross_entropy::{
    IGNORE_INDEX, LossSum, causal_lm_loss, causal_lm_loss_with, linear_cross_entropy,
    linear_cross_entropy_with,
};
pub use linears::Linears;
pub use llama::Llama;
pub use lora::Lora;
pub use safetensors_folder::Weights;
pub use score_tokens::score_tokens;
pub use token_batch::TokenBatch;
pub use token_logps::{TokenLogps, token_logps, token_logps_and_entropy};
pub use tokenizer::Tokenizer;

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
