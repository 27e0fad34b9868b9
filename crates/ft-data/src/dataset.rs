//! A file of samples as training examples.

use std::collections::BTreeMap;
use std::path::Path;

use ft_core::Tokenizer;

use crate::in_parallel::in_parallel;
use crate::split::split;
use crate::tokenize::{Whole, tokenize_whole};
use crate::{BadRow, BadRows, DatasetReport, Error, Format, Result, RowStream, Sample, Tokenized};

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
        format: Format,
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
        format: Format,
        tokenizer: &Tokenizer,
        max_len: usize,
        bad_rows: &mut BadRows,
    ) -> Result<Self> {
        let path = path.as_ref();
        let (mut places, mut rows) = (Vec::new(), Vec::new());
        let mut stream = RowStream::open(path)?;
        while let Some(row) = stream.next()? {
            match row {
                Ok(row) => {
                    places.push(row.place);
                    rows.push(row.value);
                }
                Err(bad) => {
                    bad_rows.sort_out::<()>(Err(bad))?;
                }
            }
        }
        // What one row needs: a sample that the chat template renders.
        let made = in_parallel(&rows, |row| {
            let sample = format.parse(row, 0);
            Ok(sample.and_then(|sample| {
                Ok((tokenize_whole(&sample, tokenizer)?, sample.masked_count()))
            }))
        })?;
        let mut wholes = Vec::with_capacity(made.len());
        for (place, made) in places.into_iter().zip(made) {
            let made = made.map_err(|error| BadRow {
                place,
                reason: error.reason(),
            });
            wholes.extend(bad_rows.sort_out(made)?);
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
        let mut report = DatasetReport {
            rows: wholes.len(),
            masked_messages: wholes.iter().map(|(_, masked)| masked).sum(),
            ..DatasetReport::default()
        };
        let mut examples = Vec::with_capacity(wholes.len());
        let mut stops: BTreeMap<u32, usize> = BTreeMap::new();
        let mut responses = 0;
        for (whole, _) in wholes {
            let Whole {
                mut example,
                stops: at,
                missing_prompts,
                reasoning_left_out,
            } = whole;
            for missing in missing_prompts {
                *report.missing_prompts.entry(missing).or_default() += 1;
            }
            report.reasoning_left_out += reasoning_left_out;
            responses += usize::from(example.label_count() > 0);
            for &position in &at {
                let left = usize::from(position < max_len);
                *stops.entry(example.input_ids[position]).or_default() += left;
            }
            report.truncated += usize::from(example.truncate(max_len));
            if example.label_count() == 0 {
                report.dropped_all_masked += 1;
            } else {
                examples.push(example);
            }
        }
        let dataset = Self::counted(examples, report);
        dataset.check_labels(responses, max_len)?;
        dataset.check_stops(&stops, tokenizer, max_len)
    }

    /// A dataset of examples that are tokenized already. They are not checked.
    pub fn from_examples(examples: Vec<Tokenized>) -> Self {
        let report = DatasetReport {
            rows: examples.len(),
            ..DatasetReport::default()
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

    fn counted(examples: Vec<Tokenized>, report: DatasetReport) -> Self {
        Self {
            report: DatasetReport {
                kept: examples.len(),
                tokens: examples.iter().map(Tokenized::len).sum(),
                label_tokens: examples.iter().map(Tokenized::label_count).sum(),
                ..report
            },
            examples,
        }
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

    /// Checks that a stop token has a label somewhere, and counts stop tokens in the report.
    fn check_stops(
        mut self,
        stops: &BTreeMap<u32, usize>,
        tokenizer: &Tokenizer,
        max_len: usize,
    ) -> Result<Self> {
        let name = |id: &u32| tokenizer.id_to_token(*id).unwrap_or_else(|| id.to_string());
        if stops.is_empty() {
            let eos = tokenizer.eos_token().unwrap_or("none");
            return Err(Error::Dataset(format!(
                "no stop token ever receives loss, so the model would not learn to end its answers: the chat \
                 template closes the assistant's turns with no special token (the tokenizer's eos token: \
                 {eos}); let the template end them with eos_token"
            )));
        }
        if stops.values().all(|&count| count == 0) {
            let names: Vec<String> = stops.keys().map(name).collect();
            return Err(Error::Dataset(format!(
                "the stop token {} never receives loss, so the model would not learn to end its answers: with \
                 at most {max_len} tokens a row it is cut off everywhere ({} of {} rows were truncated); raise \
                 the maximum length",
                names.join(", "),
                self.report.truncated,
                self.report.rows
            )));
        }
        self.report.stop_tokens = stops.iter().map(|(id, &count)| (name(id), count)).collect();
        self.report.unlearnt_eos = tokenizer
            .eos_token()
            .filter(|&eos| {
                self.report
                    .stop_tokens
                    .get(eos)
                    .is_none_or(|&count| count == 0)
            })
            .map(str::to_string);
        Ok(self)
    }
}
