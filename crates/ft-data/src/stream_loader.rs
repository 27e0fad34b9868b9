//! Batches of a stream.
//!
//! A stream is read a window of rows at a time. The rows of a window become examples on all cores, and those are packed and grouped
//! into batches as [`Loader`](crate::Loader) does with all examples. A batch does not cross the border of two windows.
//!
//! The position is the state of the stream where the window begins, and how many of its batches were taken. A resumed loader reads
//! the window again, so nothing of a window has to be saved. What is large in a position is the buffer of a shuffle.

use ft_core::Tokenizer;
use serde_json::{Value, json};

use crate::bad_rows::JUDGED_AFTER;
use crate::collate_packed::collate_packed;
use crate::collate_padded::collate_padded;
use crate::pack::best_fit_decreasing;
use crate::tokenize::tokenize_whole;
use crate::{
    BadRows, Batch, Collation, DatasetReport, Error, Result, RowFormat, RowStream, Tokenized,
};

/// The example of a row, unless it is dropped, and the report of this row.
type Example<E> = Box<dyn Fn(&Value) -> Result<(Option<E>, DatasetReport)> + Send + Sync>;
/// What must hold for all rows together.
type Check = Box<dyn Fn(&mut DatasetReport) -> Result<()> + Send>;
type Collate<E, B> = Box<dyn Fn(&[Vec<&E>]) -> B + Send>;
type Length<E> = Box<dyn Fn(&E) -> usize + Send>;

/// How a stream becomes batches.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamOptions {
    /// Rows of a batch.
    pub batch_size: usize,
    /// How many rows of the stream are read at a time. More rows pack better and need more memory.
    pub window: usize,
    /// The share of rows that may be bad; see [`BadRows`].
    pub bad_rows: f64,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            batch_size: 8,
            window: 1000,
            bad_rows: 0.0,
        }
    }
}

/// The batches of a [`RowStream`], one after the other.
pub struct StreamLoader<E, B> {
    stream: RowStream,
    example: Example<E>,
    check: Check,
    /// Lengths and the capacity of a row, if examples share rows.
    packing: Option<(Length<E>, usize)>,
    collate: Collate<E, B>,
    options: StreamOptions,
    bad: BadRows,
    report: DatasetReport,
    window: Window<E>,
}

/// The examples that were read last.
struct Window<E> {
    /// Where the stream stood before.
    start: Value,
    counts: [usize; 2],
    report: DatasetReport,
    /// The examples of each row.
    rows: Vec<Vec<E>>,
    /// How many batches were taken.
    taken: usize,
}

impl StreamLoader<Tokenized, Batch> {
    /// Batches for supervised fine-tuning, as those of [`SftDataset`](crate::SftDataset): rows of `format`, cut after `max_len` tokens.
    /// Rows without labels are dropped. Both are counted in the [`report`](Self::report).
    ///
    /// # Errors
    ///
    /// If an option is 0, or rows are cut after more tokens than a packed row holds.
    pub fn sft(
        stream: RowStream,
        format: impl Into<RowFormat>,
        tokenizer: &Tokenizer,
        max_len: usize,
        collation: Collation,
        options: StreamOptions,
    ) -> Result<Self> {
        let format = format.into();
        let pad = (tokenizer.pad_token_id())
            .or(tokenizer.eos_token_id())
            .unwrap_or(0);
        let own = tokenizer.clone();
        let example = move |row: &Value| {
            let sample = format.parse(row, 0)?;
            let whole = tokenize_whole(&sample, &own)?;
            Ok(DatasetReport::of_row(
                whole,
                sample.masked_count(),
                &own,
                max_len,
            ))
        };
        let own = tokenizer.clone();
        let check = move |report: &mut DatasetReport| report.check_stops(&own, max_len);
        let packing = match collation {
            Collation::Padded { .. } => None,
            Collation::Packed { seq_len } => {
                if max_len > seq_len {
                    return Err(Error::Settings(format!(
                        "rows are cut after {max_len} tokens, but a packed row holds {seq_len}: cut them at {seq_len}"
                    )));
                }
                let length: Length<Tokenized> = Box::new(Tokenized::len);
                Some((length, seq_len))
            }
        };
        let collate = move |rows: &[Vec<&Tokenized>]| match collation {
            Collation::Padded { multiple } => collate_padded(&rows.concat(), multiple, pad),
            Collation::Packed { seq_len } => collate_packed(rows, seq_len, pad),
        };
        Self::grouped(
            stream,
            Box::new(example),
            Box::new(check),
            packing,
            Box::new(collate),
            options,
        )
    }
}

impl<E: Send, B> StreamLoader<E, B> {
    /// Batches of examples of any type, an example a row. `example` makes one of a row of the stream, or drops the row.
    ///
    /// # Errors
    ///
    /// If an option is 0.
    pub fn new(
        stream: RowStream,
        example: impl Fn(&Value) -> Result<Option<E>> + Send + Sync + 'static,
        collate: impl Fn(&[&E]) -> B + Send + 'static,
        options: StreamOptions,
    ) -> Result<Self> {
        let collate = Box::new(move |rows: &[Vec<&E>]| collate(&rows.concat()));
        let example = move |row: &Value| {
            let example = example(row)?;
            let report = DatasetReport {
                rows: 1,
                kept: usize::from(example.is_some()),
                ..DatasetReport::default()
            };
            Ok((example, report))
        };
        let check = Box::new(|_: &mut DatasetReport| Ok(()));
        Self::grouped(stream, Box::new(example), check, None, collate, options)
    }

    fn grouped(
        stream: RowStream,
        example: Example<E>,
        check: Check,
        packing: Option<(Length<E>, usize)>,
        collate: Collate<E, B>,
        options: StreamOptions,
    ) -> Result<Self> {
        for (name, value) in [
            ("batch_size", options.batch_size),
            ("window", options.window),
        ] {
            if value == 0 {
                return Err(Error::Settings(format!("{name} is 0: make it 1 or more")));
            }
        }
        if !(0.0..=1.0).contains(&options.bad_rows) {
            return Err(Error::Settings(format!(
                "bad_rows is {}: it is a share in [0, 1]",
                options.bad_rows
            )));
        }
        let window = Window {
            start: stream.position(),
            counts: [0; 2],
            report: DatasetReport::default(),
            rows: Vec::new(),
            taken: 0,
        };
        Ok(Self {
            bad: BadRows::at_most(options.bad_rows),
            report: DatasetReport::default(),
            stream,
            example,
            check,
            packing,
            collate,
            options,
            window,
        })
    }

    /// The next batch; `None` after the last row of the stream. The last batch of a window may have fewer rows.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, there are too many bad rows, a whole window of rows has no token to learn, or no stop token of 1000
    /// rows or more receives loss: the format, the template or the maximum length does not fit.
    pub fn next_batch(&mut self) -> Result<Option<B>> {
        while self.window.taken * self.options.batch_size >= self.window.rows.len() {
            if !self.read_window()? {
                return Ok(None);
            }
        }
        let begin = self.window.taken * self.options.batch_size;
        let end = (begin + self.options.batch_size).min(self.window.rows.len());
        self.window.taken += 1;
        let rows = self.window.rows[begin..end].iter();
        let rows: Vec<Vec<&E>> = rows.map(|row| row.iter().collect()).collect();
        Ok(Some((self.collate)(&rows)))
    }

    /// Where the loader stands: the state of its stream where the window begins, and what was read and taken.
    pub fn state(&self) -> Value {
        json!({
            "window": self.stream.state_at(&self.window.start),
            "options": self.described(),
            "report": self.window.report,
            "rows": self.window.counts[0],
            "bad_rows": self.window.counts[1],
            "batches_taken": self.window.taken,
        })
    }

    /// The options on which batches depend.
    fn described(&self) -> Value {
        json!({
            "batch_size": self.options.batch_size,
            "window": self.options.window,
            "packed_length": self.packing.as_ref().map(|(_, capacity)| capacity),
        })
    }

    /// Continues where a state was taken of a loader of the same stream and options.
    ///
    /// # Errors
    ///
    /// If the state is that of another stream or of other options.
    pub fn restore(&mut self, state: &Value) -> Result<()> {
        let options = self.described();
        if state["options"] != options {
            return Err(Error::Dataset(format!(
                "a saved position is not that of this loader: its options were {}, and are {options} now",
                state["options"]
            )));
        }
        let report = serde_json::from_value(state["report"].clone()).map_err(|error| {
            Error::Dataset(format!(
                "`report` in the saved position of a stream is not one: {error}"
            ))
        })?;
        let number = |key: &str| {
            let number = state[key].as_u64();
            number.map(|number| number as usize).ok_or_else(|| {
                Error::Dataset(format!(
                    "`{key}` is missing in the saved position of a stream"
                ))
            })
        };
        let (counts, taken) = (
            [number("rows")?, number("bad_rows")?],
            number("batches_taken")?,
        );
        self.stream.restore(&state["window"])?;
        self.bad.set_counts(counts);
        self.report = report;
        self.window = self.next_window();
        if taken > 0 {
            self.read_window()?;
        }
        self.window.taken = taken;
        Ok(())
    }

    /// What was read so far: how many rows were kept, truncated and dropped, and how often each stop token is learnt.
    pub fn report(&self) -> &DatasetReport {
        &self.report
    }

    /// The bad rows so far.
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad
    }

    /// A window that begins here, without rows.
    fn next_window(&self) -> Window<E> {
        Window {
            start: self.stream.position(),
            counts: self.bad.counts(),
            report: self.report.clone(),
            rows: Vec::new(),
            taken: 0,
        }
    }

    /// Reads the next window; whether there were rows.
    fn read_window(&mut self) -> Result<bool> {
        self.window = self.next_window();
        let most = self.options.window;
        let (read, made) = self.bad.made(&mut self.stream, most, &self.example)?;
        let mut examples = Vec::new();
        for (example, report) in made {
            self.report.add(report);
            examples.extend(example);
        }
        let (full, ended) = (read == most, read == 0);
        // A stream that repeats would be read for ever.
        if full && examples.is_empty() {
            return Err(nothing_to_learn(most));
        }
        if ended {
            self.bad.check()?;
        }
        if self.report.rows >= if ended { 1 } else { JUDGED_AFTER } {
            if self.report.kept == 0 {
                return Err(nothing_to_learn(self.report.rows));
            }
            (self.check)(&mut self.report)?;
        }
        self.window.rows = self.rows_of(examples);
        Ok(!ended)
    }

    fn rows_of(&self, examples: Vec<E>) -> Vec<Vec<E>> {
        let Some((length, capacity)) = &self.packing else {
            return examples.into_iter().map(|example| vec![example]).collect();
        };
        let lengths: Vec<usize> = examples.iter().map(length).collect();
        let rows = best_fit_decreasing(&lengths, (0..lengths.len()).collect(), *capacity);
        // Rows in the order of their first examples, since packing puts the longest first.
        let mut rows: Vec<Vec<usize>> = rows;
        rows.sort_by_key(|row| row.iter().min().copied());
        let mut examples: Vec<Option<E>> = examples.into_iter().map(Some).collect();
        rows.into_iter()
            .map(|row| {
                row.into_iter()
                    .filter_map(|index| examples[index].take())
                    .collect()
            })
            .collect()
    }
}

fn nothing_to_learn(rows: usize) -> Error {
    Error::Dataset(format!(
        "none of {rows} rows has a token to learn: check the format, the template, and whether the maximum length cuts all \
         answers"
    ))
}
