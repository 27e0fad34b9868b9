//! Plain text: a row `{"text": ...}` for each line that is not blank.

use serde_json::{Value, json};

use super::lines::Lines;
use super::{Fault, Input, ReadRows};
use crate::Result;

pub(super) struct TextRows(Lines);

impl TextRows {
    pub(super) fn new(input: Input) -> Self {
        Self(Lines::new(input, 1))
    }
}

impl ReadRows for TextRows {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        let text = match self.0.next_line()? {
            Ok(line) => std::str::from_utf8(line).map(|text| json!({"text": text})),
            Err(fault) => return Some(Err(fault)),
        };
        Some(text.map_err(|error| {
            let at = error.valid_up_to() + 1;
            let reason = format!("byte {at} of the line is not UTF-8: convert the file to UTF-8");
            Fault::Row(Some(self.0.number), reason)
        }))
    }

    fn skip_row(&mut self) -> Option<Result<(), Fault>> {
        Some(self.0.next_line()?.map(|_| ()))
    }
}
