//! Batches of a stream.
//!
//! A stream is read a window of rows at a time. The rows of a window become examples on all cores, and those are packed and grouped
//! into batches as [`Loader`](crate::Loader) does with all examples. A batch does not cross the border of two windows.
//!
//! The position is the state of the stream where the window begins, and how many of its batches were taken. A resumed loader reads
//! the window again, so nothing of a window has to be saved.

use ft_core::Tokenizer;
use serde_json::{Value, json};

use crate::collate_packed::collate_packed;
use crate::collate_padded::collate_padded;
use crate::in_parallel::in_parallel;
use crate::pack::best_fit_decreasing;
use crate::source::{BadRow, Row};
use crate::tokenize::tokenize_whole;
use crate::{BadRows, Batch, Collation, Error, Format, Result, RowStream, Tokenized};

type Example<E> = Box<dyn Fn(&Value) -> Result<Option<E>> + Send + Sync>;
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
    /// Lengths and the capacity of a row, if examples share rows.
    packing: Option<(Length<E>, usize)>,
    collate: Collate<E, B>,
    options: StreamOptions,
    bad: BadRows,
    window: Window<E>,
}

/// The examples that were read last.
struct Window<E> {
    /// Where the stream stood before.
    start: Value,
    counts: [usize; 2],
    /// The examples of each row.
    rows: Vec<Vec<E>>,
    /// How many batches were taken.
    taken: usize,
}

impl StreamLoader<Tokenized, Batch> {
    /// Batches for supervised fine-tuning, as those of [`SftDataset`](crate::SftDataset): rows of `format`, cut after `max_len` tokens.
    /// Rows without labels are dropped.
    ///
    /// # Errors
    ///
    /// If an option is 0.
    pub fn sft(
        stream: RowStream,
        format: Format,
        tokenizer: &Tokenizer,
        max_len: usize,
        collation: Collation,
        options: StreamOptions,
    ) -> Result<Self> {
        let pad = (tokenizer.pad_token_id())
            .or(tokenizer.eos_token_id())
            .unwrap_or(0);
        let tokenizer = tokenizer.clone();
        let example = move |row: &Value| {
            let mut example = tokenize_whole(&format.parse(row, 0)?, &tokenizer)?.example;
            example.truncate(max_len);
            Ok((example.label_count() > 0).then_some(example))
        };
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
        Self::grouped(stream, Box::new(example), None, collate, options)
    }

    fn grouped(
        stream: RowStream,
        example: Example<E>,
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
            start: stream.state(),
            counts: [0; 2],
            rows: Vec::new(),
            taken: 0,
        };
        Ok(Self {
            bad: BadRows::at_most(options.bad_rows),
            stream,
            example,
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
    /// If a file cannot be read, there are too many bad rows, or a whole window of rows has no token to learn: their format, the
    /// template or the maximum length does not fit.
    pub fn next_batch(&mut self) -> Result<Option<B>> {
        while self.window.taken * self.options.batch_size >= self.window.rows.len() {
            if !self.read_window()? {
                self.bad.check()?;
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

    /// Where the loader stands.
    pub fn state(&self) -> Value {
        json!({
            "window": self.window.start,
            "rows": self.window.counts[0],
            "bad_rows": self.window.counts[1],
            "batches_taken": self.window.taken,
        })
    }

    /// Continues where a state was taken of a loader of the same stream and options.
    ///
    /// # Errors
    ///
    /// If the state is that of another stream.
    pub fn restore(&mut self, state: &Value) -> Result<()> {
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
        self.window.rows.clear();
        (self.window.start, self.window.counts) = (state["window"].clone(), counts);
        if taken > 0 {
            self.read_window()?;
        }
        self.window.taken = taken;
        Ok(())
    }

    /// The bad rows so far.
    pub fn bad_rows(&self) -> &BadRows {
        &self.bad
    }

    /// Reads the next window; whether there were rows.
    fn read_window(&mut self) -> Result<bool> {
        self.window.start = self.stream.state();
        self.window.counts = self.bad.counts();
        self.window.taken = 0;
        self.window.rows.clear();
        let mut rows: Vec<Row> = Vec::new();
        let mut any = false;
        while rows.len() < self.options.window {
            let Some(row) = self.stream.next()? else {
                break;
            };
            any = true;
            match row {
                Ok(row) => rows.push(row),
                Err(bad) => {
                    self.bad.sort_out::<()>(Err(bad))?;
                }
            }
        }
        let example = &self.example;
        let full = rows.len() == self.options.window;
        let made = in_parallel(&rows, |row| Ok(example(&row.value)))?;
        let mut examples = Vec::new();
        for (row, made) in rows.into_iter().zip(made) {
            let made = made.map_err(|error| BadRow {
                place: row.place,
                reason: error.reason(),
            });
            examples.extend(self.bad.sort_out(made)?.flatten());
        }
        // A stream that repeats would be read for ever.
        if examples.is_empty() && full {
            return Err(Error::Dataset(format!(
                "none of {} rows has a token to learn: check the format, the template, and whether the maximum length cuts \
                 all answers",
                self.options.window
            )));
        }
        self.window.rows = self.rows_of(examples);
        Ok(any)
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
