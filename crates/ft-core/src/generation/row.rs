//! One sequence while it is generated.

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::generation::decoder::RowId;
use crate::generation::generate::FinishReason;
use crate::generation::row_text::RowText;
use crate::generation::selection::Choice;
use crate::{GenerationConfig, Result, Tokenizer};

/// One sequence while it is generated.
#[derive(Debug)]
pub(crate) struct Row {
    pub id: RowId,
    /// Prompt and new tokens. A row's cache holds all of them but the newest.
    pub seen: Vec<u32>,
    /// The adapter it has.
    pub adapter: Option<String>,
    /// How many virtual tokens that has.
    pub virtual_tokens: usize,
    /// Why it ended; none while it runs.
    pub finish_reason: Option<FinishReason>,
    /// How long it may become.
    longest: usize,
    config: GenerationConfig,
    rng: StdRng,
    /// None without a tokenizer.
    text: Option<RowText>,
}

impl Row {
    /// A row that is not longer than `longest` tokens.
    pub(crate) fn new(
        id: RowId,
        prompt: &[u32],
        longest: usize,
        config: GenerationConfig,
        tokenizer: Option<&Tokenizer>,
    ) -> Result<Self> {
        let text = tokenizer.map(|tokenizer| RowText::new(&config.stop_strings, tokenizer));
        Ok(Self {
            id,
            seen: prompt.to_vec(),
            adapter: None,
            virtual_tokens: 0,
            finish_reason: None,
            longest: longest.min(prompt.len().saturating_add(config.max_new_tokens)),
            rng: StdRng::seed_from_u64(config.seed),
            text: text.transpose()?,
            config,
        })
    }

    pub(crate) fn runs(&self) -> bool {
        self.finish_reason.is_none()
    }

    /// How many of its tokens the cache holds once it has its first new one; also the position of the newest.
    pub(crate) fn cached(&self) -> usize {
        self.seen.len() - 1
    }

    /// The newest token.
    pub(crate) fn newest(&self) -> u32 {
        self.seen[self.cached()]
    }

    /// The token that pads the row's prompt. Padding is never seen, so any token of the vocabulary will do.
    pub(crate) fn pad(&self, vocab: usize) -> u32 {
        let pad = self.config.pad_token_id;
        if (pad as usize) < vocab { pad } else { 0 }
    }

    pub(crate) fn choice(&mut self) -> Choice<'_> {
        Choice {
            seen: &self.seen,
            config: &self.config,
            rng: &mut self.rng,
        }
    }

    /// Takes the next token; returns the text that is now new and final.
    pub(crate) fn push(&mut self, token: u32, tokenizer: Option<&Tokenizer>) -> Result<String> {
        self.seen.push(token);
        if self.config.eos_token_ids.contains(&token) {
            self.finish_reason = Some(FinishReason::EndToken);
        } else if self.seen.len() >= self.longest {
            self.finish_reason = Some(FinishReason::Length);
        }
        let (Some(tokenizer), Some(text)) = (tokenizer, &mut self.text) else {
            return Ok(String::new());
        };
        let (fresh, stopped) = text.push(token, self.finish_reason.is_some(), tokenizer)?;
        if stopped {
            self.finish_reason = Some(FinishReason::StopString);
        }
        Ok(fresh)
    }

    /// Ends the row; returns the text that was held back.
    pub(crate) fn stop(&mut self, tokenizer: Option<&Tokenizer>) -> Result<String> {
        self.finish_reason = Some(FinishReason::Stopped);
        match (tokenizer, &mut self.text) {
            (Some(tokenizer), Some(text)) => text.rest(tokenizer),
            _ => Ok(String::new()),
        }
    }
}
