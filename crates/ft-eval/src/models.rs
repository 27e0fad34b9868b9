//! Models of ft-core that benchmarks and judges can be run on.
//!
//! A [`LocalModel`] is a [`LanguageModel`](crate::harness::LanguageModel) and a
//! [`ChatModel`](crate::judges::ChatModel). As a language model it answers as the model `hf` of
//! lm-evaluation-harness 0.4.13 does: the same tokens around the same border, the same windows, and greedy texts
//! with the same end. It is faster for two reasons: a prompt that several requests share is read once, as is a
//! beginning that many prompts share (the examples of a few-shot task), and the head is applied only to
//! positions that are scored.
//!
//! Differences:
//!
//! - settings of the model's `generation_config.json` other than its end tokens (a repetition penalty, as Qwen
//!   2.5 has) are not applied to greedy texts, so that greedy means the same for every model;
//! - each text is checked for a begin-of-text token, where the reference checks the first text of a batch;
//! - a context of only white space is scored after the prefix token, and a continuation that adds no token is an
//!   error that names it; the reference fails with an assertion in both cases.

mod chat;
mod encoding;
mod generation;
mod identity;
mod language_model;
mod plan;
mod rolling;
mod scoring;

use burn::tensor::Device;
use ft_core::{AutoCausalLm, CausalLm, GenerationConfig, Tokenizer, Weights};

use crate::{Error, Result};

pub use identity::identity;

/// A causal language model with its tokenizer, ready to be measured.
#[derive(Debug)]
pub struct LocalModel<M = AutoCausalLm> {
    model: M,
    tokenizer: Tokenizer,
    generation: GenerationConfig,
    device: Device,
    identity: String,
    batch_tokens: usize,
}

impl LocalModel {
    /// Loads a model folder in Hugging Face's layout. Weights keep the type of the file; computation is in `f32`.
    /// The model's identity is the hash of its files.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or tokenizer and model do not match.
    pub fn from_pretrained(folder: &std::path::Path, device: &Device) -> Result<Self> {
        let model = AutoCausalLm::from_pretrained_with(folder, device, Weights::Stored);
        let model = model.map_err(of_core)?;
        let tokenizer = Tokenizer::from_pretrained(folder).map_err(of_core)?;
        let generation = GenerationConfig::from_pretrained(folder, Some(&tokenizer));
        let generation = generation.map_err(of_core)?;
        Self::new(model, tokenizer, generation, device, identity(&[folder])?)
    }
}

impl<M: CausalLm> LocalModel<M> {
    /// A model from its parts, with or without adapters. Benchmarks use only the end tokens and the padding token of
    /// `generation`; chats use all of it but lengths, temperature and seed, which requests have. `identity` identifies these weights (see [`identity()`]): cached answers are
    /// stored under it.
    ///
    /// # Errors
    ///
    /// If the tokenizer has tokens that the model lacks, or has neither a begin-of-text nor an end-of-text token.
    pub fn new(
        model: M,
        tokenizer: Tokenizer,
        generation: GenerationConfig,
        device: &Device,
        identity: impl Into<String>,
    ) -> Result<Self> {
        let vocab = model.dims().vocab_size;
        tokenizer.check_vocab(vocab).map_err(of_core)?;
        encoding::prefix_token(&tokenizer)?;
        Ok(Self {
            model,
            tokenizer,
            generation,
            device: device.clone(),
            identity: identity.into(),
            batch_tokens: 512,
        })
    }

    /// Sets how many tokens are computed at once, including padding. The default, 512, suits a CPU. More tokens need more
    /// memory and are faster on a GPU. A single text may be longer.
    #[must_use]
    pub fn with_batch_tokens(mut self, batch_tokens: usize) -> Self {
        self.batch_tokens = batch_tokens.max(1);
        self
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn max_length(&self) -> usize {
        self.model.dims().max_position_embeddings
    }
}

fn of_core(error: ft_core::Error) -> Error {
    Error::Model(error.to_string())
}
