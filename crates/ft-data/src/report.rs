//! Counts of the rows that were read, kept, truncated and dropped.

use std::collections::BTreeMap;
use std::fmt;

/// Counts from loading a dataset. Show them before training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatasetReport {
    /// Rows that were read.
    pub rows: usize,
    /// Rows that became examples.
    pub kept: usize,
    /// Rows that were truncated to the maximum length.
    pub truncated: usize,
    /// Rows that were dropped because they have no labels, at all or after truncation.
    pub dropped_all_masked: usize,
    /// Assistant messages that are not learnt: those of a prompt, and those with `weight` 0 or `train`
    /// false.
    pub masked_messages: usize,
    /// Tokens of the examples.
    pub tokens: usize,
    /// Tokens that receive loss.
    pub label_tokens: usize,
    /// The tokens that end responses, and how often each has a label.
    pub stop_tokens: BTreeMap<String, usize>,
    /// The tokenizer's eos token, if all responses end with other tokens.
    pub unlearnt_eos: Option<String>,
    /// Ends of the generation prompt that rendered conversations do not have before a response, and how many
    /// responses lack them.
    pub missing_prompts: BTreeMap<String, usize>,
    /// Responses whose reasoning the chat template does not render.
    pub reasoning_left_out: usize,
}

impl fmt::Display for DatasetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} rows, {} tokens, {} of them learnt ({:.1}%)",
            self.kept,
            self.rows,
            self.tokens,
            self.label_tokens,
            100.0 * self.label_tokens as f64 / self.tokens.max(1) as f64,
        )?;
        if self.truncated > 0 {
            write!(f, "; {} truncated", self.truncated)?;
        }
        if self.dropped_all_masked > 0 {
            write!(
                f,
                "; {} dropped with nothing left to learn",
                self.dropped_all_masked
            )?;
        }
        if self.masked_messages > 0 {
            let plural = if self.masked_messages == 1 { "" } else { "s" };
            write!(
                f,
                "; {} assistant message{plural} masked by the data",
                self.masked_messages
            )?;
        }
        for (token, count) in &self.stop_tokens {
            write!(f, "; stop token {token} learnt {count} times")?;
        }
        if let Some(eos) = &self.unlearnt_eos {
            write!(
                f,
                "; the tokenizer's eos token {eos} ends no response: stop generation at the token above"
            )?;
        }
        for (missing, count) in &self.missing_prompts {
            write!(
                f,
                "; {count} responses are learnt without {missing:?}, which ends the generation prompt: generate \
                 without it, or use a chat template that keeps the reasoning"
            )?;
        }
        if self.reasoning_left_out > 0 {
            write!(
                f,
                "; the chat template leaves out the reasoning of {} responses, so it is not learnt",
                self.reasoning_left_out
            )?;
        }
        Ok(())
    }
}
