//! Judgements by language models.

mod chat_model;

pub use chat_model::{ChatMessage, ChatModel, ChatReply, ChatRequest, Usage};
