//! What can go wrong with what comes from outside: files, keys, settings, the network.

use std::path::{Path, PathBuf};

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this crate. Each message names the file, key or setting, and how to fix it where that is known.
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
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A checkpoint does not fit the model that its configuration describes.
    #[error("{}: the weights do not fit the model of its config.json{}", path.display(), mismatch(missing, unexpected, misshapen))]
    Keys {
        /// The checkpoint.
        path: PathBuf,
        /// Keys that the model needs and the checkpoint lacks.
        missing: Vec<String>,
        /// Keys of the checkpoint that the model has no place for.
        unexpected: Vec<String>,
        /// Keys whose shapes differ, with both shapes.
        misshapen: Vec<String>,
    },
    /// A number that is not finite, or would not be in the type of the file. Nothing was written.
    #[error("{tensor} holds {value}, {reason}")]
    NotFinite {
        /// Which tensor.
        tensor: String,
        /// The first such number.
        value: f32,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// The chat template is missing, does not parse, or raised an exception.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// The tokenizer refused its input.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A model could not be fetched from the hub.
    #[error("{0}")]
    Hub(String),
    /// Settings that do not make sense, all of them at once.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// For `map_err` on a read of `path`.
    pub fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err` on a write of `path`.
    pub fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write {
            path: path.to_path_buf(),
            source,
        }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(path: &Path, reason: impl Into<String>) -> Self {
        Self::Invalid {
            path: path.to_path_buf(),
            reason: reason.into(),
        }
    }
}

/// Lists what does not fit, a line a kind, at most a dozen names each.
fn mismatch(missing: &[String], unexpected: &[String], misshapen: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    for (what, names) in [
        ("missing", missing),
        ("left over", unexpected),
        ("of another shape", misshapen),
    ] {
        if names.is_empty() {
            continue;
        }
        text.push_str(&format!("\n  {what} ({}): ", names.len()));
        text.push_str(&names[..names.len().min(SHOWN)].join(", "));
        if names.len() > SHOWN {
            text.push_str(", ...");
        }
    }
    text
}
