//! A file of samples as training examples.

use std::path::Path;

use ft_core::Tokenizer;

use crate::in_parallel::in_parallel;
use crate::split::split;
use crate::tokenize::{Whole, tokenize_whole};
use crate::{BadRows, DatasetReport, Error, Result, RowFormat, RowStream, Sample, Tokenized};

/// Examples for supervised fine-tuning.
#[derive(Clone, Debug, Default)]
pub struct SftDataset {
    /// The examples, in the order of the file.
    pub examples: Vec<Tokenized>,
    /// How many rows were read, kept, truncated and dropped.
    pub report: DatasetReport,
}

impl SftDataset {
    /// Reads a JSON or JSONL file, tokenizes it and labels its responses.
    ///
    /// Rows of more than `max_len` tokens are truncated. Rows that then have no labels are dropped.
    /// Both are counted in the [report](DatasetReport).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, a row does not have the columns of the format, the file has no
    /// rows, no row has labels, or the stop token has no label in any row.
    pub fn load(
        path: impl AsRef<Path>,
        format: impl Into<RowFormat>,
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        Self::load_with(path, format, tokenizer, max_len, &mut BadRows::default())
    }

    /// As [`load`](Self::load), but rows that cannot be used are left out, up to the share that `bad_rows` allows. They are then in
    /// it, with place and reason.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and if there are too many bad rows.
    pub fn load_with(
        path: impl AsRef<Path>,
        format: impl Into<RowFormat>,
        tokenizer: &Tokenizer,
        max_len: usize,
        bad_rows: &mut BadRows,
    ) -> Result<Self> {
        // Rows that are read at a time.
        const WINDOW: usize = 10_000;
        let (path, format) = (path.as_ref(), format.into());
        let mut stream = RowStream::open(path)?;
        let mut wholes = Vec::new();
        loop {
            // What one row needs: a sample that the chat template renders.
            let (read, made) = bad_rows.made(&mut stream, WINDOW, |row| {
                let sample = format.parse(row, 0)?;
                Ok((tokenize_whole(&sample, tokenizer)?, sample.masked_count()))
            })?;
            if read == 0 {
                break;
            }
            wholes.extend(made);
        }
        bad_rows.check()?;
        Self::from_wholes(wholes, tokenizer, max_len).map_err(|error| error.in_file(path))
    }

    /// The [fingerprint](crate::fingerprint) of all token ids and labels, in order.
    pub fn fingerprint(&self) -> String {
        crate::fingerprint(self.examples.iter().flat_map(|example| {
            let ids = example.input_ids.iter().map(|&id| i64::from(id));
            std::iter::once(example.len() as i64)
                .chain(ids)
                .chain(example.labels.iter().copied())
        }))
    }

    /// Tokenizes samples and labels their responses, as [`load`](Self::load) does.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); the message names the row but no file.
    pub fn from_samples(samples: &[Sample], tokenizer: &Tokenizer, max_len: usize) -> Result<Self> {
        let wholes = in_parallel(samples, |sample| {
            Ok((tokenize_whole(sample, tokenizer)?, sample.masked_count()))
        })?;
        Self::from_wholes(wholes, tokenizer, max_len)
    }

    /// Samples that are tokenized, each with how many of its messages are masked.
    fn from_wholes(
        wholes: Vec<(Whole, usize)>,
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        if max_len < 2 {
            return Err(Error::Settings(format!(
                "a maximum length of {max_len} leaves nothing to predict: make it 2 or more"
            )));
        }
        if wholes.is_empty() {
            return Err(Error::Dataset(
                "the dataset is empty: there are no rows".to_string(),
            ));
        }
        let mut report = DatasetReport::default();
        let mut examples = Vec::with_capacity(wholes.len());
        let mut responses = 0;
        for (whole, masked) in wholes {
            responses += usize::from(whole.example.label_count() > 0);
            let (example, row) = DatasetReport::of_row(whole, masked, tokenizer, max_len);
            report.add(row);
            examples.extend(example);
        }
        let mut dataset = Self { examples, report };
        dataset.check_labels(responses, max_len)?;
        dataset.report.check_stops(tokenizer, max_len)?;
        Ok(dataset)
    }

    /// A dataset of examples that are tokenized already. They are not checked.
    pub fn from_examples(examples: Vec<Tokenized>) -> Self {
        Self {
            report: DatasetReport {
                rows: examples.len(),
                kept: examples.len(),
                tokens: examples.iter().map(Tokenized::len).sum(),
                label_tokens: examples.iter().map(Tokenized::label_count).sum(),
                ..DatasetReport::default()
            },
            examples,
        }
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// Whether there are no examples.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
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

    /// Checks that an example is left. `responses` is the number of rows that had labels before truncation.
    fn check_labels(&self, responses: usize, max_len: usize) -> Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        let rows = self.report.rows;
        Err(Error::Dataset(if responses == 0 {
            format!(
                "all labels are masked: none of the {rows} rows has a response to learn; responses are \
                 messages of the role `assistant` (ShareGPT: gpt) without `weight` 0 or `train` false"
            )
        } else {
            format!(
                "all labels are masked: with at most {max_len} tokens a row, the responses of all {rows} rows \
                 are cut off ({} rows were truncated); raise the maximum length",
                self.report.truncated
            )
        }))
    }
}
