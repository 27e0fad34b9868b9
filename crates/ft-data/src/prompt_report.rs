//! Counts of rows of prompts.

use std::fmt;

/// Counts from loading prompts. Show them before training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PromptReport {
    /// Rows that were read.
    pub rows: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Rows that were dropped because the prompt is longer than the maximum length.
    pub too_long: usize,
    /// Rows that were dropped because the prompt is an empty text.
    pub empty: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Tokens of the longest example.
    pub longest: usize,
}

impl fmt::Display for PromptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} prompts, {} tokens, {} in the longest",
            self.kept, self.rows, self.tokens, self.longest
        )?;
        for (count, why) in [
            (self.too_long, "that are too long"),
            (self.empty, "that are empty"),
        ] {
            if count > 0 {
                write!(f, "; {count} dropped {why}")?;
            }
        }
        Ok(())
    }
}
