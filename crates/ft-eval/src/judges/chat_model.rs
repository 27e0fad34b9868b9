//! The trait of chat models: servers and local models.

use serde::{Deserialize, Serialize};

use crate::Result;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The text of the turn.
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

/// A request to a chat model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    /// The conversation so far.
    pub messages: Vec<ChatMessage>,
    /// 0 is greedy.
    pub temperature: f64,
    /// The maximum number of tokens of the reply.
    pub max_tokens: usize,
    /// Seed of sampling, for models that have one.
    pub seed: Option<u64>,
    /// A JSON schema for the reply. Not every model can enforce it, so the caller checks the reply.
    pub schema: Option<serde_json::Value>,
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatReply {
    /// The text of the reply.
    pub text: String,
    /// What the model thought before it, if the server gives that apart from the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// `stop`, `length`, ... as the model reports it.
    pub finish_reason: Option<String>,
    /// The number of tokens, if the model counts them.
    pub usage: Option<Usage>,
}

/// Numbers of tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
}

/// A model that replies to conversations, from several threads at once.
pub trait ChatModel: Sync {
    /// Identifies the model. Cached replies are stored under it.
    fn identity(&self) -> String;

    /// One reply. The implementation waits and retries, so an error is final.
    fn chat(&self, request: &ChatRequest) -> Result<ChatReply>;
}

impl<M: ChatModel + ?Sized> ChatModel for Box<M> {
    fn identity(&self) -> String {
        (**self).identity()
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        (**self).chat(request)
    }
}
