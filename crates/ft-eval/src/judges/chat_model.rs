//! One trait for every model that can be talked to: servers and local models.

use serde::{Deserialize, Serialize};

use crate::Result;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl ChatMessage {
    /// A turn.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// What a chat model is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// 0 is greedy.
    pub temperature: f64,
    /// The most tokens the reply may have.
    pub max_tokens: usize,
    /// Seed of the draw, where the model takes one.
    pub seed: Option<u64>,
    /// A JSON schema that the reply has to fulfil. Models that cannot be held to it answer as well
    /// as they can: the caller checks.
    pub schema: Option<serde_json::Value>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The reply.
    pub text: String,
    /// `stop`, `length`, ... as the model says it.
    pub finish_reason: Option<String>,
    /// Tokens, where the model counts them.
    pub usage: Option<Usage>,
}

/// Tokens of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
}

/// A model that can be talked to, from several threads at once.
pub trait ChatModel: Sync {
    /// What tells this model from every other one: cached replies belong to it.
    fn identity(&self) -> String;

    /// One reply. Waiting and trying again are the implementation's affair, so an error is final.
    fn chat(&self, request: &ChatRequest) -> Result<ChatReply>;
}
