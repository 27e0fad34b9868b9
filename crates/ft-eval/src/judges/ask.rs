//! Asking a judge until its reply can be used.

use serde::Serialize;
use serde_json::Value;

use super::schema::{check, find_object};
use super::{ChatMessage, ChatModel, ChatRequest};

/// How judges are asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panel {
    /// How often a reply that cannot be used is asked for again, the first time included.
    pub attempts: usize,
    /// Questions under way at once.
    pub concurrency: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// The most tokens of a reply.
    pub max_tokens: usize,
    /// Seed of the draw, where the model takes one; later attempts get other ones.
    pub seed: u64,
}

impl Default for Panel {
    fn default() -> Self {
        Self {
            attempts: 3,
            concurrency: 4,
            temperature: 0.0,
            max_tokens: 512,
            seed: 0,
        }
    }
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What went wrong at last.
    pub reason: String,
    /// How often was asked.
    pub attempts: usize,
}

/// The model's reply to a conversation as JSON that fulfils the schema.
///
/// A reply that does not is answered with its mistake, and asked for again. A model that fails has already tried what it
/// could: that ends it.
pub(crate) fn ask(
    model: &dyn ChatModel,
    messages: &[ChatMessage],
    schema: &Value,
    panel: &Panel,
) -> Result<Value, Missing> {
    let mut messages = messages.to_vec();
    let mut mistake = "was not asked: attempts is 0".to_string();
    for attempt in 0..panel.attempts {
        let request = ChatRequest {
            messages: messages.clone(),
            // A greedy model would say the same again.
            temperature: panel.temperature.max(if attempt > 0 { 0.3 } else { 0.0 }),
            max_tokens: panel.max_tokens,
            seed: Some(panel.seed.wrapping_add(attempt as u64)),
            schema: Some(schema.clone()),
        };
        let reply = model.chat(&request).map_err(|error| Missing {
            reason: error.to_string(),
            attempts: attempt + 1,
        })?;
        let found = match find_object(&reply.text) {
            Some(value) => check(&value, schema).map(|()| value),
            None if reply.finish_reason.as_deref() == Some("length") => Err(format!(
                "the reply was cut off after {} tokens: raise max_tokens",
                panel.max_tokens
            )),
            None => Err("the reply holds no JSON object".to_string()),
        };
        match found {
            Ok(value) => return Ok(value),
            Err(error) => mistake = error,
        }
        messages.push(ChatMessage::new("assistant", reply.text));
        messages.push(ChatMessage::new(
            "user",
            format!("That cannot be used: {mistake}. Answer with the JSON object alone."),
        ));
    }
    Err(Missing {
        reason: mistake,
        attempts: panel.attempts,
    })
}
