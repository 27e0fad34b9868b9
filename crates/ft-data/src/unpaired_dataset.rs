//! A file of unpaired feedback as training examples.

use std::path::Path;

use ft_core::{IGNORE_INDEX, Tokenizer};

use crate::in_parallel::in_parallel;
use crate::split::split;
use crate::tokenize::tokenize_whole;
use crate::{Error, PreferenceReport, Result, Tokenized, UnpairedSample, read_rows};

/// A prompt with an answer, and whether the answer is desirable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnpairedExample {
    /// The tokens, with labels where the answer is.
    pub tokens: Tokenized,
    /// Whether the answer is desirable.
    pub desirable: bool,
}

/// Examples for methods of unpaired feedback.
#[derive(Clone, Debug, Default)]
pub struct UnpairedDataset {
    /// The examples, in the order of the file.
    pub examples: Vec<UnpairedExample>,
    /// How many rows were read, kept and dropped.
    pub report: PreferenceReport,
}

impl UnpairedDataset {
    /// Reads a JSON or JSONL file of [`UnpairedSample`]s and tokenizes it. Rows of more than `max_len` tokens are dropped, since
    /// an answer that is cut off has no end to learn, and counted in the [report](PreferenceReport).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row does not have the columns, the file has no rows, or no row is left.
    pub fn load(path: impl AsRef<Path>, tokenizer: &Tokenizer, max_len: usize) -> Result<Self> {
        let path = path.as_ref();
        let rows = read_rows(path)?;
        let samples = (rows.iter().enumerate())
            .map(|(index, row)| UnpairedSample::parse(row, index + 1))
            .collect::<Result<Vec<_>>>();
        samples
            .and_then(|samples| Self::from_samples(&samples, tokenizer, max_len))
            .map_err(|error| error.in_file(path))
    }

    /// Tokenizes samples, as [`load`](Self::load) does.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the message names the row but no file.
    pub fn from_samples(
        samples: &[UnpairedSample],
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        let tokens = in_parallel(samples, |row| {
            Ok(tokenize_whole(&row.sample, tokenizer)?.example)
        })?;
        let mut report = PreferenceReport {
            rows: samples.len(),
            ..PreferenceReport::default()
        };
        let mut examples = Vec::with_capacity(samples.len());
        for (tokens, sample) in tokens.into_iter().zip(samples) {
            if tokens.label_count() == 0 {
                report.empty += 1;
            } else if tokens.len() > max_len {
                report.too_long += 1;
            } else {
                let desirable = sample.desirable;
                examples.push(UnpairedExample { tokens, desirable });
            }
        }
        if examples.is_empty() {
            return Err(Error::Dataset(format!(
                "no row is left of {}: {} are longer than {max_len} tokens (raise the maximum length), {} have an empty \
                 answer",
                report.rows, report.too_long, report.empty
            )));
        }
        Ok(Self::counted(examples, report))
    }

    /// A dataset of examples that are tokenized already. They are not checked.
    pub fn from_examples(examples: Vec<UnpairedExample>) -> Self {
        let report = PreferenceReport {
            rows: examples.len(),
            ..PreferenceReport::default()
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

    /// How many answers are desirable, and how many are not. KTO's weights should make up for a large difference.
    pub fn counts(&self) -> (usize, usize) {
        let desirable = self
            .examples
            .iter()
            .filter(|example| example.desirable)
            .count();
        (desirable, self.len() - desirable)
    }

    /// The [fingerprint](crate::fingerprint()) of all token ids, labels and judgements, in order.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(self.examples.iter().flat_map(|example| {
            let ids = example.tokens.input_ids.iter().map(|&id| i64::from(id));
            [example.tokens.len() as i64, i64::from(example.desirable)]
                .into_iter()
                .chain(ids)
                .chain(example.tokens.labels.iter().copied())
        }))
    }

    /// Splits the examples at random into `(train, eval)`. The same seed gives the same split.
    ///
    /// # Errors
    ///
    /// If the fraction is not in `[0, 1)`, or nothing would be left to train on.
    pub fn split(self, eval_fraction: f64, seed: u64) -> Result<(Self, Self)> {
        let (train, eval) = split(self.examples, eval_fraction, seed)?;
        Ok((Self::from_examples(train), Self::from_examples(eval)))
    }

    fn counted(examples: Vec<UnpairedExample>, report: PreferenceReport) -> Self {
        let tokens = || examples.iter().map(|example| &example.tokens);
        Self {
            report: PreferenceReport {
                kept: examples.len(),
                tokens: tokens().map(Tokenized::len).sum(),
                answer_tokens: tokens().map(Tokenized::label_count).sum(),
                ..report
            },
            examples,
        }
    }
}

impl UnpairedExample {
    /// The tokens of the prompt.
    pub fn prompt(&self) -> &[u32] {
        let mut labels = self.tokens.labels.iter();
        let answer = labels.position(|&label| label != IGNORE_INDEX);
        &self.tokens.input_ids[..answer.unwrap_or(self.tokens.len())]
    }

    /// The prompt with the answer of another example, for the estimate of KTO's KL divergence.
    #[must_use]
    pub fn mismatched(&self, other: &Self) -> Tokenized {
        let (prompt, answer) = (&self.tokens, &other.tokens);
        let (prompt_end, answer_start) = (self.prompt().len(), other.prompt().len());
        Tokenized {
            input_ids: [
                &prompt.input_ids[..prompt_end],
                &answer.input_ids[answer_start..],
            ]
            .concat(),
            labels: [&prompt.labels[..prompt_end], &answer.labels[answer_start..]].concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatched_pair_has_the_prompt_of_one_and_the_answer_of_the_other() {
        let example = |prompt: &[u32], answer: &[u32]| UnpairedExample {
            tokens: Tokenized {
                input_ids: [prompt, answer].concat(),
                labels: (prompt.iter().map(|_| IGNORE_INDEX))
                    .chain(answer.iter().map(|&id| i64::from(id)))
                    .collect(),
            },
            desirable: true,
        };
        let found = example(&[1, 2], &[3]).mismatched(&example(&[4], &[5, 6]));
        assert_eq!(found.input_ids, [1, 2, 5, 6]);
        assert_eq!(found.labels, [-100, -100, 5, 6]);
    }
}
