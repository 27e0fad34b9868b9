//! What can go wrong with adapters.

use std::path::PathBuf;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written, or is not what it should be.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
    /// The settings of an adapter make no sense; all mistakes at once.
    #[error("LoRA settings: {0}")]
    Settings(String),
    /// No layer of the model is meant by the targets.
    #[error("target_modules {targets} match no linear layer; the model has: {available}")]
    NoTarget {
        /// The targets that were given.
        targets: String,
        /// Last parts of the names of the model's layers.
        available: String,
    },
    /// An adapter of this name is there, or is not there.
    #[error("{0}")]
    Name(String),
    /// A new adapter would stand on one that is switched on.
    #[error(
        "adapter {0:?} is active: a new adapter would be trained on top of it and be of use only \
         together with it. Call merge_and_unload to build on it, or set_active(model, &[]) to train \
         beside it; set_active afterwards can switch on both"
    )]
    Stacked(String),
    /// The factors in the file do not fit the model.
    #[error("{}: the adapter does not fit the model{detail}", path.display())]
    Factors {
        /// The file.
        path: PathBuf,
        /// Missing, left-over and misshapen keys.
        detail: String,
    },
    /// Merging would leave a weight that is not finite.
    #[error(
        "merging adapter {adapter:?} into {layer} gives numbers that are not finite; the adapter is broken"
    )]
    NotFinite {
        /// The adapter.
        adapter: String,
        /// The layer.
        layer: String,
    },
}
