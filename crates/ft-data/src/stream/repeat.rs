//! A stream without an end.

use ft_core::mix_seed;
use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::{Error, Result};

const KIND: &str = "repeat";

pub(super) struct Repeat {
    inner: Box<dyn Stream>,
    /// The number of the pass.
    pass: u64,
    /// What the passes of this epoch are mixed with; 0 at first.
    epoch: u64,
    /// Whether this pass has given a row.
    any: bool,
}

impl Repeat {
    pub(super) fn new(inner: Box<dyn Stream>) -> Self {
        Self {
            inner,
            pass: 0,
            epoch: 0,
            any: false,
        }
    }

    fn restart_inner(&mut self) -> Result<()> {
        self.any = false;
        let epoch = match self.epoch {
            0 => self.pass,
            epoch => mix_seed(epoch, self.pass),
        };
        self.inner.restart(epoch)
    }
}

impl Stream for Repeat {
    fn next(&mut self) -> Next {
        loop {
            if let Some(row) = self.inner.next()? {
                self.any |= row.is_ok();
                return Ok(Some(row));
            }
            if !self.any {
                return Err(Error::Dataset(
                    "the stream has no rows that can be used, so it cannot be repeated".to_string(),
                ));
            }
            self.pass += 1;
            self.restart_inner()?;
        }
    }

    fn description(&self) -> Value {
        json!({"kind": KIND, "inner": self.inner.description()})
    }

    fn state(&self) -> Value {
        json!({
            "kind": KIND,
            "pass": self.pass,
            "epoch": self.epoch,
            "any": self.any,
            "inner": self.inner.state(),
        })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let (Some(any), true) = (state["any"].as_bool(), state["kind"] == KIND) else {
            return Err(foreign(state, KIND));
        };
        self.pass = number(state, "pass", KIND)?;
        self.epoch = number(state, "epoch", KIND)?;
        self.any = any;
        self.inner.restore(&state["inner"])
    }

    fn restart(&mut self, epoch: u64) -> Result<()> {
        (self.pass, self.epoch) = (0, epoch);
        self.restart_inner()
    }
}
