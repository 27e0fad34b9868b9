//! A file of preferences as training examples.

use std::path::Path;

use ft_core::Tokenizer;

use crate::in_parallel::in_parallel;
use crate::split::split;
use crate::tokenize::tokenize_whole;
use crate::{
    Batch, Error, Loader, PreferenceReport, PreferenceSample, Result, Tokenized, collate_padded,
    read_rows,
};

/// A prompt with two answers. Both have the prompt's tokens, and labels where their answers are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceExample {
    /// With the preferred answer.
    pub chosen: Tokenized,
    /// With the other answer.
    pub rejected: Tokenized,
    /// Log-probabilities of both answers under a reference model; none unless they were computed.
    pub reference_logps: Option<[f32; 2]>,
    /// By how much the score of the preferred answer should be above that of the other one, for reward models.
    pub margin: f32,
}

/// Pairs as rows of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PreferenceBatch {
    /// The rows with the preferred answers, then as many with the others, padded on the right.
    pub rows: Batch,
    /// The margin of each pair.
    pub margins: Vec<f32>,
}

/// Examples for preference methods.
#[derive(Clone, Debug, Default)]
pub struct PreferenceDataset {
    /// The examples, in the order of the file.
    pub examples: Vec<PreferenceExample>,
    /// How many rows were read, kept and dropped.
    pub report: PreferenceReport,
}

impl PreferenceDataset {
    /// Reads a JSON or JSONL file of [`PreferenceSample`]s and tokenizes it.
    ///
    /// A row whose prompt with an answer has more than `max_len` tokens is dropped, since an answer that is cut off has no
    /// end to learn. Rows with twice the same answer are dropped, too. Both are counted in the [report](PreferenceReport).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row does not have the columns, the file has no rows, or no row is left.
    pub fn load(path: impl AsRef<Path>, tokenizer: &Tokenizer, max_len: usize) -> Result<Self> {
        let path = path.as_ref();
        let rows = read_rows(path)?;
        let samples = (rows.iter().enumerate())
            .map(|(index, row)| PreferenceSample::parse(row, index + 1))
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
        samples: &[PreferenceSample],
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::Dataset("the dataset is empty".to_string()));
        }
        let pairs = in_parallel(samples, |sample| {
            let side = |sample| tokenize_whole(sample, tokenizer).map(|whole| whole.example);
            Ok(PreferenceExample {
                chosen: side(&sample.chosen)?,
                rejected: side(&sample.rejected)?,
                reference_logps: None,
                margin: sample.margin,
            })
        })?;
        let mut report = PreferenceReport {
            rows: samples.len(),
            ..PreferenceReport::default()
        };
        let mut examples = Vec::with_capacity(samples.len());
        for pair in pairs {
            let sides = [&pair.chosen, &pair.rejected];
            if pair.chosen == pair.rejected {
                report.ties += 1;
            } else if sides.iter().any(|side| side.label_count() == 0) {
                report.empty += 1;
            } else if sides.iter().any(|side| side.len() > max_len) {
                report.too_long += 1;
            } else {
                examples.push(pair);
            }
        }
        if examples.is_empty() {
            return Err(Error::Dataset(format!(
                "no row is left of {}: {} are longer than {max_len} tokens (raise the maximum length), {} have twice the \
                 same answer, {} have an empty answer",
                report.rows, report.too_long, report.ties, report.empty
            )));
        }
        Ok(Self::counted(examples, report))
    }

    /// A dataset of examples that are tokenized already. They are not checked.
    pub fn from_examples(examples: Vec<PreferenceExample>) -> Self {
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

    /// The [fingerprint](crate::fingerprint()) of all token ids, labels and margins, in order.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(self.examples.iter().flat_map(|pair| {
            let sides = [&pair.chosen, &pair.rejected].into_iter().flat_map(|side| {
                let ids = side.input_ids.iter().map(|&id| i64::from(id));
                std::iter::once(side.len() as i64)
                    .chain(ids)
                    .chain(side.labels.iter().copied())
            });
            let margin = Some(pair.margin).filter(|&margin| margin != 0.0);
            sides.chain(margin.map(|margin| i64::from(margin.to_bits())))
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

    /// Batches of `batch_size` pairs, whose rows are padded to the longest.
    ///
    /// # Errors
    ///
    /// If there are no examples or the batch size is 0.
    pub fn into_batches(
        self,
        batch_size: usize,
        shuffle_seed: Option<u64>,
        pad_id: u32,
    ) -> Result<Loader<PreferenceExample, PreferenceBatch>> {
        Loader::new(self.examples, batch_size, shuffle_seed, move |pairs| {
            let chosen = pairs.iter().map(|pair| &pair.chosen);
            let rejected = pairs.iter().map(|pair| &pair.rejected);
            PreferenceBatch {
                rows: collate_padded(&chosen.chain(rejected).collect::<Vec<_>>(), 1, pad_id),
                margins: pairs.iter().map(|pair| pair.margin).collect(),
            }
        })
    }

    fn counted(examples: Vec<PreferenceExample>, report: PreferenceReport) -> Self {
        let sides = || {
            examples
                .iter()
                .flat_map(|pair| [&pair.chosen, &pair.rejected])
        };
        Self {
            report: PreferenceReport {
                kept: examples.len(),
                tokens: sides().map(Tokenized::len).sum(),
                answer_tokens: sides().map(Tokenized::label_count).sum(),
                ..report
            },
            examples,
        }
    }
}
