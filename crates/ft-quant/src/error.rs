//! What can go wrong.

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Files and models.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
    /// Settings that do not make sense, or do not fit the model.
    #[error("{0}")]
    Settings(String),
    /// A tensor has numbers that cannot be quantized.
    #[error(
        "{tensor}: {source}; the weights are damaged, or of a model that is not meant for few bits"
    )]
    Numbers {
        /// Which tensor.
        tensor: String,
        /// Which number.
        source: ft_kernels::EncodeError,
    },
}
