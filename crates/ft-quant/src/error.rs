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
    /// What is wrong with one layer.
    #[error("{path}: {source}")]
    Layer {
        /// Its path.
        path: String,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A weight with a number that is infinite or none.
    #[error(
        "row {row}, column {col} of the weight is {number}: the weight is damaged, or was trained with too large a rate"
    )]
    Weight {
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        col: usize,
        /// The number.
        number: f32,
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

impl Error {
    /// The same as an error of the layer `path`.
    pub(crate) fn in_layer(self, path: &str) -> Self {
        Self::Layer {
            path: path.to_string(),
            source: Box::new(self),
        }
    }
}

/// # Errors
///
/// [`Error::Weight`] with the first number of a weight `[rows, cols]` that is not finite.
pub(crate) fn check_finite(weight: &[f32], cols: usize) -> Result<()> {
    match weight.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(place) => Err(Error::Weight {
            row: place / cols,
            col: place % cols,
            number: weight[place],
        }),
    }
}
