//! What can go wrong with models, data and settings.

use std::path::{Path, PathBuf};

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message says what is wrong and how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model, a tokenizer or a file of theirs cannot be used.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] ft_data::Error),
    /// Rankings cannot be measured, or the settings of a server cannot be used.
    #[error(transparent)]
    Evaluation(#[from] ft_eval::Error),
    /// A server gave no embeddings.
    #[error("{0}")]
    Server(String),
    /// A file was read, but what it says cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Settings that do not make sense.
    #[error("{0}")]
    Settings(String),
    /// Embeddings that do not fit each other, or are not finite.
    #[error("{0}")]
    Embeddings(String),
    /// A name that stands for nothing.
    #[error("there is no {kind} `{name}`: use {known}")]
    UnknownName {
        /// What it was to be a name of.
        kind: &'static str,
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
}

impl Error {
    /// An [`Error::File`].
    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}
