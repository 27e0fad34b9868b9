//! What can go wrong with the settings of a loss, and with what is scored.

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message says what is wrong and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not make sense, all of them at once.
    #[error("the settings of the loss have mistakes:\n  - {}", .0.join("\n  - "))]
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
    /// A reward was wanted of a model that gives several scores to a sequence, or of a sequence without tokens.
    #[error("{0}")]
    Reward(String),
    /// A number after a name cannot be read or is out of range.
    #[error("`{text}`: {reason}")]
    Number {
        /// The text with the number.
        text: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
}
