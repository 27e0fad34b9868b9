//! A model whose replies are kept in a file, and counted.

use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use serde_json::json;

use super::parallel::lock;
use super::{ChatModel, ChatReply, ChatRequest};
use crate::answer_store::{AnswerStore, key};
use crate::{Error, Result};

/// What replies cost, in any currency, a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// Of tokens read.
    pub prompt: f64,
    /// Of tokens written.
    pub completion: f64,
}

/// What was asked, and what it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Replies that the model gave now.
    pub replies: u64,
    /// Replies from the file.
    pub cached: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens read for the replies of now.
    pub prompt_tokens: u64,
    /// Tokens written for them.
    pub completion_tokens: u64,
}

impl Spent {
    /// The price of the tokens.
    pub fn cost(&self, prices: Prices) -> f64 {
        (self.prompt_tokens as f64 * prices.prompt
            + self.completion_tokens as f64 * prices.completion)
            / 1e6
    }
}

/// A model that is not asked again for what it has answered. The key of a reply is the model's identity and the whole request, seed included, so
/// that a further attempt at a reply that could not be used is a request of its own.
#[derive(Debug)]
pub struct CachedModel<M> {
    model: M,
    store: Option<Mutex<AnswerStore>>,
    spent: Mutex<Spent>,
}

impl<M: ChatModel> CachedModel<M> {
    /// Without a file, to count only.
    pub fn new(model: M) -> Self {
        Self {
            model,
            store: None,
            spent: Mutex::default(),
        }
    }

    /// With a file, which is made if it is not there. A run that was killed goes on with all replies it had got.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or is something else.
    pub fn open(model: M, path: &Path) -> Result<Self> {
        Ok(Self {
            store: Some(Mutex::new(AnswerStore::open(path)?)),
            ..Self::new(model)
        })
    }

    /// The counts so far.
    pub fn spent(&self) -> Spent {
        *lock(&self.spent)
    }

    /// The model itself.
    pub fn model(&self) -> &M {
        &self.model
    }
}

impl<M: ChatModel> ChatModel for CachedModel<M> {
    fn identity(&self) -> String {
        self.model.identity()
    }

    fn chat(&self, request: &ChatRequest) -> Result<ChatReply> {
        let key = key(&self.identity(), &json!(request).to_string());
        if let Some(store) = &self.store
            && let Some(reply) = lock(store).get(&key)
        {
            let reply = serde_json::from_value(reply.clone()).map_err(|error| {
                Error::Input(format!(
                    "the cache of replies holds something else: {error}; remove it"
                ))
            })?;
            lock(&self.spent).cached += 1;
            return Ok(reply);
        }
        let reply = self.model.chat(request);
        let mut spent = lock(&self.spent);
        match &reply {
            Ok(reply) => {
                let usage = reply.usage.unwrap_or_default();
                spent.replies += 1;
                spent.prompt_tokens += usage.prompt_tokens;
                spent.completion_tokens += usage.completion_tokens;
            }
            Err(_) => spent.failed += 1,
        }
        drop(spent);
        let reply = reply?;
        if let Some(store) = &self.store {
            lock(store).put(key, json!(reply))?;
        }
        Ok(reply)
    }
}
