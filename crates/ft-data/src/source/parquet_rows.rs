//! Parquet files, as those of datasets on the hub. Columns are converted to JSON.

use std::fs::File;
use std::path::Path;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::{Fault, ReadRows};
use crate::{Error, Result};

pub(super) struct ParquetRows(RowIter<'static>);

impl ParquetRows {
    pub(super) fn open(file: File, path: &Path) -> Result<Self> {
        let wrong = |error: ParquetError| {
            Error::Dataset(format!("this is not a valid Parquet file: {error}")).in_file(path)
        };
        let reader = SerializedFileReader::new(file).map_err(wrong)?;
        if reader
            .metadata()
            .row_groups()
            .iter()
            .any(|group| group.num_rows() < 0)
        {
            return Err(wrong(ParquetError::General(
                "a negative number of rows".into(),
            )));
        }
        Ok(Self(RowIter::from_file_into(Box::new(reader))))
    }
}

impl ReadRows for ParquetRows {
    fn next_row(&mut self) -> Option<Result<Value, Fault>> {
        let row = self.0.next()?;
        Some(match row {
            Ok(row) => Ok(row.to_json_value()),
            Err(error) => Err(Fault::Io(std::io::Error::other(error))),
        })
    }
}
