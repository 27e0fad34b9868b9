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
    /// The settings of an adapter are wrong; the message lists all mistakes.
    #[error("adapter settings: {0}")]
    Settings(String),
    /// No layer of the model matches what the settings name.
    #[error("{setting} ({targets}): no layer matches; there are: {available}")]
    NoTarget {
        /// Which setting.
        setting: &'static str,
        /// The names or pattern that match nothing.
        targets: String,
        /// Last parts of the names of the layers to choose from.
        available: String,
    },
    /// An adapter of this name exists already, or does not exist.
    #[error("{0}")]
    Name(String),
    /// A new adapter would be trained on top of one that is active.
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
    /// The adapter needs an output layer of its own, and that of the model is the embedding.
    #[error(
        "{}: the adapter {reason}, but the model's {layer} is its embedding: set \"tie_word_embeddings\": false in \
         the model's config.json and store a copy of the embedding as {layer}.weight",
        path.display()
    )]
    Tied {
        /// The file.
        path: PathBuf,
        /// The path of the output layer.
        layer: &'static str,
        /// What in the adapter needs it.
        reason: String,
    },
    /// An adapter is no change of a weight.
    #[error(
        "adapter {adapter:?} on {layer} is no change of the weight and cannot be merged: keep it as an adapter, or call \
         unload to remove it"
    )]
    NotMergeable {
        /// The layer.
        layer: String,
        /// The adapter.
        adapter: String,
    },
    /// Merging into an embedding would change the output layer, which is the same table.
    #[error(
        "merging adapter {adapter:?} into {layer} is refused: the output layer is the same table and would change too. Keep \
         it as an adapter, or set \"tie_word_embeddings\": false in the model's config.json and store a copy of the \
         embedding as {output}.weight"
    )]
    TiedMerge {
        /// The embedding.
        layer: String,
        /// The adapter.
        adapter: String,
        /// The path of the output layer.
        output: &'static str,
    },
    /// Merging would leave a weight that is not finite.
    #[error("merging into {layer} is refused: {culprit} has numbers that are not finite")]
    NotFinite {
        /// The layer.
        layer: String,
        /// The base weight, the adapter, or their sum.
        culprit: String,
    },
}
