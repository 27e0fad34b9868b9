//! A function of every row, which may change it, leave it out, or find it unusable.

use serde_json::{Value, json};

use super::{Next, Stream};
use crate::Result;
use crate::source::{BadRow, Row};

type Change = Box<dyn Fn(Value) -> Result<Option<Value>, String> + Send>;

/// It has no state of its own.
pub(super) struct Each {
    kind: &'static str,
    inner: Box<dyn Stream>,
    change: Change,
}

impl Each {
    pub(super) fn new(kind: &'static str, inner: Box<dyn Stream>, change: Change) -> Self {
        Self {
            kind,
            inner,
            change,
        }
    }
}

impl Stream for Each {
    fn next(&mut self) -> Next {
        loop {
            let Row { value, place } = match self.inner.next()? {
                Some(Ok(row)) => row,
                other => return Ok(other),
            };
            match (self.change)(value) {
                Ok(Some(value)) => return Ok(Some(Ok(Row { value, place }))),
                Ok(None) => {}
                Err(reason) => return Ok(Some(Err(BadRow { place, reason }))),
            }
        }
    }

    fn description(&self) -> Value {
        json!({"kind": self.kind, "inner": self.inner.description()})
    }

    fn state(&self) -> Value {
        self.inner.state()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        self.inner.restore(state)
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        self.inner.restart(epoch)
    }
}
