//! Errors of reading, tokenizing and batching data.

use std::path::{Path, PathBuf};

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message names the file, line, row or column, and says how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file is not valid JSON or JSONL.
    #[error("{}: line {line}: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, and how to fix it.
        reason: String,
    },
    /// A row does not have the columns of its format, or cannot be tokenized.
    #[error("row {row}: {reason}")]
    Row {
        /// The row, counted from 1.
        row: usize,
        /// What is wrong, and how to fix it.
        reason: String,
    },
    /// A sample cannot become training data.
    #[error("{0}")]
    Sample(String),
    /// A dataset as a whole cannot be trained on.
    #[error("{0}")]
    Dataset(String),
    /// An error in a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: Box<Error>,
    },
    /// Invalid settings.
    #[error("{0}")]
    Settings(String),
    /// The tokenizer or the chat template refused its input.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
}

impl Error {
    /// For a file without rows.
    pub(crate) fn empty(path: &Path) -> Self {
        Self::Dataset("the dataset is empty: the file has no rows".to_string()).in_file(path)
    }

    /// The same error with the number of its row.
    pub(crate) fn in_row(self, row: usize) -> Self {
        match self {
            Self::Row { .. } => self,
            other => Self::Row {
                row,
                reason: other.to_string(),
            },
        }
    }

    /// The message without the number of the row.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Row { reason, .. } => reason,
            other => other.to_string(),
        }
    }

    /// The same error with the path of its file.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Read { .. } | Self::Json { .. } | Self::File { .. } => self,
            other => Self::File {
                path: path.to_path_buf(),
                source: Box::new(other),
            },
        }
    }
}
