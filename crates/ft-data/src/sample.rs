//! A training sample, independent of the format of its file.

use std::collections::BTreeSet;

use ft_core::Message;
use serde_json::Value;

use crate::{Error, Result};

/// The roles that a message may have. Only `assistant` is learnt.
const ROLES: [&str; 7] = [
    "system",
    "developer",
    "user",
    "assistant",
    "tool",
    "function",
    "ipython",
];

/// A row of any format.
#[derive(Clone, Debug, PartialEq)]
pub enum Sample {
    /// Messages, which a chat template turns into text.
    Conversation(Conversation),
    /// Plain text, continued by plain text.
    PromptCompletion {
        /// The text that is given.
        prompt: String,
        /// The text that is learnt.
        completion: String,
    },
}

impl Sample {
    /// How many of the assistant's messages are masked.
    pub(crate) fn masked_count(&self) -> usize {
        match self {
            Self::Conversation(conversation) => conversation.masked_count(),
            Self::PromptCompletion { .. } => 0,
        }
    }
}

/// A conversation whose assistant messages are learnt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// All messages, in order.
    pub messages: Vec<Message>,
    /// The functions that the assistant may call, as JSON schemas.
    pub tools: Option<Vec<Value>>,
    /// Indices of messages that are not learnt, even if they are the assistant's.
    pub masked: BTreeSet<usize>,
}

impl Conversation {
    /// Whether the message at `index` is learnt: it is the assistant's and not masked.
    pub fn learns(&self, index: usize) -> bool {
        self.is_assistants(index) && !self.masked.contains(&index)
    }

    /// How many of the assistant's messages are masked.
    pub(crate) fn masked_count(&self) -> usize {
        let masked = self.masked.iter();
        masked.filter(|&&index| self.is_assistants(index)).count()
    }

    fn is_assistants(&self, index: usize) -> bool {
        let message = self.messages.get(index);
        message.is_some_and(|message| message.role == "assistant")
    }
}

/// An error if a message has a role that is not known, since it could be a misspelt `assistant`.
pub(crate) fn check_roles(messages: &[Message]) -> Result<()> {
    let unknown = |message: &Message| !ROLES.contains(&message.role.as_str());
    match messages.iter().position(unknown) {
        None => Ok(()),
        Some(index) => Err(Error::Sample(format!(
            "message {} has the role `{}`, which is not known: use one of {}; only messages of the \
             role `assistant` are learnt",
            index + 1,
            messages[index].role,
            ROLES.join(", ")
        ))),
    }
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
