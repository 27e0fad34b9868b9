//! Servers with OpenAI's chat completions: llama.cpp's server, vLLM, Ollama, and hosted ones.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use ureq::Agent;

use super::rate_limit::RateLimit;
use super::retry::{pause, retry_after};
use super::{ChatModel, ChatReply, ChatRequest, Usage};
use crate::random::SplitMix;
use crate::{Error, Result};

/// Settings of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAiOptions {
    /// The environment variable that holds the key, if the server requires one.
    pub api_key_env: Option<String>,
    /// The most attempts for one request, including the first.
    pub attempts: u32,
    /// The time limit of one attempt.
    pub timeout: Duration,
    /// The pause before the second attempt. It doubles with each further attempt.
    pub first_pause: Duration,
    /// The longest pause, even if the server asks for a longer one.
    pub longest_pause: Duration,
    /// The maximum number of requests per minute.
    pub requests_per_minute: Option<f64>,
    /// The maximum number of tokens per minute.
    pub tokens_per_minute: Option<f64>,
}

impl Default for OpenAiOptions {
    fn default() -> Self {
        Self {
            api_key_env: None,
            attempts: 6,
            timeout: Duration::from_secs(120),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            requests_per_minute: None,
            tokens_per_minute: None,
        }
    }
}

/// A model behind a server.
///
/// Requests that fail for a temporary reason (429, 5xx, no connection, a timeout, a reply that is cut off or is not JSON) are
/// sent again, after the time in `Retry-After` if there is one. If a server refuses a JSON schema, a JSON object is
/// requested; if it refuses that too, plain text.
///
/// The key is not part of errors, of `Debug` or of a cache.
pub struct OpenAiClient {
    agent: Agent,
    url: String,
    model: String,
    key: Option<String>,
    options: OpenAiOptions,
    limit: RateLimit,
    /// The response formats that the server refused: 0 none, 1 schemas, 2 schemas and objects.
    format: AtomicU8,
}

impl OpenAiClient {
    /// A client of `base_url` (such as `http://localhost:8080/v1`) for the model `model`.
    ///
    /// # Errors
    ///
    /// If the URL does not begin with `http://` or `https://`, or the variable of the key is not set.
    pub fn new(base_url: &str, model: &str, options: OpenAiOptions) -> Result<Self> {
        if !base_url.starts_with("http://") && !base_url.starts_with("https://") {
            return Err(Error::Settings(format!(
                "{base_url} is not the address of a server: it must begin with http:// or https://"
            )));
        }
        let key = match &options.api_key_env {
            None => None,
            Some(name) => Some(std::env::var(name).map_err(|_| {
                Error::Settings(format!(
                    "the environment variable {name} is not set: set it to the server's key"
                ))
            })?),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(options.timeout))
            .http_status_as_error(false)
            .build();
        Ok(Self {
            agent: agent.into(),
            url: format!("{}/chat/completions", base_url.trim_end_matches('/')),
            model: model.to_string(),
            key,
            limit: RateLimit::new(options.requests_per_minute, options.tokens_per_minute),
            options,
            format: AtomicU8::new(0),
        })
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
    fn send(&self, request: &ChatRequest) -> Result<ChatReply, Failure> {
        let format = self.format.load(Ordering::Relaxed);
        self.limit.wait();
        let mut post = self.agent.post(&self.url);
        if let Some(key) = &self.key {
            post = post.header("Authorization", format!("Bearer {key}"));
        }
        let response = post.send_json(self.body(request, format));
        let mut response = response.map_err(|error| Failure::passing(error.to_string()))?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after");
        let after = after.and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        let body = response.body_mut().read_to_string();
        let body = body.map_err(|error| Failure {
            after,
            ..Failure::passing(format!("the reply was cut off: {error}"))
        })?;
        if status != 200 {
            let refused = status == 400 && request.schema.is_some() && format < 2;
            if refused
                && ["response_format", "schema"]
                    .iter()
                    .any(|word| body.contains(word))
            {
                // Another thread may have changed it already.
                let _ = self.format.compare_exchange(
                    format,
                    format + 1,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                return Err(Failure {
                    kind: Kind::OtherFormat,
                    ..Failure::passing(
                        "the server does not support this response_format".to_string(),
                    )
                });
            }
            let passes = matches!(status, 408 | 409 | 425 | 429 | 500..);
            return Err(Failure {
                reason: format!("the server answered {status}: {}", message(&body)),
                after,
                kind: if passes { Kind::Passing } else { Kind::Final },
            });
        }
        let reply = read_reply(&body).map_err(Failure::passing)?;
        if let Some(usage) = reply.usage {
            self.limit
                .used(usage.prompt_tokens + usage.completion_tokens);
        }
        Ok(reply)
    }

    /// A text without the key.
    fn without_key(&self, text: String) -> String {
        match &self.key {
            Some(key) if !key.is_empty() => text.replace(key.as_str(), "***"),
            _ => text,
        }
    }
}

/// An attempt without a reply.
struct Failure {
    reason: String,
    /// The time in `Retry-After`.
    after: Option<Duration>,
    kind: Kind,
}

enum Kind {
    /// A temporary failure: try again.
    Passing,
    /// The response format was refused: try the next one at once. This does not count as an attempt.
    OtherFormat,
    Final,
}

impl Failure {
    fn passing(reason: String) -> Self {
        Self {
            reason,
            after: None,
            kind: Kind::Passing,
        }
    }
}

impl ChatModel for OpenAiClient {
    fn identity(&self) -> String {
        format!("{} {}", self.url, self.model)
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let mut random = SplitMix::new(request.seed.unwrap_or(0), request.messages.len() as u64);
        let mut attempt = 0;
        loop {
            let failure = match self.send(request) {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            if let Kind::OtherFormat = failure.kind {
                continue;
            }
            attempt += 1;
            let reason = self.without_key(failure.reason);
            if let Kind::Final = failure.kind {
                return Err(Error::Model(format!(
                    "{} gave no reply: {reason}",
                    self.url
                )));
            }
            if attempt >= self.options.attempts {
                return Err(Error::Model(format!(
                    "{} gave no reply in {attempt} attempts; the last failure: {reason}",
                    self.url
                )));
            }
            let jitter = random.below(1 << 20) as f64 / f64::from(1 << 20);
            let (first, longest) = (self.options.first_pause, self.options.longest_pause);
            std::thread::sleep(pause(attempt, failure.after, first, longest, jitter));
        }
    }
}

impl fmt::Debug for OpenAiClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiClient")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The server's error message, shortened.
fn message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let text = json["error"]["message"]
        .as_str()
        .or(json["error"].as_str())
        .or(json["message"].as_str());
    text.unwrap_or(body).trim().chars().take(500).collect()
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
