//! All rows of files.

use std::path::Path;

use serde_json::Value;

use crate::source::{FileRows, files_of};
use crate::{Error, Result};

/// Reads all rows of a file, of the data files of a folder, or of the files that a glob matches (`data/*.jsonl.gz`).
///
/// | name | rows |
/// |---|---|
/// | `.json`, `.jsonl`, `.ndjson` | the values of a JSON array, or a value a line if the file does not begin with `[` |
/// | `.csv`, `.tsv` | the first line names the columns; all values are text |
/// | `.txt` | `{"text": line}` for each line that is not blank |
/// | `.parquet` | feature `parquet` |
///
/// Text files may be compressed with gzip or zstd (features `gzip`, `zstd`). For files larger than memory there is
/// [`RowStream`](crate::RowStream).
///
/// # Errors
///
/// If a file cannot be read, a row does not parse (with the line), or there are no rows.
pub fn read_rows(path: impl AsRef<Path>) -> Result<Vec<Value>> {
    let path = path.as_ref();
    let mut rows = Vec::new();
    for file in files_of(path)? {
        let mut reader = FileRows::open(&file)?;
        while let Some(row) = reader.next()? {
            rows.push(row?.value);
        }
    }
    if rows.is_empty() {
        return Err(Error::empty(path));
    }
    Ok(rows)
}
