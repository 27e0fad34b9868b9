//! What can go wrong with settings, teachers and their files.

use std::path::PathBuf;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message says what is wrong and how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not make sense, all of them at once.
    #[error("the settings of the distillation have mistakes:\n  - {}", .0.join("\n  - "))]
    Settings(Vec<String>),
    /// Teacher and student do not fit; the message says what to do.
    #[error("{0}")]
    Teacher(String),
    /// A file of a teacher's likeliest tokens cannot be used.
    #[error("{}: {reason}", path.display())]
    TopLogits {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] ft_data::Error),
    /// A training or an evaluation failed.
    #[error(transparent)]
    Train(#[from] ft_train::Error),
    /// A model or a file cannot be used.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
}
