//! Some of the rows, chosen by their place: the first, all but the first, every n-th. Rows that cannot be used have no place.

use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::Result;

const KIND: &str = "part";

/// Which rows are kept.
pub(super) enum Which {
    /// The first so many.
    First(usize),
    /// All but the first so many.
    After(usize),
    /// Every `count`-th, from row `index`.
    Shard {
        /// Rows from one to the next.
        count: usize,
        /// The first of them.
        index: usize,
    },
}

pub(super) struct Part {
    inner: Box<dyn Stream>,
    which: Which,
    /// How many rows were read.
    at: usize,
}

impl Part {
    pub(super) fn new(inner: Box<dyn Stream>, which: Which) -> Self {
        Self {
            inner,
            which,
            at: 0,
        }
    }
}

impl Stream for Part {
    fn next(&mut self) -> Next {
        loop {
            let place = self.at;
            let keep = match self.which {
                Which::First(count) if place >= count => return Ok(None),
                Which::First(_) => true,
                Which::After(count) => place >= count,
                Which::Shard { count, index } => place % count == index,
            };
            let row = match self.inner.next()? {
                Some(Ok(row)) => row,
                other => return Ok(other),
            };
            self.at += 1;
            if keep {
                return Ok(Some(Ok(row)));
            }
        }
    }

    fn description(&self) -> Value {
        let inner = self.inner.description();
        match self.which {
            Which::First(count) => json!({"kind": "take", "count": count, "inner": inner}),
            Which::After(count) => json!({"kind": "skip", "count": count, "inner": inner}),
            Which::Shard { count, index } => {
                json!({"kind": "shard", "count": count, "index": index, "inner": inner})
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
