//! JSONL: a JSON value a line. Blank lines are ignored.

use serde_json::Value;

use super::lines::Lines;
use super::{Fault, Input, ReadRows};
use crate::Result;

pub(super) struct JsonLines {
    lines: Lines,
    first: bool,
}

impl JsonLines {
    pub(super) fn new(input: Input, first_line: usize) -> Self {
        Self {
            lines: Lines::new(input, first_line),
            first: true,
        }
    }
}

impl ReadRows for JsonLines {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        let first = std::mem::take(&mut self.first);
        let parsed = match self.lines.next_line()? {
            Ok(line) => serde_json::from_slice(line),
            Err(fault) => return Some(Err(fault)),
        };
        Some(parsed.map_err(|error| {
            let reason = match first && error.is_eof() {
                true => "the line ends within a JSON value: the file is not an array of rows, so every line must \
                         be a whole row (JSONL); a single JSON value must be put into [ ]"
                    .to_string(),
                false => format!(
                    "this line is not valid JSON, but every line of JSONL must be: {} (column {})",
                    reason(&error),
                    error.column()
                ),
            };
            Fault::Row(Some(self.lines.number), reason)
        }))
    }

    fn skip_row(&mut self) -> Option<Result<(), Fault>> {
        self.first = false;
        Some(self.lines.next_line()?.map(|_| ()))
    }
}

/// serde_json's message without its line number, which counts from the start of the row.
pub(super) fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}
