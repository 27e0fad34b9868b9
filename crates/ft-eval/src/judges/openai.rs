//! Servers with OpenAI's chat completions: llama.cpp's server, vLLM, Ollama, and hosted ones.

use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

use super::{ChatModel, ChatReply, ChatRequest, Usage};
use crate::server::{KeyHeader, ServerClient, ServerFailure, ServerOptions, message};
use crate::{Error, Result};

/// Where chat completions are, behind the address of the server.
const PATH: &str = "chat/completions";

/// A model behind a server, by a [`ServerClient`].
///
/// If a server refuses a JSON schema, a JSON object is requested; if it refuses that too, plain text.
#[derive(Debug)]
pub struct OpenAiClient {
    client: ServerClient,
    model: String,
    /// The response formats that the server refused: 0 none, 1 schemas, 2 schemas and objects.
    format: AtomicU8,
}

impl OpenAiClient {
    /// A client of `base_url` (such as `http://localhost:8080/v1`) for the model `model`.
    ///
    /// # Errors
    ///
    /// If the URL does not begin with `http://` or `https://`, or the variable of the key is not set.
    pub fn new(base_url: &str, model: &str, options: ServerOptions) -> Result<Self> {
        Ok(Self {
            client: ServerClient::new(base_url, KeyHeader::Bearer, options)?,
            model: model.to_string(),
            format: AtomicU8::new(0),
        })
    }

    fn url(&self) -> String {
        format!("{}/{PATH}", self.client.base_url())
    }

    fn body(&self, request: &ChatRequest, format: u8) -> Value {
        let mut body = json!({
            "model": self.model,
            "messages": request.messages,
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
        });
        if let Some(seed) = request.seed {
            // All servers accept 31 bits.
            body["seed"] = json!(seed & 0x7fff_ffff);
        }
        match (&request.schema, format) {
            (Some(schema), 0) => {
                body["response_format"] = json!({
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "strict": true, "schema": schema},
                });
            }
            (Some(_), 1) => body["response_format"] = json!({"type": "json_object"}),
            _ => {}
        }
        body
    }

    /// One attempt.
    fn attempt(&self, request: &ChatRequest) -> Result<ChatReply, ServerFailure> {
        loop {
            let format = self.format.load(Ordering::Relaxed);
            let body = match self.client.send(PATH, &self.body(request, format)) {
                Ok(body) => body,
                Err(failure) => {
                    let refused = failure.status == Some(400)
                        && request.schema.is_some()
                        && format < 2
                        && ["response_format", "schema"]
                            .iter()
                            .any(|word| failure.body.contains(word));
                    if !refused {
                        return Err(failure);
                    }
                    // The next format is tried at once. Another thread may have changed it already.
                    let _ = self.format.compare_exchange(
                        format,
                        format + 1,
                        Ordering::Relaxed,
                        Ordering::Relaxed,
                    );
                    continue;
                }
            };
            let reply = read_reply(&body).map_err(ServerFailure::temporary)?;
            if let Some(usage) = reply.usage {
                self.client
                    .used(usage.prompt_tokens + usage.completion_tokens);
            }
            return Ok(reply);
        }
    }
}

impl ChatModel for OpenAiClient {
    fn identity(&self) -> String {
        format!("{} {}", self.url(), self.model)
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let reply = self.client.repeat(|| self.attempt(request));
        reply.map_err(|failure| Error::Model(format!("{} gave {failure}", self.url())))
    }
}

fn read_reply(body: &str) -> Result<ChatReply, String> {
    let json: Value =
        serde_json::from_str(body).map_err(|error| format!("the reply is not JSON: {error}"))?;
    let choice = &json["choices"][0];
    let message_of = |key: &str| choice["message"][key].as_str().map(str::to_string);
    // Servers of reasoning models, such as DeepSeek's and vLLM's, give the thinking apart, and no text if it was cut.
    let reasoning = message_of("reasoning_content").or_else(|| message_of("reasoning"));
    let text = match (message_of("content"), &reasoning) {
        (Some(text), _) => text,
        (None, Some(_)) => String::new(),
        (None, None) => return Err(format!("the reply has no text: {}", message(body))),
    };
    let count = |key: &str| json["usage"][key].as_u64();
    let usage = match (count("prompt_tokens"), count("completion_tokens")) {
        (None, None) => None,
        (prompt, completion) => Some(Usage {
            prompt_tokens: prompt.unwrap_or(0),
            completion_tokens: completion.unwrap_or(0),
        }),
    };
    Ok(ChatReply {
        text,
        reasoning,
        finish_reason: choice["finish_reason"].as_str().map(str::to_string),
        usage,
    })
}
