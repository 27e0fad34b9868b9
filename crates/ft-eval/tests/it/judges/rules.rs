//! A model of rules, for tests without a server.

use ft_eval::Result;
use ft_eval::judges::{ChatModel, ChatReply, ChatRequest};
use serde_json::Value;

/// Replies with a function of the last message.
pub(crate) struct Rules<F>(pub(crate) F);

impl<F: Fn(&str) -> Value + Sync> ChatModel for Rules<F> {
    fn identity(&self) -> String {
        "rules".to_string()
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let last = request.messages.last().unwrap();
        Ok(ChatReply {
            reasoning: None,
            text: (self.0)(&last.content).to_string(),
            finish_reason: Some("stop".to_string()),
            usage: None,
        })
    }
}
