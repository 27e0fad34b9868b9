//! The score of a reward model.

use std::fmt;

use ft_core::{AutoSequenceClassifier, Message, Tokenizer};
use ft_data::{Conversation, Sample, tokenize};

use super::{BoxError, Completion, PromptRef, Reward};
use crate::score_rows::score_rows;
use crate::{Error, Result};

/// The score that a reward model gives to the prompt with the completion.
///
/// Prompt and completion go through the reward model's own tokenizer and chat template, so that it may be of another family
/// than the policy. A completion that was cut is scored as if it ended there.
pub struct ModelScore {
    name: String,
    model: AutoSequenceClassifier,
    tokenizer: Tokenizer,
    batch_size: usize,
}

impl ModelScore {
    /// A reward of this name; the model reads `batch_size` completions at a time.
    ///
    /// # Errors
    ///
    /// If the model does not have exactly one label or lacks tokens of the tokenizer, or `batch_size` is 0.
    pub fn new(
        name: impl Into<String>,
        model: AutoSequenceClassifier,
        tokenizer: Tokenizer,
        batch_size: usize,
    ) -> Result<Self> {
        let name = name.into();
        tokenizer.check_vocab(model.dims().vocab_size)?;
        let reason = match (model.num_labels(), batch_size) {
            (1, 1..) => {
                return Ok(Self {
                    name,
                    model,
                    tokenizer,
                    batch_size,
                });
            }
            (1, _) => "batch_size must be 1 or more".to_string(),
            (labels, _) => {
                format!("the model has {labels} labels, and a reward model has one")
            }
        };
        Err(Error::Reward {
            reward: name,
            reason,
        })
    }

    fn tokens(&self, completion: &Completion<'_>) -> Result<Vec<u32>, BoxError> {
        let sample = match completion.prompt {
            PromptRef::Text(prompt) => Sample::PromptCompletion {
                prompt: prompt.to_string(),
                completion: completion.text.to_string(),
            },
            PromptRef::Messages(messages) => {
                let answer = Message::new("assistant", completion.text);
                let messages = messages.iter().cloned().chain([answer]).collect();
                Sample::Conversation(Conversation {
                    messages,
                    ..Conversation::default()
                })
            }
        };
        let ids = tokenize(&sample, &self.tokenizer, usize::MAX)?.input_ids;
        self.model.dims().check_length(ids.len())?;
        Ok(ids)
    }
}

impl fmt::Debug for ModelScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelScore")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Reward for ModelScore {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, completion: &Completion<'_>) -> Result<Option<f64>, BoxError> {
        let ids = self.tokens(completion)?;
        let scores = score_rows(&self.model, &[ids], 1)?;
        Ok(scores.first().map(|&score| f64::from(score)))
    }

    fn score_all(&self, completions: &[Completion<'_>]) -> Vec<Result<Option<f64>, BoxError>> {
        let rows: Vec<Result<Vec<u32>, BoxError>> =
            completions.iter().map(|one| self.tokens(one)).collect();
        let usable: Vec<&[u32]> = rows.iter().flatten().map(Vec::as_slice).collect();
        let mut scores = match score_rows(&self.model, &usable, self.batch_size) {
            Ok(scores) => scores.into_iter(),
            Err(error) => {
                let message = error.to_string();
                return rows.iter().map(|_| Err(message.clone().into())).collect();
            }
        };
        let scored = rows.into_iter().map(|row| {
            row?;
            Ok(scores.next().map(f64::from))
        });
        scored.collect()
    }

    /// Those that the model reads at a time, so that a time limit is that of a batch.
    fn batch_size(&self) -> usize {
        self.batch_size
    }
}
