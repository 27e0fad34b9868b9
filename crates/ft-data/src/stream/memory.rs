//! Rows in memory.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::Result;
use crate::source::{Place, Row};

const KIND: &str = "memory";

pub(super) struct Memory {
    rows: Vec<Value>,
    at: usize,
    file: Arc<Path>,
}

impl Memory {
    pub(super) fn new(rows: Vec<Value>) -> Self {
        Self {
            rows,
            at: 0,
            file: Path::new("").into(),
        }
    }
}

impl Stream for Memory {
    fn next(&mut self) -> Next {
        let row = self.rows.get(self.at).cloned();
        Ok(row.map(|value| {
            self.at += 1;
            Ok(Row {
                value,
                place: Place {
                    file: self.file.clone(),
                    number: self.at,
                    by_line: false,
                },
            })
        }))
    }

    fn description(&self) -> Value {
        json!({"kind": KIND, "rows": self.rows.len()})
    }

    fn state(&self) -> Value {
        json!({"kind": KIND, "row": self.at})
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let at = number(state, "row", KIND)? as usize;
        if state["kind"] != KIND || at > self.rows.len() {
            return Err(foreign(
                state,
                &format!("{KIND} of {} rows", self.rows.len()),
            ));
        }
        self.at = at;
        Ok(())
    }

    fn restart(&mut self, _: u64) -> Result<()> {
        self.at = 0;
        Ok(())
    }
}
