//! A model's answers in a file.
//!
//! The key is the sha256 of the model's identity, the kind of request and its arguments. For sampled texts these include the
//! seed, which differs for each repeat.

use std::path::Path;

use serde_json::{Value, json};

use super::LogLikelihood;
use super::functions::Response;
use crate::Result;
use crate::answer_store::{AnswerStore, key};

pub(super) struct ResponseCache {
    identity: String,
    store: AnswerStore,
}

impl ResponseCache {
    /// Opens the file, or creates it.
    pub(super) fn open(path: &Path, identity: &str) -> Result<Self> {
        Ok(Self {
            identity: identity.to_string(),
            store: AnswerStore::open(path)?,
        })
    }

    pub(super) fn get(&self, request: &str) -> Option<Response> {
        let answer = self.store.get(&key(&self.identity, request))?;
        match answer {
            Value::String(text) => Some(Response::Text(text.clone())),
            Value::Array(parts) => {
                let logp = number(parts.first()?)?;
                match parts.get(1) {
                    Some(is_greedy) => Some(Response::LogLikelihood(LogLikelihood {
                        logp,
                        is_greedy: is_greedy.as_bool()?,
                    })),
                    None => Some(Response::Rolling(logp)),
                }
            }
            _ => None,
        }
    }

    pub(super) fn put(&mut self, request: &str, answer: &Response) -> Result<()> {
        let answer = match answer {
            Response::Text(text) => json!(text),
            Response::LogLikelihood(answer) => json!([written(answer.logp), answer.is_greedy]),
            Response::Rolling(logp) => json!([written(*logp)]),
            Response::Mapped(_) | Response::Repeats(_) => return Ok(()),
        };
        self.store.put(key(&self.identity, request), answer)
    }

    pub(super) fn close(mut self) -> Result<()> {
        self.store.sync()
    }
}

/// Numbers that JSON lacks are written as texts.
fn written(number: f64) -> Value {
    if number.is_finite() {
        json!(number)
    } else {
        json!(number.to_string())
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_last_line_is_removed_and_the_rest_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/cache.jsonl");
        let pair = Response::LogLikelihood(LogLikelihood {
            logp: f64::NEG_INFINITY,
            is_greedy: true,
        });
        let mut cache = ResponseCache::open(&path, "m").unwrap();
        cache.put("a", &pair).unwrap();
        cache.put("b", &Response::Rolling(-0.1)).unwrap();
        cache.put("c", &Response::Text("é\n".to_string())).unwrap();
        cache.close().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .unwrap()
            + 1;
        for cut in last..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut cache = ResponseCache::open(&path, "m").unwrap();
            assert_eq!(cache.get("a"), Some(pair.clone()));
            assert_eq!(cache.get("b"), Some(Response::Rolling(-0.1)));
            assert_eq!(cache.get("c"), None);
            cache.put("c", &Response::Text("é\n".to_string())).unwrap();
            cache.close().unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(ResponseCache::open(&path, "other").unwrap().get("a"), None);
    }
}
