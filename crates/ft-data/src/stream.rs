//! Rows one after the other, for data larger than memory, with the exact position as a small JSON value.
//!
//! A stream is a source and what is done with its rows, one step on top of another. The state of a stream is that of all its steps.
//! A new stream that is built in the same way and restored to this state gives the rows that the first would have given, to the
//! last one: also behind a buffered shuffle, whose buffer is part of the state, and behind a mixture. The state also has how the
//! stream is built: seeds, sizes, probabilities, and name and size of every file. A stream that is built otherwise refuses it.
//! Functions of [`map`](RowStream::map) and [`filter`](RowStream::filter) and the contents of files cannot be compared.
//!
//! Randomness is a function of a seed, the epoch and the number of the draw, so no generator has to be kept.

mod concatenate;
mod each;
mod files;
mod interleave;
mod memory;
mod part;
mod repeat;
mod shuffle;

use std::path::Path;

use serde_json::{Value, json};

pub use interleave::StoppingStrategy;
pub(crate) use interleave::{source, sums};

use crate::source::{BadRow, Row};
use crate::{Error, Result};

/// The next row; inside, a row that cannot be used. `None` at the end.
type Next = Result<Option<Result<Row, BadRow>>>;

/// One step of a stream.
trait Stream: Send {
    fn next(&mut self) -> Next;

    /// How the stream is built: its kind, settings and sources.
    fn description(&self) -> Value;

    /// Where the stream stands.
    fn state(&self) -> Value;

    /// Continues where a state was taken of a stream with the same description.
    fn restore(&mut self, state: &Value) -> Result<()>;

    /// Begins again, with other random numbers in every epoch.
    fn restart(&mut self, epoch: u64) -> Result<()>;
}

/// Rows one after the other.
///
/// ```
/// use ft_data::RowStream;
/// use serde_json::json;
///
/// let build = || {
///     let rows = (0..100).map(|i| json!({"n": i})).collect();
///     let stream = RowStream::from_rows(rows);
///     stream.filter(|row| row["n"].as_u64() != Some(3)).shuffle(10, 42)
/// };
/// let mut stream = build();
/// for _ in 0..20 {
///     stream.next()?;
/// }
/// let state = stream.state();
///
/// let mut other = build();
/// other.restore(&state)?;
/// assert_eq!(other.next()?, stream.next()?);
/// # Ok::<(), ft_data::Error>(())
/// ```
pub struct RowStream(Box<dyn Stream>);

impl RowStream {
    /// The rows of a file, of the data files of a folder, or of the files that a glob matches; see [`read_rows`](crate::read_rows)
    /// for the kinds of files.
    ///
    /// # Errors
    ///
    /// If there is no file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self(Box::new(files::Files::open(path.as_ref())?)))
    }

    /// Rows in memory.
    pub fn from_rows(rows: Vec<Value>) -> Self {
        Self(Box::new(memory::Memory::new(rows)))
    }

    /// All rows of one stream after those of another.
    pub fn concatenate(streams: impl IntoIterator<Item = Self>) -> Self {
        let streams = streams.into_iter().map(|stream| stream.0).collect();
        Self(Box::new(concatenate::Concatenate::new(streams)))
    }

    /// A mixture: each row comes from one of the streams, drawn with these probabilities, or from each in turn without them. Domain
    /// text with a tenth of general text is `[0.9, 0.1]`.
    ///
    /// # Errors
    ///
    /// If there are no streams, or another number of probabilities, or they are not positive.
    pub fn interleave(
        streams: impl IntoIterator<Item = Self>,
        probabilities: Option<&[f64]>,
        seed: u64,
        stopping: StoppingStrategy,
    ) -> Result<Self> {
        let streams = streams.into_iter().map(|stream| stream.0).collect();
        let mixed = interleave::Interleave::new(streams, probabilities, seed, stopping)?;
        Ok(Self(Box::new(mixed)))
    }

    /// The next row; inside, a row that cannot be used, after which the stream goes on. `None` at the end.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is damaged.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Result<Row, BadRow>>> {
        self.0.next()
    }

    /// Changes every row. What `change` returns as an error is the reason why the row cannot be used.
    #[must_use]
    pub fn map(self, change: impl Fn(Value) -> Result<Value, String> + Send + 'static) -> Self {
        let change = move |value| change(value).map(Some);
        Self(Box::new(each::Each::new("map", self.0, Box::new(change))))
    }

    /// Keeps the rows of which `keep` is true.
    #[must_use]
    pub fn filter(self, keep: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        let change = move |value: Value| Ok(keep(&value).then_some(value));
        Self(Box::new(each::Each::new(
            "filter",
            self.0,
            Box::new(change),
        )))
    }

    /// Buffered shuffle: each row is drawn from a buffer of the next `buffer` rows. The larger the buffer, the closer this is to a
    /// shuffle of all rows. Every epoch has another order.
    ///
    /// # Panics
    ///
    /// If the buffer is 0.
    #[must_use]
    pub fn shuffle(self, buffer: usize, seed: u64) -> Self {
        assert!(buffer > 0, "a buffer holds one row or more");
        Self(Box::new(shuffle::Shuffle::new(self.0, buffer, seed)))
    }

    /// The first `count` rows.
    #[must_use]
    pub fn take(self, count: usize) -> Self {
        Self(Box::new(part::Part::new(self.0, part::Which::First(count))))
    }

    /// All rows but the first `count`.
    #[must_use]
    pub fn skip(self, count: usize) -> Self {
        Self(Box::new(part::Part::new(self.0, part::Which::After(count))))
    }

    /// Every `count`-th row, from row `index`, counted from 0.
    ///
    /// # Panics
    ///
    /// If `index` is not below `count`.
    #[must_use]
    pub fn shard(self, count: usize, index: usize) -> Self {
        assert!(index < count, "shard {index} of {count}");
        let which = part::Which::Shard { count, index };
        Self(Box::new(part::Part::new(self.0, which)))
    }

    /// Without an end: after the last row comes the first one of the next epoch.
    #[must_use]
    pub fn repeat(self) -> Self {
        Self(Box::new(repeat::Repeat::new(self.0)))
    }

    /// How the stream is built, and where it stands. The rows in the buffer of a [`shuffle`](Self::shuffle) are part of it.
    pub fn state(&self) -> Value {
        self.state_at(&self.position())
    }

    /// Continues where a state was taken of a stream that was built in the same way.
    ///
    /// # Errors
    ///
    /// If the state is that of a stream that was built otherwise, or of other files: the message names what differs.
    pub fn restore(&mut self, state: &Value) -> Result<()> {
        let (saved, now) = (&state["stream"], self.0.description());
        match difference("", saved, &now) {
            None => self.0.restore(&state["position"]),
            Some(difference) => Err(Error::Dataset(format!(
                "a saved position is not that of this stream: {difference}; build the stream as it was when the position was \
                 saved"
            ))),
        }
    }

    /// Where the stream stands.
    pub(crate) fn position(&self) -> Value {
        self.0.state()
    }

    /// The state of this stream at a position.
    pub(crate) fn state_at(&self, position: &Value) -> Value {
        json!({"stream": self.0.description(), "position": position})
    }
}

/// Where the descriptions of two streams differ first, and how.
fn difference(at: &str, saved: &Value, now: &Value) -> Option<String> {
    let kind = |value: &Value| value["kind"].as_str().map(str::to_string);
    match (saved, now) {
        _ if saved == now => None,
        (Value::Object(_), Value::Object(fields)) if kind(saved) == kind(now) => {
            let at = kind(now).map_or(at.to_string(), |kind| format!("{at}{kind}: "));
            fields.iter().find_map(|(name, now)| {
                let at = if name == "inner" {
                    at.clone()
                } else {
                    format!("{at}{name} ")
                };
                difference(&at, &saved[name], now)
            })
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let mut pairs = before.iter().zip(after);
            pairs.find_map(|(saved, now)| difference(at, saved, now))
        }
        _ => {
            let shown = |value: &Value| -> String {
                kind(value).unwrap_or_else(|| value.to_string().chars().take(80).collect())
            };
            Some(format!("{at}{} then, {} now", shown(saved), shown(now)))
        }
    }
}

/// The error for a state that a stream did not write.
fn foreign(state: &Value, kind: &str) -> Error {
    let shown: String = state.to_string().chars().take(80).collect();
    Error::Dataset(format!(
        "a saved position is not that of this stream: {kind} was expected, and it is {shown}; build the stream as it was when the \
         position was saved"
    ))
}

/// The number at `key`.
fn number(state: &Value, key: &str, kind: &str) -> Result<u64> {
    state[key].as_u64().ok_or_else(|| foreign(state, kind))
}

/// A number below `len` that follows from a seed.
fn below(seed: u64, len: usize) -> usize {
    ((u128::from(seed) * len as u128) >> 64) as usize
}
