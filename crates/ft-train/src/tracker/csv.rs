//! One CSV file of all numbers: `step,name,value`, a line a number, which spreadsheets and data frames pivot.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ft_core::safetensors_folder::write_file;

use super::Tracker;
use crate::BoxError;

const HEADER: &str = "step,name,value\n";

/// Writes `step,name,value` lines. A run from the beginning replaces the file of an earlier run; a file of another kind is an error.
#[derive(Debug)]
pub struct CsvTracker {
    path: PathBuf,
    file: Option<File>,
}

impl CsvTracker {
    /// Lines in this file.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            file: None,
        }
    }
}

impl Tracker for CsvTracker {
    fn begin(&mut self, after: usize) -> Result<(), BoxError> {
        let earlier = match fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => {
                read.map_err(|error| format!("cannot read {}: {error}", self.path.display()))?
            }
        };
        if !earlier.is_empty() && !earlier.starts_with(HEADER.as_bytes()) {
            return Err(format!(
                "{} is not a file of numbers of a run: its first line is not `{}`; name another file",
                self.path.display(),
                HEADER.trim_end()
            )
            .into());
        }
        let mut kept = HEADER.to_string();
        if after > 0 {
            let earlier = String::from_utf8_lossy(&earlier);
            let step = |line: &str| line.split_once(',').and_then(|(step, _)| step.parse().ok());
            let whole = earlier
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'));
            kept.extend(whole.filter(|line| step(line).is_some_and(|step: usize| step <= after)));
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_file(&self.path, kept.as_bytes())?;
        self.file = Some(File::options().append(true).open(&self.path)?);
        Ok(())
    }

    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
        let lines: String = scalars
            .iter()
            .map(|(name, value)| format!("{step},{},{value}\n", quoted(name)))
            .collect();
        let path = &self.path;
        let file = self
            .file
            .as_mut()
            .ok_or("CsvTracker::begin was not called")?;
        let written = file.write_all(lines.as_bytes());
        Ok(written.map_err(|error| format!("cannot write {}: {error}", path.display()))?)
    }
}

fn quoted(name: &str) -> String {
    match name.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_left_as_they_are() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("rows.csv");
        for text in [&b"a,b\n1,2\n"[..], b"step,name\n", b"\xff\xfe"] {
            fs::write(&path, text).expect("writes");
            for after in [0, 3] {
                let error = CsvTracker::new(&path).begin(after).expect_err("is foreign");
                assert!(error.to_string().contains("name another file"), "{error}");
                assert_eq!(fs::read(&path).expect("reads"), text);
            }
        }
        // Without the rows of the earlier process a run cannot be continued.
        assert!(CsvTracker::new(folder.path()).begin(3).is_err());
    }

    #[test]
    fn a_resumed_run_cuts_off_later_steps_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("runs/a.csv");
        let mut tracker = CsvTracker::new(&path);
        tracker.begin(0).expect("begins");
        for step in 1..=3 {
            tracker
                .log(step, &[("a,b".into(), step as f64 / 2.0)])
                .expect("logs");
        }
        let text = fs::read_to_string(&path).expect("reads");
        fs::write(&path, format!("{text}2,torn")).expect("writes");
        let mut tracker = CsvTracker::new(&path);
        tracker.begin(2).expect("begins");
        tracker.log(3, &[("c".into(), 7.0)]).expect("logs");
        let text = fs::read_to_string(&path).expect("reads");
        assert_eq!(text, "step,name,value\n1,\"a,b\",0.5\n2,\"a,b\",1\n3,c,7\n");
    }
}
