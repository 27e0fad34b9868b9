//! CSV and TSV with a line of names. All values are text: an answer `42` stays what it is.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use csv::{Reader, ReaderBuilder, StringRecord};
use serde_json::{Map, Value};

use super::{Fault, Input, MAX_ROW, ReadRows};
use crate::{Error, Result};

pub(super) struct CsvRows {
    reader: Reader<Limited>,
    left: Arc<AtomicUsize>,
    names: Vec<String>,
    record: StringRecord,
    ended: bool,
}

/// Stops to read within a row that does not end: a quote that is not closed.
struct Limited {
    input: Input,
    left: Arc<AtomicUsize>,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        let left = self.left.load(Ordering::Relaxed);
        if count > left {
            return Err(std::io::Error::other(format!(
                "a row of more than {MAX_ROW} bytes: is a quote not closed?"
            )));
        }
        self.left.store(left - count, Ordering::Relaxed);
        Ok(count)
    }
}

impl CsvRows {
    pub(super) fn open(input: Input, delimiter: u8) -> Result<Self> {
        let left = Arc::new(AtomicUsize::new(MAX_ROW));
        let input = Limited {
            input,
            left: left.clone(),
        };
        let mut reader = ReaderBuilder::new().delimiter(delimiter).from_reader(input);
        let header = reader.headers().map_err(|error| {
            Error::Dataset(format!("the line of column names cannot be read: {error}"))
        })?;
        let names: Vec<String> = header.iter().map(|name| name.trim().to_string()).collect();
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
            return Err(Error::Dataset(format!(
                "two columns are called `{twice}`: rename one of them in the first line"
            )));
        }
        Ok(Self {
            reader,
            left,
            names,
            record: StringRecord::new(),
            ended: false,
        })
    }
}

impl ReadRows for CsvRows {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        if self.ended {
            return None;
        }
        self.left.store(MAX_ROW, Ordering::Relaxed);
        match self.reader.read_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let texts = self.record.iter().map(Value::from);
                let row: Map<String, Value> = self.names.iter().cloned().zip(texts).collect();
                Some(Ok(row.into()))
            }
            Err(error) => Some(Err(match error.into_kind() {
                csv::ErrorKind::UnequalLengths {
                    len, expected_len, ..
                } => Fault::Row(
                    None,
                    format!(
                        "it has {len} values, but there are {expected_len} columns: quote values with commas"
                    ),
                ),
                csv::ErrorKind::Utf8 { err, .. } => Fault::Row(
                    None,
                    format!("it is not UTF-8 ({err}): convert the file to UTF-8"),
                ),
                csv::ErrorKind::Io(error) => {
                    self.ended = true;
                    Fault::Io(error)
                }
                other => {
                    self.ended = true;
                    Fault::Io(std::io::Error::other(format!("{other:?}")))
                }
            })),
        }
    }
}
