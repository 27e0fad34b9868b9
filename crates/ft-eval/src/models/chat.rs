//! `ChatModel` for a local model.

use std::ops::ControlFlow;

use ft_core::{CausalLm, FinishReason, GenerationConfig, Message, generate};

use super::{LocalModel, of_core};
use crate::judges::{ChatModel, ChatReply, ChatRequest, Usage};
use crate::{Error, Result};

/// The schema of a request is not enforced. The judge checks the reply.
impl<M: CausalLm + Sync> ChatModel for LocalModel<M> {
    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let messages: Vec<Message> = (request.messages.iter())
            .map(|message| Message::new(&message.role, message.content.as_str()))
            .collect();
        let prompt = self.tokenizer.apply_chat_template(&messages, None, true);
        let prompt = prompt.and_then(|prompt| self.tokenizer.encode(&prompt, false));
        let prompt = prompt.map_err(of_core)?;
        let most = self.max_length();
        if prompt.len() >= most {
            return Err(Error::Model(format!(
                "the conversation has {} tokens, and the model's length is {most}: shorten the conversation",
                prompt.len()
            )));
        }
        let config = GenerationConfig {
            max_new_tokens: request.max_tokens,
            temperature: request.temperature as f32,
            seed: request.seed.unwrap_or(0),
            ..self.generation.clone()
        };
        let mut go_on = |_: ft_core::Streamed<'_>| ControlFlow::Continue(());
        let prompts = [prompt];
        let replies = generate(
            &self.model,
            Some(&self.tokenizer),
            &prompts,
            &config,
            &self.device,
            &mut go_on,
        );
        let reply = replies.map_err(of_core)?.pop();
        let reply = reply.ok_or_else(|| Error::Model("no reply".to_string()))?;
        let reason = match reply.finish_reason {
            FinishReason::Length => "length",
            _ => "stop",
        };
        Ok(ChatReply {
            reasoning: None,
            text: reply.text,
            finish_reason: Some(reason.to_string()),
            usage: Some(Usage {
                prompt_tokens: prompts[0].len() as u64,
                completion_tokens: reply.token_ids.len() as u64,
            }),
        })
    }
}
