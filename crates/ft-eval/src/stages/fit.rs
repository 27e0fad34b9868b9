//! The fit of a model to texts.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

/// A text's log-probability and its size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextFit {
    /// Natural log-probability of the whole text.
    pub logp: f64,
    /// The number of UTF-8 bytes.
    pub bytes: usize,
    /// The number of words, separated by white space.
    pub words: usize,
}

impl TextFit {
    /// The fit of a text with this log-probability.
    pub fn new(text: &str, logp: f64) -> Self {
        Self {
            logp,
            bytes: text.len(),
            words: text.split_whitespace().count(),
        }
    }
}

/// `−Σ log p / (ln 2 · Σ bytes)`: comparable between models with different tokenizers. NaN if there are no bytes.
pub fn bits_per_byte(fits: &[TextFit]) -> f64 {
    let (logp, bytes) = sums(fits, |fit| fit.bytes);
    -logp / (LN_2 * bytes as f64)
}

/// `exp(−Σ log p / Σ words)`. NaN if there are no words.
pub fn word_perplexity(fits: &[TextFit]) -> f64 {
    let (logp, words) = sums(fits, |fit| fit.words);
    (-logp / words as f64).exp()
}

fn sums(fits: &[TextFit], size: impl Fn(&TextFit) -> usize) -> (f64, usize) {
    let logp = fits.iter().map(|fit| fit.logp).sum();
    (logp, fits.iter().map(size).sum())
}
