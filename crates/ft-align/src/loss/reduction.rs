//! From terms of tokens to the loss of a batch.

use std::fmt;

use burn::tensor::Tensor;

use super::row_logps::{masked, per_token, row_sums};

/// How terms of tokens are averaged. `x` are the terms, `m` the mask.
///
/// A row without tokens has the term 0, and counts as a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduction {
    /// Mean over rows of `Σ m·x / max(Σ m, 1)`: each completion counts equally. Equation 3 of Shao et al., 2024
    /// (arXiv:2402.03300). GSPO and SAPO use it too.
    Grpo,
    /// `Σ m·x / max(Σ m, 1)` over the batch: each token counts equally. It is the mean over tokens, of an entropy for
    /// example.
    Bnpo,
    /// `Σ m·x / (rows · length)`: no completion's length has an effect. Liu et al., 2025
    /// (arXiv:2503.20783).
    DrGrpo {
        /// The largest number of tokens of a completion.
        max_completion_length: usize,
    },
    /// `Σ m·x / max(tokens, 1)`: each token of an update counts equally, however the update is split. Equation 12 of Yu
    /// et al., 2025 (arXiv:2503.14476). CISPO uses it too.
    Dapo {
        /// Counted tokens of all batches of the update.
        tokens: usize,
    },
}

impl Reduction {
    /// The loss, `[1]`.
    ///
    /// # Shapes
    ///
    /// - `terms`: `[rows, tokens]`, or `[rows, 1]` if all tokens of a row have the same
    /// - `mask`: `[rows, tokens]`
    pub fn reduce(self, terms: Tensor<2>, mask: &Tensor<2>) -> Tensor<1> {
        let [rows, _] = mask.dims();
        let terms = masked(terms.expand(mask.dims()), mask);
        match self {
            Self::Grpo => per_token(row_sums(terms), row_sums(mask.clone())).mean(),
            Self::Bnpo => terms.sum() / mask.clone().sum().clamp_min(1.0),
            Self::DrGrpo {
                max_completion_length,
            } => terms.sum() / (rows * max_completion_length) as f64,
            Self::Dapo { tokens } => terms.sum() / tokens.max(1) as f64,
        }
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpo => "grpo",
            Self::Bnpo => "bnpo",
            Self::DrGrpo { .. } => "dr_grpo",
            Self::Dapo { .. } => "dapo",
        })
    }
}
