//! Counts of rows of preference data.

use std::fmt;

/// Counts from loading preferences. Show them before training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferenceReport {
    /// Rows that were read.
    pub rows: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Rows that were dropped because both answers are the same.
    pub ties: usize,
    /// Rows that were dropped because a prompt with its answer is longer than the maximum length.
    pub too_long: usize,
    /// Rows that were dropped because an answer has no tokens.
    pub empty: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Tokens of the answers.
    pub answer_tokens: usize,
}

impl fmt::Display for PreferenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.answer_tokens as f64 / self.tokens.max(1) as f64;
        write!(
            f,
            "{} of {} rows, {} tokens, {} of them in answers ({share:.1}%)",
            self.kept, self.rows, self.tokens, self.answer_tokens
        )?;
        for (count, why) in [
            (self.ties, "with twice the same answer"),
            (self.too_long, "that are too long"),
            (self.empty, "with an empty answer"),
        ] {
            if count > 0 {
                write!(f, "; {count} dropped {why}")?;
            }
        }
        Ok(())
    }
}
