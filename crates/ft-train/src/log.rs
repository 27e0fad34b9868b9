//! The log: one JSON object a line, a line for each step and each evaluation.
//!
//! A run that was killed has logged steps that its newest checkpoint does not hold. Resuming cuts them
//! off, so that each step is in the log once.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use ft_core::safetensors_folder::write_file;
use serde::Serialize;
use serde_json::Value;

use crate::{Error, Result};

/// The log's name in the output folder.
pub(crate) const LOG: &str = "train_log.jsonl";

/// An open log.
#[derive(Debug)]
pub(crate) struct TrainLog {
    path: PathBuf,
    file: File,
}

impl TrainLog {
    /// An empty log; an earlier one is replaced.
    pub(crate) fn create(output_dir: &Path) -> Result<Self> {
        let path = output_dir.join(LOG);
        let file = File::create(&path).map_err(Error::write(&path))?;
        Ok(Self { path, file })
    }

    /// The log of an earlier run, without what came after `step`.
    pub(crate) fn resume(output_dir: &Path, step: usize) -> Result<Self> {
        let path = output_dir.join(LOG);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::read(&path)(error));
            }
            read => read.unwrap_or_default(),
        };
        let kept: String = text
            .lines()
            .filter(|line| step_of(line).is_some_and(|logged| logged <= step))
            .flat_map(|line| [line, "\n"])
            .collect();
        write_file(&path, kept.as_bytes())?;
        let file = (OpenOptions::new().append(true).open(&path)).map_err(Error::write(&path))?;
        Ok(Self { path, file })
    }

    /// Appends a line.
    pub(crate) fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| Error::write(&self.path)(std::io::Error::other(error)))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(Error::write(&self.path))
    }
}

/// The step of a line; none if a kill has cut it in two.
fn step_of(line: &str) -> Option<usize> {
    let record: Value = serde_json::from_str(line).ok()?;
    record["step"].as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_cuts_off_later_steps_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join(LOG);
        let text =
            "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"eval_loss\":1.0}\n{\"step\":3}\n{\"ste";
        std::fs::write(&path, text).expect("writes");
        let mut log = TrainLog::resume(folder.path(), 2).expect("resumes");
        log.append(&serde_json::json!({"step": 3}))
            .expect("appends");
        let text = std::fs::read_to_string(&path).expect("reads");
        let expected = "{\"step\":1}\n{\"step\":2}\n{\"step\":2,\"eval_loss\":1.0}\n{\"step\":3}\n";
        assert_eq!(text, expected);
    }
}
