//! Lines of bounded length.

use std::io::{BufRead, Read};

use super::{Fault, Input, MAX_ROW};

/// Reads lines and counts them.
pub(super) struct Lines {
    input: Input,
    /// The line that was read last, counted from 1.
    pub(super) number: usize,
    line: Vec<u8>,
}

impl Lines {
    /// The lines of `input`, which stands at the beginning of line `first`.
    pub(super) fn new(input: Input, first: usize) -> Self {
        Self {
            input,
            number: first - 1,
            line: Vec::new(),
        }
    }

    /// The next line that is not blank, without its end.
    pub(super) fn next_line(&mut self) -> Option<Result<&[u8], Fault>> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.input).take(MAX_ROW as u64);
            match limited.read_until(b'\n', &mut self.line) {
                Err(error) => return Some(Err(Fault::Io(error))),
                Ok(0) => return None,
                Ok(_) => self.number += 1,
            }
            if self.line.len() == MAX_ROW && self.line.last() != Some(&b'\n') {
                let reason = format!(
                    "a line of more than {MAX_ROW} bytes: is this a text file with a row a line?"
                );
                return Some(Err(Fault::File(self.number, reason)));
            }
            while self.line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                self.line.pop();
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                break;
            }
        }
        Some(Ok(&self.line))
    }
}
