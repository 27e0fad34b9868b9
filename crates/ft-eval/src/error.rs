//! Errors caused by input: texts, labels, files, tasks, servers.

use std::path::PathBuf;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message names the cause and, where it is known, the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file was read, but its content cannot be used.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        reason: String,
    },
    /// The input cannot be measured: lists are empty or have different lengths.
    #[error("{0}")]
    Input(String),
    /// The settings are invalid. The message lists all mistakes.
    #[error("{0}")]
    Settings(String),
    /// A benchmark's description, its data or its template cannot be used.
    #[error("task {task}: {reason}")]
    Task {
        /// The task's name.
        task: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A model failed to answer a request.
    #[error("{0}")]
    Model(String),
}
