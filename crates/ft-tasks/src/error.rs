//! What can go wrong with models, data and inputs.

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
    /// A measure cannot be computed.
    #[error(transparent)]
    Eval(#[from] ft_eval::Error),
    /// An input or a setting that makes no sense.
    #[error("{0}")]
    Input(String),
}
