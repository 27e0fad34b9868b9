//! One training sample, whatever its file looked like.

use ft_core::Message;
use serde_json::Value;

/// What a row of any format becomes.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Messages, which a chat template turns into text.
    Conversation(Conversation),
    /// Plain text, continued by plain text.
    PromptCompletion {
        /// What is given.
        prompt: String,
        /// What is to be learnt.
        completion: String,
    },
}

/// A conversation whose assistant messages are to be learnt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// All messages, in order.
    pub messages: Vec<Message>,
    /// The functions that the assistant may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Messages before this index are context: what the assistant says there is not learnt.
    pub context: usize,
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self {
            messages,
            ..Self::default()
        }
    }
}

impl From<Vec<Message>> for Sample {
    fn from(messages: Vec<Message>) -> Self {
        Self::Conversation(messages.into())
    }
}
