//! Rows of files: which files a path names, and one reader for each kind of file.
//!
//! A path is a file, a folder (all data files in it and below, by name, or those that `datasets` has saved there), a glob, or
//! `hf://datasets/ORG/NAME` with any of these behind it. The kind of a file follows from its extension, compression from its first bytes. Readers hold one row at a time, so that a file may be larger than memory.

#[cfg(feature = "arrow")]
mod arrow_rows;
mod csv_rows;
mod decompress;
mod files;
mod hub_dataset;
mod json_array;
mod json_lines;
mod lines;
#[cfg(feature = "parquet")]
mod parquet_rows;
mod saved_dataset;
mod text_rows;

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

pub use files::data_files;
pub(crate) use files::{files_of, walk};

use crate::{Error, Result};

/// The most bytes that a row may have. A longer one is an error, so that a file without line ends does not fill the memory: as
/// values of JSON, a row of many small numbers takes thirty times its bytes.
pub(crate) const MAX_ROW: usize = 1 << 24;

/// A row and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The row: an object of columns, unless the file has something else.
    pub value: Value,
    /// Where it was read.
    pub place: Place,
}

/// Where a row was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file; empty if the rows come from memory.
    pub file: Arc<Path>,
    /// The row, or the line, counted from 1.
    pub number: usize,
    /// Whether [`number`](Self::number) counts lines. Only a line that is not valid JSON is named by it.
    pub by_line: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.by_line { "line" } else { "row" };
        if self.file.as_os_str().is_empty() {
            write!(f, "{unit} {}", self.number)
        } else {
            write!(f, "{}: {unit} {}", self.file.display(), self.number)
        }
    }
}

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Where it was read.
    pub place: Place,
    /// What is wrong with it, and how to fix it.
    pub reason: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl From<BadRow> for Error {
    fn from(bad: BadRow) -> Self {
        let BadRow { place, reason } = bad;
        let (path, number) = (place.file.to_path_buf(), place.number);
        if place.by_line {
            return Self::Json {
                path,
                line: number,
                reason,
            };
        }
        let error = Self::Row {
            row: number,
            reason,
        };
        match path.as_os_str().is_empty() {
            true => error,
            false => error.in_file(&path),
        }
    }
}

/// What a reader found wrong.
#[derive(Debug)]
pub(crate) enum Fault {
    /// One row cannot be used; those after it can be read. The line if it is known.
    Row(Option<usize>, String),
    /// Nothing after this can be read. The line, and why.
    File(usize, String),
    /// The file could not be read.
    Io(std::io::Error),
}

/// Reads the rows of a file one after the other.
pub(crate) trait ReadRows: Send {
    /// The next row; `None` at the end and after an error of the file.
    fn next_row(&mut self) -> Option<Result<Value, Fault>>;

    /// Passes over the next row; `None` at the end.
    fn skip_row(&mut self) -> Option<Result<(), Fault>> {
        match self.next_row()? {
            Ok(_) | Err(Fault::Row(..)) => Some(Ok(())),
            Err(fault) => Some(Err(fault)),
        }
    }
}

/// The rows of an open file.
pub(crate) struct FileRows {
    path: Arc<Path>,
    reader: Box<dyn ReadRows>,
    /// How many rows were read.
    number: usize,
}

impl FileRows {
    /// Opens a file of any known kind.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let kind = files::kind_of_file(path)?;
        Ok(Self {
            reader: kind.reader(path)?,
            path: path.into(),
            number: 0,
        })
    }

    /// The next row, or why it cannot be used.
    pub(crate) fn next(&mut self) -> Result<Option<Result<Row, BadRow>>> {
        let Some(found) = self.reader.next_row() else {
            return Ok(None);
        };
        self.number += 1;
        let place = |line: Option<usize>| Place {
            file: self.path.clone(),
            number: line.unwrap_or(self.number),
            by_line: line.is_some(),
        };
        match found {
            Ok(value) => Ok(Some(Ok(Row {
                value,
                place: place(None),
            }))),
            Err(Fault::Row(line, reason)) => Ok(Some(Err(BadRow {
                place: place(line),
                reason,
            }))),
            Err(fault) => Err(self.fatal(fault)),
        }
    }

    /// Passes over `count` rows.
    pub(crate) fn skip(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            match self.reader.skip_row() {
                Some(Ok(())) => self.number += 1,
                Some(Err(fault)) => return Err(self.fatal(fault)),
                None => {
                    return Err(Error::Dataset(format!(
                        "the file ends after {} rows, but {count} were read from it before: it has changed",
                        self.number
                    ))
                    .in_file(&self.path));
                }
            }
        }
        Ok(())
    }

    fn fatal(&self, fault: Fault) -> Error {
        let path = self.path.to_path_buf();
        match fault {
            Fault::File(line, reason) => Error::Json { path, line, reason },
            Fault::Io(source) => Error::Read { path, source },
            Fault::Row(_, reason) => Error::Row {
                row: self.number,
                reason,
            }
            .in_file(&path),
        }
    }
}

/// The kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An array, or a row a line.
    Json,
    Csv(u8),
    Text,
    #[cfg(feature = "parquet")]
    Parquet,
    #[cfg(feature = "arrow")]
    Arrow,
}

impl Kind {
    fn reader(self, path: &Path) -> Result<Box<dyn ReadRows>> {
        let read = |source| Error::Read {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        #[cfg(feature = "parquet")]
        if self == Self::Parquet {
            return Ok(Box::new(parquet_rows::ParquetRows::open(file, path)?));
        }
        #[cfg(feature = "arrow")]
        if self == Self::Arrow {
            return Ok(Box::new(arrow_rows::ArrowRows::open(file, path)?));
        }
        let file = decompress::decompressed(file, path)?;
        let mut input = BufReader::with_capacity(1 << 16, file);
        skip_byte_order_mark(&mut input).map_err(read)?;
        Ok(match self {
            Self::Json => {
                let (first, line) = first_byte(&mut input).map_err(read)?;
                match first {
                    Some(b'[') => Box::new(json_array::JsonArray::new(input, line)),
                    _ => Box::new(json_lines::JsonLines::new(input, line)),
                }
            }
            Self::Csv(delimiter) => Box::new(
                csv_rows::CsvRows::open(input, delimiter).map_err(|error| error.in_file(path))?,
            ),
            Self::Text => Box::new(text_rows::TextRows::new(input)),
            #[cfg(feature = "parquet")]
            Self::Parquet => unreachable!("opened above"),
            #[cfg(feature = "arrow")]
            Self::Arrow => unreachable!("opened above"),
        })
    }
}

fn skip_byte_order_mark(input: &mut impl BufRead) -> std::io::Result<()> {
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// Passes over white space; the byte after it, which is not taken, and its line.
fn first_byte(input: &mut impl BufRead) -> std::io::Result<(Option<u8>, usize)> {
    let mut line = 1;
    loop {
        match input.fill_buf()?.first() {
            Some(byte) if byte.is_ascii_whitespace() => {
                line += usize::from(*byte == b'\n');
                input.consume(1);
            }
            first => return Ok((first.copied(), line)),
        }
    }
}

/// A decompressed or plain file.
pub(crate) type Input = BufReader<Box<dyn Read + Send>>;

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Cursor;

    use super::*;

    pub(crate) fn input(bytes: &[u8]) -> Input {
        BufReader::with_capacity(3, Box::new(Cursor::new(bytes.to_vec())))
    }

    /// All rows, or the line and the reason of the first error.
    pub(crate) fn rows(bytes: &[u8]) -> Result<Vec<Value>, (usize, String)> {
        let mut input = input(bytes);
        let (first, line) = first_byte(&mut input).expect("reads");
        let mut reader: Box<dyn ReadRows> = match first {
            Some(b'[') => Box::new(json_array::JsonArray::new(input, line)),
            _ => Box::new(json_lines::JsonLines::new(input, line)),
        };
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row() {
            match row {
                Ok(row) => rows.push(row),
                Err(Fault::Row(line, reason)) => return Err((line.unwrap_or(0), reason)),
                Err(Fault::File(line, reason)) => return Err((line, reason)),
                Err(Fault::Io(error)) => return Err((0, error.to_string())),
            }
        }
        Ok(rows)
    }

    #[test]
    fn arrays_and_lines_give_the_same_rows() {
        let array = rows(b" [{\"a\": \"]},[\\\"\"},\n {\"a\": 2} ]\n").expect("is JSON");
        let lines = rows(b"{\"a\": \"]},[\\\"\"}\n\n{\"a\": 2}\r\n").expect("is JSON");
        assert_eq!(array, lines);
        assert_eq!(array.len(), 2);
        assert_eq!(rows(b"[]").expect("is JSON"), Vec::<Value>::new());
        assert_eq!(rows(b"[1, [2, [3]], null]").expect("is JSON").len(), 3);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, line) in [
            (&b"{\"a\": 1}\n\n{\"a\": }\n"[..], 3),
            (b"\n\n{\"a\": }\n", 3),
            (b"[{\"a\": 1},\n{\"a\" 2}]", 2),
            (b"[{\"a\": 1},\n{\"a\":\n 2]}]", 3),
            (b"[{\"a\": 1},\n", 2),
            (b"[{\"a\": 1}\n{\"a\": 1}]", 2),
            (b"[{\"a\": 1},]", 1),
            (b"[{\"a\": 1}] x", 1),
            (b"{\"a\": 1}\n\xff\n", 2),
        ] {
            let found = rows(text).expect_err("is not JSON");
            assert_eq!(
                found.0,
                line,
                "{}: {}",
                String::from_utf8_lossy(text),
                found.1
            );
        }
    }

    #[test]
    fn one_object_over_several_lines_is_not_reported_as_broken_lines() {
        let (line, reason) = rows(b"{\n\"rows\": []\n}").expect_err("is no array");
        assert_eq!(line, 1);
        assert!(reason.contains("not an array"), "{reason}");
    }
}
