//! Buffered shuffle: each row is drawn from a buffer of the next rows.
//!
//! The buffer is part of the state, so that a resumed stream continues exactly. (Hugging Face's `IterableDataset` refills the buffer
//! when it is resumed, which loses rows.)

use std::path::Path;

use ft_core::mix_seed;
use serde_json::{Value, json};

use super::{Next, Stream, below, foreign, number};
use crate::Result;
use crate::source::{Place, Row};

const KIND: &str = "shuffle";

pub(super) struct Shuffle {
    inner: Box<dyn Stream>,
    size: usize,
    seed: u64,
    epoch: u64,
    /// How many rows were drawn in this epoch.
    drawn: u64,
    buffer: Vec<Row>,
    ended: bool,
}

impl Shuffle {
    pub(super) fn new(inner: Box<dyn Stream>, size: usize, seed: u64) -> Self {
        Self {
            inner,
            size,
            seed,
            epoch: 0,
            drawn: 0,
            buffer: Vec::new(),
            ended: false,
        }
    }
}

impl Stream for Shuffle {
    fn next(&mut self) -> Next {
        while !self.ended && self.buffer.len() < self.size {
            match self.inner.next()? {
                Some(Ok(row)) => self.buffer.push(row),
                Some(bad) => return Ok(Some(bad)),
                None => self.ended = true,
            }
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let draw = mix_seed(mix_seed(self.seed, self.epoch), self.drawn);
        self.drawn += 1;
        let place = below(draw, self.buffer.len());
        Ok(Some(Ok(self.buffer.swap_remove(place))))
    }

    fn description(&self) -> Value {
        json!({"kind": KIND, "buffer": self.size, "seed": self.seed, "inner": self.inner.description()})
    }

    fn state(&self) -> Value {
        let rows = self.buffer.iter().map(|Row { value, place }| {
            json!([
                value,
                place.file.to_string_lossy(),
                place.number,
                place.by_line
            ])
        });
        json!({
            "kind": KIND,
            "epoch": self.epoch,
            "drawn": self.drawn,
            "ended": self.ended,
            "buffer": rows.collect::<Vec<_>>(),
            "inner": self.inner.state(),
        })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let rows: Option<Vec<_>> = (state["buffer"].as_array()).and_then(|rows| {
            let row = |row: &Value| {
                Some(Row {
                    value: row.get(0)?.clone(),
                    place: Place {
                        file: Path::new(row.get(1)?.as_str()?).into(),
                        number: row.get(2)?.as_u64()? as usize,
                        by_line: row.get(3)?.as_bool()?,
                    },
                })
            };
            rows.iter().map(row).collect()
        });
        let (Some(rows), Some(ended), true) =
            (rows, state["ended"].as_bool(), state["kind"] == KIND)
        else {
            return Err(foreign(state, KIND));
        };
        self.epoch = number(state, "epoch", KIND)?;
        self.drawn = number(state, "drawn", KIND)?;
        (self.buffer, self.ended) = (rows, ended);
        self.inner.restore(&state["inner"])
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        (self.epoch, self.drawn, self.ended) = (epoch, 0, false);
        self.buffer.clear();
        self.inner.restart(epoch)
    }
}
