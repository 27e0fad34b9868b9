//! Requests to a judge, repeated until a reply is valid.

use serde::Serialize;
use serde_json::Value;

use super::schema::{check, find_object};
use super::{ChatMessage, ChatModel, ChatRequest};
use crate::random::mix_seed;

/// Settings of the requests to a judge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Panel {
    /// The most attempts for one verdict, including the first.
    pub attempts: usize,
    /// The number of concurrent requests.
    pub concurrency: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// The maximum number of tokens of a reply.
    pub max_tokens: usize,
    /// Seed of sampling, for models that have one. Each attempt has a seed of its own, derived from this one.
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

/// The reason why a verdict is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The last mistake.
    pub reason: String,
    /// The number of attempts.
    pub attempts: usize,
}

/// The model's reply to a conversation as JSON that matches the schema.
///
/// An invalid reply is followed by a message that names the mistake, and a new attempt. An error of the model is final,
/// since the model has its own retries.
pub(crate) fn ask(
    model: &dyn ChatModel,
    messages: &[ChatMessage],
    schema: &Value,
    panel: &Panel,
) -> Result<Value, Missing> {
    let mut messages = messages.to_vec();
    let mut mistake = "there was no request: attempts is 0".to_string();
    for attempt in 0..panel.attempts {
        let request = ChatRequest {
            messages: messages.clone(),
            // A greedy model would repeat its reply.
            temperature: panel.temperature.max(if attempt > 0 { 0.3 } else { 0.0 }),
            max_tokens: panel.max_tokens,
            seed: Some(mix_seed(panel.seed, attempt as u64)),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;
    use crate::judges::ChatReply;

    /// Gives invalid replies, and records the seeds of the requests.
    struct Useless(Mutex<Vec<u64>>);

    impl ChatModel for Useless {
        fn identity(&self) -> String {
            "useless".to_string()
        }

        fn chat(&self, request: &ChatRequest) -> crate::Result<ChatReply> {
            self.0.lock().expect("no panic").extend(request.seed);
            Ok(ChatReply {
                reasoning: None,
                text: "no JSON".to_string(),
                finish_reason: None,
                usage: None,
            })
        }
    }

    #[test]
    fn attempts_share_no_seed_with_those_of_the_next_seed() {
        let model = Useless(Mutex::new(Vec::new()));
        for seed in 0..8 {
            let panel = Panel {
                attempts: 4,
                seed,
                ..Panel::default()
            };
            let missing = ask(&model, &[], &Value::Null, &panel).expect_err("no reply can be used");
            assert_eq!(missing.attempts, 4);
        }
        let seeds = model.0.into_inner().expect("no panic");
        assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), 8 * 4);
    }
}
