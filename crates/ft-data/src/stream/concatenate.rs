//! One stream after the other.

use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::Result;

const KIND: &str = "concatenate";

pub(super) struct Concatenate {
    streams: Vec<Box<dyn Stream>>,
    at: usize,
}

impl Concatenate {
    pub(super) fn new(streams: Vec<Box<dyn Stream>>) -> Self {
        Self { streams, at: 0 }
    }
}

impl Stream for Concatenate {
    fn next(&mut self) -> Next {
        while let Some(stream) = self.streams.get_mut(self.at) {
            if let Some(row) = stream.next()? {
                return Ok(Some(row));
            }
            self.at += 1;
        }
        Ok(None)
    }

    fn description(&self) -> Value {
        let inner = self.streams.iter().map(|stream| stream.description());
        json!({"kind": KIND, "inner": inner.collect::<Vec<_>>()})
    }

    fn state(&self) -> Value {
        let inner: Vec<_> = self.streams.iter().map(|stream| stream.state()).collect();
        json!({"kind": KIND, "at": self.at, "inner": inner})
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let count = self.streams.len();
        let inner = state["inner"]
            .as_array()
            .filter(|inner| inner.len() == count);
        let (Some(inner), true) = (inner, state["kind"] == KIND) else {
            return Err(foreign(state, &format!("{KIND} of {count} streams")));
        };
        self.at = number(state, "at", KIND)? as usize;
        for (stream, state) in self.streams.iter_mut().zip(inner) {
            stream.restore(state)?;
        }
        Ok(())
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        self.at = 0;
        self.streams
            .iter_mut()
            .try_for_each(|stream| stream.restart(epoch))
    }
}
