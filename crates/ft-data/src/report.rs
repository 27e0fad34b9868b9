//! Counts of the rows that were read, kept, truncated and dropped.

use std::collections::BTreeMap;
use std::fmt;

use ft_core::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::tokenize::Whole;
use crate::{Error, Result, Tokenized};

/// Counts from loading a dataset. Show them before training.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

impl DatasetReport {
    /// A row, of whose assistant messages `masked` are masked, cut after `max_len` tokens, and the report of this row alone. There is
    /// no example if nothing is left to learn.
    pub(crate) fn of_row(
        whole: Whole,
        masked: usize,
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> (Option<Tokenized>, Self) {
        let mut report = Self {
            rows: 1,
            masked_messages: masked,
            reasoning_left_out: whole.reasoning_left_out,
            ..Self::default()
        };
        for missing in whole.missing_prompts {
            *report.missing_prompts.entry(missing).or_default() += 1;
        }
        let mut example = whole.example;
        for position in whole.stops {
            let id = example.input_ids[position];
            let name = tokenizer.id_to_token(id).unwrap_or_else(|| id.to_string());
            *report.stop_tokens.entry(name).or_default() += usize::from(position < max_len);
        }
        report.truncated = usize::from(example.truncate(max_len));
        report.label_tokens = example.label_count();
        if report.label_tokens == 0 {
            report.dropped_all_masked = 1;
            return (None, report);
        }
        (report.kept, report.tokens) = (1, example.len());
        (Some(example), report)
    }

    /// With the counts of more rows.
    pub(crate) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.kept += other.kept;
        self.truncated += other.truncated;
        self.dropped_all_masked += other.dropped_all_masked;
        self.masked_messages += other.masked_messages;
        self.tokens += other.tokens;
        self.label_tokens += other.label_tokens;
        self.reasoning_left_out += other.reasoning_left_out;
        for (token, count) in other.stop_tokens {
            *self.stop_tokens.entry(token).or_default() += count;
        }
        for (missing, count) in other.missing_prompts {
            *self.missing_prompts.entry(missing).or_default() += count;
        }
    }

    /// Checks that a stop token has a label somewhere, and notes whether it is the tokenizer's eos token.
    pub(crate) fn check_stops(&mut self, tokenizer: &Tokenizer, max_len: usize) -> Result<()> {
        let learnt = |token: &str| self.stop_tokens.get(token).is_some_and(|&count| count > 0);
        if self.stop_tokens.is_empty() {
            let eos = tokenizer.eos_token().unwrap_or("none");
            return Err(Error::Dataset(format!(
                "no stop token ever receives loss, so the model would not learn to end its answers: the chat \
                 template closes the assistant's turns with no special token (the tokenizer's eos token: \
                 {eos}); let the template end them with eos_token"
            )));
        }
        if !self.stop_tokens.keys().any(|token| learnt(token)) {
            let names: Vec<&str> = self.stop_tokens.keys().map(String::as_str).collect();
            return Err(Error::Dataset(format!(
                "the stop token {} never receives loss, so the model would not learn to end its answers: with \
                 at most {max_len} tokens a row it is cut off everywhere ({} of {} rows were truncated); raise \
                 the maximum length",
                names.join(", "),
                self.truncated,
                self.rows
            )));
        }
        let eos = tokenizer.eos_token().filter(|eos| !learnt(eos));
        self.unlearnt_eos = eos.map(str::to_string);
        Ok(())
    }
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
