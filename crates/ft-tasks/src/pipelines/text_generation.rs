//! Texts that continue prompts and conversations.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use ft_core::{AutoCausalLm, GenerationConfig, Message, Streamed, Tokenizer, Weights, generate};
use serde::Serialize;

use crate::Result;

/// A prompt with what follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GeneratedText {
    /// The prompt and the new text.
    pub generated_text: String,
}

/// Texts, by a causal language model.
///
/// Decoding is greedy and gives at most 256 tokens, unless [`config`](Self::config) is changed. transformers samples with a
/// temperature of 0.7 where the model's files are silent.
#[derive(Debug)]
pub struct TextGeneration {
    model: AutoCausalLm,
    tokenizer: Tokenizer,
    device: Device,
    /// How to decode.
    pub config: GenerationConfig,
}

impl TextGeneration {
    /// Loads a model folder or a GGUF file.
    ///
    /// # Errors
    ///
    /// If a file is missing or malformed, or the weights do not fit.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self> {
        let model = AutoCausalLm::from_pretrained_with(folder, device, Weights::Stored)?;
        let tokenizer = Tokenizer::from_pretrained(folder)?;
        let config = GenerationConfig {
            max_new_tokens: 256,
            ..GenerationConfig::from_pretrained(folder, Some(&tokenizer))?
        };
        Ok(Self {
            model,
            tokenizer,
            device: device.clone(),
            config,
        })
    }

    /// The prompts, each continued. `listen` gets every token as it comes, and ends all texts with [`ControlFlow::Break`].
    ///
    /// # Errors
    ///
    /// As [`generate`].
    pub fn complete(
        &self,
        prompts: &[&str],
        listen: &mut dyn FnMut(Streamed<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<GeneratedText>> {
        let new = self.generate(prompts, true, listen)?;
        let texts = prompts.iter().zip(new);
        Ok(texts
            .map(|(prompt, new)| GeneratedText {
                generated_text: format!("{prompt}{new}"),
            })
            .collect())
    }

    /// The answers to conversations: the new messages alone.
    ///
    /// # Errors
    ///
    /// As [`generate`], and if the tokenizer has no chat template.
    pub fn chat(
        &self,
        conversations: &[Vec<Message>],
        listen: &mut dyn FnMut(Streamed<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<String>> {
        let prompts = conversations
            .iter()
            .map(|messages| self.tokenizer.apply_chat_template(messages, None, true));
        let prompts = prompts.collect::<ft_core::Result<Vec<String>>>()?;
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        self.generate(&prompts, false, listen)
    }

    fn generate(
        &self,
        prompts: &[&str],
        special: bool,
        listen: &mut dyn FnMut(Streamed<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<String>> {
        let ids = prompts
            .iter()
            .map(|prompt| self.tokenizer.encode(prompt, special));
        let ids = ids.collect::<ft_core::Result<Vec<_>>>()?;
        let tokenizer = Some(&self.tokenizer);
        let found = generate(
            &self.model,
            tokenizer,
            &ids,
            &self.config,
            &self.device,
            listen,
        )?;
        Ok(found.into_iter().map(|text| text.text).collect())
    }
}
