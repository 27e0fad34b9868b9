//! Requests to servers of models: attempts, pauses, limits, keys.
//!
//! [`ServerClient`] is what clients of chat models ([`OpenAiClient`](crate::judges::OpenAiClient)) and of embedding models (those of
//! ft-embed) have in common. [`in_parallel`] sends several requests at a time.

mod parallel;
mod rate_limit;
mod retry;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use ureq::Agent;

use crate::random::SplitMix;
use crate::{Error, Result};
use rate_limit::RateLimit;
use retry::{pause, retry_after};

pub use parallel::in_parallel;
pub(crate) use parallel::lock;

/// Longer replies are not read, in bytes.
const LONGEST_REPLY: u64 = 256 << 20;

/// Settings of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerOptions {
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

impl Default for ServerOptions {
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

/// Where a request carries the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHeader {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// A header of this name.
    Named(&'static str),
}

/// A client of a server that reads and writes JSON, from several threads at once.
///
/// Requests that fail for a temporary reason (408, 409, 425, 429, 5xx, no connection, a timeout, a reply that is cut off or cannot be
/// read) are sent again, after the time in `Retry-After` if there is one.
///
/// The key is not part of errors or of `Debug`.
pub struct ServerClient {
    agent: Agent,
    base_url: String,
    key: Option<String>,
    key_header: KeyHeader,
    options: ServerOptions,
    limit: RateLimit,
    /// The number of pauses so far; their lengths differ.
    pauses: AtomicU64,
}

/// A request without a usable reply.
#[derive(Clone, Debug)]
pub struct ServerFailure {
    /// What happened at the last attempt.
    pub reason: String,
    /// The status of the last reply, if it was not 200.
    pub status: Option<u16>,
    /// How many attempts there were.
    pub attempts: u32,
    /// The body of a reply that was not 200.
    pub(crate) body: String,
    /// The time in `Retry-After`.
    after: Option<Duration>,
    /// Whether another attempt may succeed.
    temporary: bool,
}

impl ServerFailure {
    /// A failure that may not repeat.
    pub(crate) fn temporary(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            status: None,
            attempts: 1,
            body: String::new(),
            after: None,
            temporary: true,
        }
    }
}

impl fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.temporary {
            true => write!(
                f,
                "no reply in {} attempts; the last failure: {}",
                self.attempts, self.reason
            ),
            false => write!(f, "no reply: {}", self.reason),
        }
    }
}

impl ServerClient {
    /// A client of `base_url` (such as `http://localhost:8080/v1`).
    ///
    /// # Errors
    ///
    /// If the URL does not begin with `http://` or `https://`, or the variable of the key is not set.
    pub fn new(base_url: &str, key_header: KeyHeader, options: ServerOptions) -> Result<Self> {
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
            base_url: base_url.trim_end_matches('/').to_string(),
            key,
            key_header,
            limit: RateLimit::new(options.requests_per_minute, options.tokens_per_minute),
            options,
            pauses: AtomicU64::new(0),
        })
    }

    /// The address without a slash at its end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Sends a request to `base_url/path` until there is a reply that `read` accepts.
    ///
    /// # Errors
    ///
    /// If the server refuses the request, or no attempt has a reply that can be read.
    pub fn post<T>(
        &self,
        path: &str,
        body: &Value,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Result<T, ServerFailure> {
        self.repeat(|| {
            let reply = self.send(path, body)?;
            read(&reply).map_err(ServerFailure::temporary)
        })
    }

    /// Counts the tokens of a request for the limit per minute.
    pub fn used(&self, tokens: u64) {
        self.limit.used(tokens);
    }

    /// Calls `attempt` again, after a pause, while it fails for temporary reasons.
    pub(crate) fn repeat<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, ServerFailure>,
    ) -> Result<T, ServerFailure> {
        let mut attempts = 0;
        loop {
            let failure = match attempt() {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            attempts += 1;
            if !failure.temporary || attempts >= self.options.attempts {
                return Err(ServerFailure {
                    reason: self.without_key(failure.reason),
                    body: self.without_key(failure.body),
                    attempts,
                    ..failure
                });
            }
            let mut random = SplitMix::new(0, self.pauses.fetch_add(1, Ordering::Relaxed));
            let jitter = random.below(1 << 20) as f64 / f64::from(1 << 20);
            let (first, longest) = (self.options.first_pause, self.options.longest_pause);
            std::thread::sleep(pause(attempts, failure.after, first, longest, jitter));
        }
    }

    /// One attempt: the body of a reply with status 200.
    pub(crate) fn send(&self, path: &str, body: &Value) -> Result<String, ServerFailure> {
        self.limit.wait();
        let mut post = self.agent.post(format!("{}/{path}", self.base_url));
        if let Some(key) = &self.key {
            post = match self.key_header {
                KeyHeader::Bearer => post.header("Authorization", format!("Bearer {key}")),
                KeyHeader::Named(name) => post.header(name, key),
            };
        }
        let response = post.send_json(body);
        let mut response = response.map_err(|error| ServerFailure::temporary(error.to_string()))?;
        let status = response.status().as_u16();
        let after = response.headers().get("retry-after");
        let after = after.and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now()));
        // Vectors of many texts are longer than the ten megabytes that are read by default.
        let reader = response.body_mut().with_config();
        let reader = reader.limit(LONGEST_REPLY).lossy_utf8(true);
        let body = reader.read_to_string().map_err(|error| ServerFailure {
            after,
            ..ServerFailure::temporary(format!("the reply was cut off: {error}"))
        })?;
        match status {
            200 => Ok(body),
            _ => Err(ServerFailure {
                reason: format!("the server answered {status}: {}", message(&body)),
                status: Some(status),
                attempts: 1,
                body,
                after,
                temporary: matches!(status, 408 | 409 | 425 | 429 | 500..),
            }),
        }
    }

    /// A text without the key.
    fn without_key(&self, text: String) -> String {
        match &self.key {
            Some(key) if !key.is_empty() => text.replace(key.as_str(), "***"),
            _ => text,
        }
    }
}

impl fmt::Debug for ServerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerClient")
            .field("base_url", &self.base_url)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The server's error message, shortened.
pub(crate) fn message(body: &str) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let text = json["error"]["message"]
        .as_str()
        .or(json["error"].as_str())
        .or(json["message"].as_str());
    text.unwrap_or(body).trim().chars().take(500).collect()
}
