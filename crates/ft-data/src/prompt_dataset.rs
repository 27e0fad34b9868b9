//! A file of prompts as token ids.

use std::path::Path;

use ft_core::Tokenizer;

use crate::in_parallel::in_parallel;
use crate::prompt::check_open;
use crate::sample::check_roles;
use crate::split::split;
use crate::{Error, Prompt, PromptReport, PromptSample, Result, read_rows};

/// A prompt with its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptExample {
    /// The tokens that the model continues.
    pub input_ids: Vec<u32>,
    /// The prompt and the row's other columns.
    pub sample: PromptSample,
}

/// Prompts for methods that sample their own answers.
#[derive(Clone, Debug, Default)]
pub struct PromptDataset {
    /// The prompts, in the order of the file.
    pub examples: Vec<PromptExample>,
    /// How many rows were read, kept and dropped.
    pub report: PromptReport,
}

impl PromptDataset {
    /// Reads a JSON or JSONL file of [`PromptSample`]s and tokenizes it.
    ///
    /// Messages are rendered with the tokenizer's chat template up to where the answer begins. Plain text is encoded as it
    /// is, with the special tokens that the tokenizer puts in front, such as `<s>`, and without those that it puts behind.
    ///
    /// A prompt of more than `max_prompt_len` tokens is dropped and not cut, since its end is what the model is asked.
    /// Empty texts are dropped, too. Both are counted in the [report](PromptReport).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row does not have the columns, messages have no chat template, a role that is not known
    /// or an answer at their end, the file has no rows, or no row is left.
    pub fn load(
        path: impl AsRef<Path>,
        tokenizer: &Tokenizer,
        max_prompt_len: usize,
    ) -> Result<Self> {
        let path = path.as_ref();
        let rows = read_rows(path)?;
        let samples = (rows.iter().enumerate())
            .map(|(index, row)| PromptSample::parse(row, index + 1))
            .collect::<Result<Vec<_>>>();
        samples
            .and_then(|samples| Self::from_samples(samples, tokenizer, max_prompt_len))
            .map_err(|error| error.in_file(path))
    }

    /// Tokenizes samples, as [`load`](Self::load) does.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the message names the row but no file.
    pub fn from_samples(
        samples: Vec<PromptSample>,
        tokenizer: &Tokenizer,
        max_prompt_len: usize,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::Dataset("the dataset is empty".to_string()));
        }
        let mut report = PromptReport {
            rows: samples.len(),
            ..PromptReport::default()
        };
        let encoded = in_parallel(&samples, |sample| encode(sample, tokenizer))?;
        let mut examples = Vec::with_capacity(samples.len());
        for (sample, input_ids) in samples.into_iter().zip(encoded) {
            if input_ids.is_empty() {
                report.empty += 1;
            } else if input_ids.len() > max_prompt_len {
                report.too_long += 1;
            } else {
                examples.push(PromptExample { input_ids, sample });
            }
        }
        if examples.is_empty() {
            return Err(Error::Dataset(format!(
                "no prompt is left of {}: {} are longer than {max_prompt_len} tokens (raise the maximum length), {} are \
                 empty",
                report.rows, report.too_long, report.empty
            )));
        }
        Ok(Self::counted(examples, report))
    }

    /// A dataset of examples that are tokenized already. They are not checked.
    pub fn from_examples(examples: Vec<PromptExample>) -> Self {
        let report = PromptReport {
            rows: examples.len(),
            ..PromptReport::default()
        };
        Self::counted(examples, report)
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// The [fingerprint](crate::fingerprint()) of all token ids and columns, in order.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(self.examples.iter().flat_map(|example| {
            let columns = serde_json::to_vec(&example.sample.columns).unwrap_or_default();
            let lengths = [example.input_ids.len() as i64, columns.len() as i64];
            let ids = example.input_ids.iter().map(|&id| i64::from(id));
            (lengths.into_iter().chain(ids)).chain(columns.into_iter().map(i64::from))
        }))
    }

    /// Splits the examples at random into `(train, eval)`. The same seed gives the same split.
    ///
    /// The evaluation part has `eval_fraction` of the examples, rounded, and at least one unless the
    /// fraction is 0. Both parts keep the order of the file.
    ///
    /// # Errors
    ///
    /// If the fraction is not in `[0, 1)`, or nothing would be left to train on.
    pub fn split(self, eval_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (train, eval) = split(self.examples, eval_fraction, seed)?;
        Ok((Self::from_examples(train), Self::from_examples(eval)))
    }

    fn counted(examples: Vec<PromptExample>, report: PromptReport) -> Self {
        let lengths = || examples.iter().map(|example| example.input_ids.len());
        Self {
            report: PromptReport {
                kept: examples.len(),
                tokens: lengths().sum(),
                longest: lengths().max().unwrap_or(0),
                ..report
            },
            examples,
        }
    }
}

/// The tokens of a prompt; none for an empty text.
fn encode(sample: &PromptSample, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    match &sample.prompt {
        Prompt::Text(text) if text.is_empty() => Ok(Vec::new()),
        Prompt::Text(text) => {
            let (mut ids, offsets) = tokenizer.encode_with_offsets(text, true)?;
            // A special token without a range was added. One behind the text, such as `[SEP]`, would end it.
            let added = |&(&id, &(start, end)): &(&u32, &(usize, usize))| {
                start == end && tokenizer.is_special(id)
            };
            let behind = ids.iter().zip(&offsets).rev().take_while(added).count();
            ids.truncate(ids.len() - behind);
            Ok(ids)
        }
        Prompt::Messages(messages) => {
            check_roles(messages)?;
            check_open(messages)?;
            let text = tokenizer.apply_chat_template(messages, sample.tools.as_deref(), true)?;
            Ok(tokenizer.encode(&text, false)?)
        }
    }
}
