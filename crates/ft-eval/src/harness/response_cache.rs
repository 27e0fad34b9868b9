//! Answers kept in a file as they come.
//!
//! Each answer is one line of JSON, `{"key": .., "answer": ..}`, where the key is the sha256 of the
//! model's identity, the kind of request and its arguments (for sampled texts with the seed, which is
//! another for each repeat). Lines are only ever added, so a run that is killed loses at most the line
//! it was writing, which is dropped when the file is opened again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::LogLikelihood;
use super::evaluation::sha256;
use super::functions::Response;
use crate::{Error, Result};

/// After so many answers the file is on the disk for sure.
const SYNC_EVERY: usize = 64;

pub(super) struct ResponseCache {
    path: PathBuf,
    identity: String,
    answers: HashMap<String, Value>,
    file: BufWriter<File>,
    unsynced: usize,
}

impl ResponseCache {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path, identity: &str) -> Result<Self> {
        let read = |source| Error::Read {
            path: path.to_path_buf(),
            source,
        };
        let write = |source| Error::Write {
            path: path.to_path_buf(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(write)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(write)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(read)?;
        // What was being written when the run ended has no line end.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(write)?;
            file.seek(SeekFrom::End(0)).map_err(write)?;
        }
        let mut answers = HashMap::new();
        for (i, line) in bytes[..whole].split(|byte| *byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let mut row: Value = serde_json::from_slice(line).map_err(|error| Error::Invalid {
                path: path.to_path_buf(),
                reason: format!(
                    "line {} is not an answer: {error}; remove the file to begin anew",
                    i + 1
                ),
            })?;
            let answer = row["answer"].take();
            if let Some(key) = row["key"].as_str() {
                answers.insert(key.to_string(), answer);
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            identity: identity.to_string(),
            answers,
            file: BufWriter::new(file),
            unsynced: 0,
        })
    }

    fn key(&self, request: &str) -> String {
        sha256(&format!(
            "{}:{} {request}",
            self.identity.len(),
            self.identity
        ))
    }

    pub(super) fn get(&self, request: &str) -> Option<Response> {
        let answer = self.answers.get(&self.key(request))?;
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
        let mut line = json!({"key": self.key(request), "answer": answer}).to_string();
        line.push('\n');
        let path = self.path.clone();
        let failed = |source| Error::Write { path, source };
        // One write to the file for each line, so that a kill cannot lose answers of this process.
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.flush())
            .map_err(failed)?;
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file
            .get_ref()
            .sync_data()
            .map_err(|source| Error::Write {
                path: self.path.clone(),
                source,
            })
    }

    pub(super) fn close(mut self) -> Result<()> {
        self.sync()
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
    fn a_torn_last_line_is_dropped_and_the_rest_is_kept() {
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
