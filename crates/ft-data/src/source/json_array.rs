//! One JSON array of rows, read a row at a time.

use std::io::BufRead;

use serde_json::Value;

use super::json_lines::reason;
use super::{Fault, Input, MAX_ROW, ReadRows};
use crate::Result;

pub(super) struct JsonArray {
    input: Input,
    line: usize,
    next: Next,
    row: Vec<u8>,
}

/// What comes next in the file.
#[derive(PartialEq)]
enum Next {
    Bracket,
    /// A comma, or the closing bracket.
    Comma,
    End,
}

impl JsonArray {
    /// `input` stands at the opening bracket, in line `line`.
    pub(super) fn new(input: Input, line: usize) -> Self {
        Self {
            input,
            line,
            next: Next::Bracket,
            row: Vec::new(),
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, Fault> {
        let buffer = self.input.fill_buf().map_err(Fault::Io)?;
        Ok(buffer.first().copied())
    }

    fn take(&mut self) {
        self.input.consume(1);
    }

    /// The next byte that is not white space. It is not taken.
    fn after_space(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            match self.peek()? {
                Some(byte) if byte.is_ascii_whitespace() => {
                    self.line += usize::from(byte == b'\n');
                    self.take();
                }
                byte => return Ok(byte),
            }
        }
    }

    fn wrong(&self, reason: &str) -> Fault {
        Fault::File(self.line, format!("the JSON array is invalid: {reason}"))
    }

    /// Reads the bytes of the next row into `self.row`; whether there is one, and its first line.
    fn read(&mut self) -> Result<Option<usize>, Fault> {
        let first = self.next == Next::Bracket;
        if self.next == Next::End {
            return Ok(None);
        }
        // An error ends the file.
        let before = std::mem::replace(&mut self.next, Next::End);
        if before == Next::Bracket {
            self.take();
        } else {
            match self.after_space()? {
                Some(b',') => self.take(),
                Some(b']') => return self.close(),
                Some(_) => return Err(self.wrong("a comma must be between two rows")),
                None => return Err(self.wrong("the file ends before the array is closed")),
            }
        }
        match self.after_space()? {
            Some(b']') if first => return self.close(),
            None => return Err(self.wrong("the file ends before the array is closed")),
            _ => {}
        }
        let line = self.line;
        self.read_value()?;
        self.next = Next::Comma;
        Ok(Some(line))
    }

    fn close(&mut self) -> Result<Option<usize>, Fault> {
        self.take();
        match self.after_space()? {
            None => Ok(None),
            Some(_) => Err(self.wrong("there is something after the closing bracket")),
        }
    }

    /// Reads up to the comma or bracket that follows the value.
    fn read_value(&mut self) -> Result<(), Fault> {
        self.row.clear();
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        loop {
            let Some(byte) = self.peek()? else {
                return Err(self.wrong("the file ends before the array is closed"));
            };
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b',' | b']' if depth == 0 => return Ok(()),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.line += usize::from(byte == b'\n');
            self.take();
            self.row.push(byte);
            if self.row.len() > MAX_ROW {
                return Err(self.wrong(&format!("a row of more than {MAX_ROW} bytes")));
            }
        }
    }
}

impl ReadRows for JsonArray {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        let line = match self.read() {
            Ok(line) => line?,
            Err(fault) => return Some(Err(fault)),
        };
        Some(serde_json::from_slice(&self.row).map_err(|error| {
            self.next = Next::End;
            let text = match self.row.iter().all(u8::is_ascii_whitespace) {
                true => "there is no row between two commas, or after the last one".to_string(),
                false => reason(&error),
            };
            let line = line + error.line().max(1) - 1;
            Fault::File(line, format!("the JSON array is invalid: {text}"))
        }))
    }

    fn skip_row(&mut self) -> Option<Result<(), Fault>> {
        match self.read() {
            Ok(line) => line.map(|_| Ok(())),
            Err(fault) => Some(Err(fault)),
        }
    }
}
