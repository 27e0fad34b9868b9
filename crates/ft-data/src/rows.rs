//! Rows of a JSON or JSONL file.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// Reads a file of rows: one JSON array, or JSONL with one row a line.
///
/// A file whose first character is `[` is an array. Empty lines of JSONL are ignored.
///
/// # Errors
///
/// If the file cannot be read, is not JSON (with the line), or has no rows.
pub fn read_rows(path: impl AsRef<Path>) -> Result<Vec<Value>> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| Error::Read {
        path: path.to_path_buf(),
        source,
    })?;
    let rows = parse_rows(&bytes).map_err(|(line, reason)| Error::Json {
        path: path.to_path_buf(),
        line,
        reason,
    })?;
    if rows.is_empty() {
        return Err(
            Error::Dataset("the dataset is empty: the file has no rows".to_string()).in_file(path),
        );
    }
    Ok(rows)
}

/// The rows, or the line and the reason of the first error.
fn parse_rows(bytes: &[u8]) -> std::result::Result<Vec<Value>, (usize, String)> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        None => Ok(Vec::new()),
        Some(b'[') => serde_json::from_slice(bytes)
            .map_err(|error| (error.line(), format!("the JSON array is invalid: {error}"))),
        Some(_) => json_lines(bytes),
    }
}

fn json_lines(bytes: &[u8]) -> std::result::Result<Vec<Value>, (usize, String)> {
    let mut rows = Vec::new();
    for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(row) => rows.push(row),
            Err(_) if serde_json::from_slice::<Value>(bytes).is_ok() => {
                return Err((
                    index + 1,
                    "the file is one JSON value, but not an array of rows: put the rows into [ ], \
                     or write one row per line (JSONL)"
                        .to_string(),
                ));
            }
            Err(error) => {
                return Err((
                    index + 1,
                    format!(
                        "this line is not valid JSON, but every line of JSONL must be: {} (column {})",
                        reason(&error),
                        error.column()
                    ),
                ));
            }
        }
    }
    Ok(rows)
}

/// serde_json's message without its line number, which counts from the start of the row.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_and_lines_give_the_same_rows() {
        let array = parse_rows(b"\xef\xbb\xbf [{\"a\": 1},\n {\"a\": 2}]").unwrap();
        let lines = parse_rows(b"{\"a\": 1}\n\n{\"a\": 2}\r\n").unwrap();
        assert_eq!(array, lines);
        assert_eq!(array.len(), 2);
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(parse_rows(b"{\"a\": 1}\n\n{\"a\": }\n").unwrap_err().0, 3);
        assert_eq!(parse_rows(b"[{\"a\": 1},\n{\"a\" 2}]").unwrap_err().0, 2);
        assert_eq!(parse_rows(b"[{\"a\": 1},\n").unwrap_err().0, 2);
        assert_eq!(parse_rows(b"{\"a\": 1}\n\xff\n").unwrap_err().0, 2);
    }

    #[test]
    fn one_object_over_several_lines_is_not_reported_as_broken_lines() {
        let (line, reason) = parse_rows(b"{\n\"rows\": []\n}").unwrap_err();
        assert_eq!(line, 1);
        assert!(reason.contains("not an array"), "{reason}");
    }
}
