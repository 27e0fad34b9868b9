//! A model whose replies are stored in a file and counted.

use std::path::Path;
use std::sync::Mutex;

use serde::Serialize;
use serde_json::json;

use super::{ChatModel, ChatReply, ChatRequest};
use crate::answer_store::{AnswerStore, key};
use crate::server::lock;
use crate::{Error, Result};

/// The price of a million tokens, in any currency.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Prices {
    /// Price of the tokens read.
    pub prompt: f64,
    /// Price of the tokens written.
    pub completion: f64,
}

/// The number of replies and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Replies from the model.
    pub replies: u64,
    /// Replies from the file.
    pub cached: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens read for the replies from the model.
    pub prompt_tokens: u64,
    /// Tokens written for the replies from the model.
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

/// A model whose replies are stored, so that an equal request is not sent again.
///
/// The key of a reply is the model's identity and the whole request with its seed. A further attempt after an invalid reply
/// is therefore a request of its own.
#[derive(Debug)]
pub struct CachedModel<M> {
    model: M,
    store: Option<Mutex<AnswerStore>>,
    spent: Mutex<Spent>,
}

impl<M: ChatModel> CachedModel<M> {
    /// A model that counts its replies and does not store them.
    pub fn new(model: M) -> Self {
        Self {
            model,
            store: None,
            spent: Mutex::default(),
        }
    }

    /// A model with a file of replies, which is created if it does not exist. A run that was killed continues with all replies
    /// it had received.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or written, or has other content.
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
                    "the cache of replies has an invalid entry: {error}; remove the cache"
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
