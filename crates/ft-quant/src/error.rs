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
    /// Second moments of a layer's inputs that have an infinite number or none.
    #[error(
        "the second moments of a layer's inputs are not finite: an activation overflows, or the calibration text has no tokens"
    )]
    NotFinite,
    /// Second moments whose Cholesky factor does not exist.
    #[error(
        "the second moments of {cols} input columns are not positive definite with any damping: they are not mean x·xᵀ of inputs, \
         or not symmetric"
    )]
    NotPositiveDefinite {
        /// The number of input columns.
        cols: usize,
    },
}
