//! What can go wrong with what comes from outside: texts, labels, files, tasks, servers.

use std::path::PathBuf;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message names what it is about, and the mend where one is known.
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
    /// A file was read, but what it says cannot be used.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        reason: String,
    },
    /// What was given cannot be measured: lists of different lengths, nothing at all.
    #[error("{0}")]
    Input(String),
    /// Settings that do not make sense, all of them at once.
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
    /// A model could not do what it was asked for.
    #[error("{0}")]
    Model(String),
}
