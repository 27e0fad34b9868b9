//! The rows of files, one file after the other.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Next, Stream, foreign, number};
use crate::source::{FileRows, data_files};
use crate::{Error, Result};

const KIND: &str = "files";

pub(super) struct Files {
    files: Vec<PathBuf>,
    /// Their names below the folder that they have in common, and their sizes.
    names: Vec<(String, u64)>,
    /// The place of the file that is read.
    at: usize,
    open: Option<FileRows>,
    /// How many rows of it were read.
    read: usize,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (mut files, mut names) = (Vec::new(), Vec::new());
        for (name, file) in data_files(path)? {
            let facts = fs::metadata(&file).map_err(|source| Error::Read {
                path: file.clone(),
                source,
            })?;
            names.push((name, facts.len()));
            files.push(file);
        }
        Ok(Self {
            files,
            names,
            at: 0,
            open: None,
            read: 0,
        })
    }
}

impl Stream for Files {
    fn next(&mut self) -> Next {
        while self.at < self.files.len() {
            let file = match self.open.take() {
                Some(file) => self.open.insert(file),
                None => self.open.insert(FileRows::open(&self.files[self.at])?),
            };
            if let Some(row) = file.next()? {
                self.read += 1;
                return Ok(Some(row));
            }
            (self.at, self.read, self.open) = (self.at + 1, 0, None);
        }
        Ok(None)
    }

    fn description(&self) -> Value {
        json!({"kind": KIND, "files": self.names})
    }

    fn state(&self) -> Value {
        json!({"kind": KIND, "file": self.at, "row": self.read})
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let at = number(state, "file", KIND)? as usize;
        let read = number(state, "row", KIND)? as usize;
        if state["kind"] != KIND {
            return Err(foreign(state, KIND));
        }
        (self.at, self.read, self.open) = (at, read, None);
        if let Some(file) = self.files.get(at) {
            let mut file = FileRows::open(file)?;
            file.skip(read)?;
            self.open = Some(file);
        }
        Ok(())
    }

    fn restart(&mut self, _: u64) -> Result<()> {
        (self.at, self.read, self.open) = (0, 0, None);
        Ok(())
    }
}
