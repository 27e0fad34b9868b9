//! What can go wrong with settings, references and data.

use std::path::PathBuf;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message says what is wrong and how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not make sense, all of them at once.
    #[error("the settings have mistakes:\n  - {}", .0.join("\n  - "))]
    Settings(Vec<String>),
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
    /// The reference policy does not fit the policy or the data; the message says what to do.
    #[error("{0}")]
    Reference(String),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] ft_data::Error),
    /// A model or a file cannot be used.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Settings of a reward that do not make sense.
    #[error("the reward `{reward}`: {reason}")]
    Reward {
        /// The name of the reward.
        reward: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A file with rewards cannot be read.
    #[error("{}: {reason}", path.display())]
    RewardFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A reward was wanted of a model that gives several scores to a sequence, or of a sequence without tokens.
    #[error("{0}")]
    RewardModel(String),
    /// A number after a name cannot be read or is out of range.
    #[error("`{text}`: {reason}")]
    Number {
        /// The text with the number.
        text: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
}

impl Error {
    /// A set of completions has several updates, which gradient accumulation would put into one.
    pub(crate) fn one_update_each(updates: usize) -> Self {
        Self::Settings(vec![format!(
            "a set of completions has {updates} batches, each for an update of its own, but gradient accumulation puts \
             several into one update: set gradient_accumulation_steps to 1, and sample more prompts together"
        )])
    }

    /// What is wrong with a reward, without its name.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Reward { reason, .. } => reason,
            other => other.to_string(),
        }
    }
}
