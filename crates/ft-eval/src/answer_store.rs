//! Answers appended to a file as they arrive.
//!
//! Each answer is one line of JSON, `{"key": .., "answer": ..}`. Lines are only appended. A run that is killed loses at
//! most the line it was writing; an incomplete line is removed when the file is opened again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The file is synced to disk after this many answers.
const SYNC_EVERY: usize = 64;

/// The beginning of every line.
const BEGINNING: &[u8] = b"{\"key\":\"";

#[derive(Deserialize)]
struct Row {
    key: String,
    answer: Value,
}

/// A file of answers by key.
#[derive(Debug)]
pub(crate) struct AnswerStore {
    path: PathBuf,
    answers: HashMap<String, Value>,
    file: File,
    unsynced: usize,
}

impl AnswerStore {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
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
        // A line that was being written when the run ended has no line end.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let invalid = |line: usize| Error::Invalid {
            path: path.to_path_buf(),
            reason: format!(
                "line {line} is not an answer of a cache: choose another file, or remove this one to start again"
            ),
        };
        let mut answers = HashMap::new();
        let mut lines = 0;
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            lines += 1;
            if !line.is_empty() {
                let row: Row = serde_json::from_slice(line).map_err(|_| invalid(lines))?;
                answers.insert(row.key, row.answer);
            }
        }
        let torn = &bytes[whole..];
        if !(torn.starts_with(BEGINNING) || BEGINNING.starts_with(torn)) {
            return Err(invalid(lines));
        }
        // Only after the check: a file with other content is not changed.
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(write)?;
            file.seek(SeekFrom::End(0)).map_err(write)?;
        }
        Ok(Self {
            path: path.to_path_buf(),
            answers,
            file,
            unsynced: 0,
        })
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.answers.get(key)
    }

    pub(crate) fn put(&mut self, key: String, answer: Value) -> Result<()> {
        let mut line = json!({"key": key, "answer": answer}).to_string();
        line.push('\n');
        // One write for each line, so that a kill cannot lose answers of this process.
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| self.failed(source))?;
        self.answers.insert(key, answer);
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// The key of a request to a model.
pub(crate) fn key(identity: &str, request: &str) -> String {
    let digest = Sha256::digest(format!("{}:{identity} {request}", identity.len()));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_other_content_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for text in [
            "first line\nlast line without an end",
            "{\"dataset\": \"in one line\"}",
            "3\n",
            "{\"key\": 1, \"answer\": 2}\n",
            "[]\n",
            "\n\nnotes",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = AnswerStore::open(&path).unwrap_err().to_string();
            assert!(error.contains("is not an answer"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
