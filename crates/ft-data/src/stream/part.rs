//! Some of the rows, chosen by their place: the first, all but the first, every n-th. Rows that cannot be used have no place.

use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::Result;

const KIND: &str = "part";

/// What becomes of the row at a place.
pub(super) enum Keep {
    Yes,
    No,
    /// Neither this row nor any after it is kept.
    End,
}

pub(super) struct Part<F> {
    inner: Box<dyn Stream>,
    keep: F,
    /// How many rows were read.
    at: usize,
}

impl<F: Fn(usize) -> Keep> Part<F> {
    pub(super) fn new(inner: Box<dyn Stream>, keep: F) -> Self {
        Self { inner, keep, at: 0 }
    }
}

impl<F: Fn(usize) -> Keep + Send> Stream for Part<F> {
    fn next(&mut self) -> Next {
        loop {
            let keep = (self.keep)(self.at);
            if matches!(keep, Keep::End) {
                return Ok(None);
            }
            let row = match self.inner.next()? {
                Some(Ok(row)) => row,
                other => return Ok(other),
            };
            self.at += 1;
            if matches!(keep, Keep::Yes) {
                return Ok(Some(Ok(row)));
            }
        }
    }

    fn state(&self) -> Value {
        json!({"kind": KIND, "row": self.at, "inner": self.inner.state()})
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        if state["kind"] != KIND {
            return Err(foreign(state, KIND));
        }
        self.at = number(state, "row", KIND)? as usize;
        self.inner.restore(&state["inner"])
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        self.at = 0;
        self.inner.restart(epoch)
    }
}
