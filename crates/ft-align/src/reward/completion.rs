//! What a reward sees.

use ft_core::Message;
use serde_json::{Map, Value};

/// The prompt of a completion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PromptRef<'a> {
    /// Plain text.
    Text(&'a str),
    /// Messages of a conversation.
    Messages(&'a [Message]),
}

/// A completion with the row that its prompt came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Completion<'a> {
    /// The prompt.
    pub prompt: PromptRef<'a>,
    /// The text that the model wrote, without special tokens.
    pub text: &'a str,
    /// The number of tokens that the model wrote.
    pub token_count: usize,
    /// Whether the model ended the completion itself. False if it was cut at the maximum length.
    pub finished: bool,
    /// The columns of the row that are no part of the prompt, such as the right answer.
    pub columns: &'a Map<String, Value>,
}

impl<'a> Completion<'a> {
    /// The value of a column, unless it is missing or null.
    pub fn column(&self, name: &str) -> Option<&'a Value> {
        self.columns.get(name).filter(|value| !value.is_null())
    }
}

/// A completion that may live on another thread.
pub(super) struct OwnedCompletion {
    prompt: OwnedPrompt,
    text: String,
    token_count: usize,
    finished: bool,
    columns: Map<String, Value>,
}

enum OwnedPrompt {
    Text(String),
    Messages(Vec<Message>),
}

impl OwnedCompletion {
    pub(super) fn new(completion: &Completion<'_>) -> Self {
        Self {
            prompt: match completion.prompt {
                PromptRef::Text(text) => OwnedPrompt::Text(text.to_string()),
                PromptRef::Messages(messages) => OwnedPrompt::Messages(messages.to_vec()),
            },
            text: completion.text.to_string(),
            token_count: completion.token_count,
            finished: completion.finished,
            columns: completion.columns.clone(),
        }
    }

    pub(super) fn borrowed(&self) -> Completion<'_> {
        Completion {
            prompt: match &self.prompt {
                OwnedPrompt::Text(text) => PromptRef::Text(text),
                OwnedPrompt::Messages(messages) => PromptRef::Messages(messages),
            },
            text: &self.text,
            token_count: self.token_count,
            finished: self.finished,
            columns: &self.columns,
        }
    }
}

/// The score of a text whose row has these columns.
#[cfg(test)]
pub(super) fn score_of(
    reward: &dyn super::Reward,
    text: &str,
    columns: Value,
) -> Result<Option<f64>, String> {
    let columns = columns.as_object().cloned().unwrap_or_default();
    let completion = Completion {
        prompt: PromptRef::Text("prompt"),
        text,
        token_count: text.split_whitespace().count(),
        finished: true,
        columns: &columns,
    };
    reward.score(&completion).map_err(|error| error.to_string())
}
