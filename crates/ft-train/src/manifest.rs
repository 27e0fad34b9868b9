//! A manifest from which a run can be repeated: its arguments, data and versions, and its results.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ft_core::safetensors_folder::write_json;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Error, Result, TrainReport};

/// The name of the file in an output folder.
pub const MANIFEST: &str = "manifest.json";

/// A run: everything that it depends on, and its results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program, and its arguments, which repeat the run.
    pub program: String,
    /// The arguments of the program.
    pub arguments: Vec<String>,
    /// Versions by name: of ft, of the compiler's target, of the operating system.
    pub versions: BTreeMap<String, String>,
    /// The device.
    pub device: String,
    /// Facts by name: settings, seeds, hashes of the rows and of the chat template.
    pub facts: BTreeMap<String, Value>,
    /// Files by what they are for, with their sizes and hashes.
    pub files: BTreeMap<String, FileFacts>,
    /// What came out, once the run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<Results>,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Where it was.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Steps taken.
    pub steps: usize,
    /// The loss of each step.
    pub train_losses: Vec<f64>,
    /// The loss of each evaluation.
    pub eval_losses: Vec<f64>,
}

impl From<&TrainReport> for Results {
    fn from(report: &TrainReport) -> Self {
        Self {
            steps: report.steps,
            train_losses: report.train_losses.clone(),
            eval_losses: report
                .evaluations
                .iter()
                .map(|one| one.metrics.loss)
                .collect(),
        }
    }
}

impl Manifest {
    /// A manifest of this process: `arguments` without the program's name.
    pub fn new(program: &str, arguments: impl IntoIterator<Item = String>, device: &str) -> Self {
        let versions = [
            ("ft", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        Self {
            program: program.to_string(),
            arguments: arguments.into_iter().collect(),
            versions: versions
                .map(|(name, version)| (name.into(), version.into()))
                .into(),
            device: device.to_string(),
            ..Self::default()
        }
    }

    /// With a fact.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_string(), value.into());
        self
    }

    /// With a file, which is read for its hash.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn with_file(mut self, name: &str, path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::read(path))?;
        let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
        loop {
            let count = file.read(&mut buffer).map_err(Error::read(path))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            bytes += count as u64;
        }
        let facts = FileFacts {
            path: path.to_path_buf(),
            bytes,
            sha256: hexadecimal(&hash.finalize()),
        };
        self.files.insert(name.to_string(), facts);
        Ok(self)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is none.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
        serde_json::from_str(&text).map_err(|error| Error::read(path)(std::io::Error::other(error)))
    }

    /// Writes it as `manifest.json` into a folder, whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn write(&self, folder: impl AsRef<Path>) -> Result<()> {
        Ok(write_json(&folder.as_ref().join(MANIFEST), self)?)
    }

    /// What differs between this run and a repetition of it, a line each. Paths and arguments may differ: what counts is what is in
    /// the files and what comes out. Results are compared to the bit.
    pub fn differences(&self, repeated: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut compare = |name: String, before: Option<String>, now: Option<String>| {
            if before != now {
                let shown = |value: Option<String>| value.unwrap_or_else(|| "absent".to_string());
                lines.push(format!(
                    "{name}: {} before, {} now",
                    shown(before),
                    shown(now)
                ));
            }
        };
        compare(
            "device".into(),
            Some(self.device.clone()),
            Some(repeated.device.clone()),
        );
        for name in names(&self.versions, &repeated.versions) {
            let version = |of: &Self| of.versions.get(name).cloned();
            compare(
                format!("version of {name}"),
                version(self),
                version(repeated),
            );
        }
        for name in names(&self.facts, &repeated.facts) {
            let fact = |of: &Self| of.facts.get(name).map(Value::to_string);
            compare(name.to_string(), fact(self), fact(repeated));
        }
        for name in names(&self.files, &repeated.files) {
            let file = |of: &Self| {
                let file = of.files.get(name)?;
                Some(format!("{} bytes, SHA-256 {}", file.bytes, file.sha256))
            };
            compare(format!("file {name}"), file(self), file(repeated));
        }
        if let (Some(before), Some(now)) = (&self.results, &repeated.results) {
            compare(
                "steps".into(),
                Some(before.steps.to_string()),
                Some(now.steps.to_string()),
            );
            for (all, what, before, now) in [
                (
                    "training losses",
                    "training loss of step",
                    &before.train_losses,
                    &now.train_losses,
                ),
                (
                    "evaluations",
                    "loss of evaluation",
                    &before.eval_losses,
                    &now.eval_losses,
                ),
            ] {
                let (count, count_now) = (before.len(), now.len());
                if count != count_now {
                    lines.push(format!("number of {all}: {count} before, {count_now} now"));
                }
                let pairs = before.iter().zip(now).enumerate();
                let mut differ =
                    pairs.filter(|(_, (before, now))| before.to_bits() != now.to_bits());
                if let Some((place, (before, now))) = differ.next() {
                    let more = differ.count();
                    let more = if more > 0 {
                        format!(" (and {more} more)")
                    } else {
                        String::new()
                    };
                    lines.push(format!(
                        "{what} {}: {before} before, {now} now{more}",
                        place + 1
                    ));
                }
            }
        }
        lines
    }
}

fn names<'a, T>(a: &'a BTreeMap<String, T>, b: &'a BTreeMap<String, T>) -> Vec<&'a str> {
    let mut names: Vec<&str> = a.keys().chain(b.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_differences_are_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("data.txt");
        std::fs::write(&data, "abc").expect("writes");
        let results = |loss: f64| Results {
            steps: 2,
            train_losses: vec![1.5, loss, loss],
            eval_losses: vec![0.1 + 0.2],
        };
        let manifest = |loss: f64, seed: u64| {
            let new = Manifest::new("sft", ["--seed".to_string()], "cpu").with_fact("seed", seed);
            let mut new = new.with_file("data", &data).expect("reads");
            new.results = Some(results(loss));
            new
        };
        let before = manifest(1.25, 1);
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(before.files["data"].sha256, hash);
        before.write(folder.path()).expect("writes");
        let read = Manifest::read(folder.path().join(MANIFEST)).expect("reads");
        assert_eq!(read, before);
        assert_eq!(read.differences(&before), Vec::<String>::new());

        std::fs::write(&data, "abcd").expect("writes");
        let lines = read.differences(&manifest(1.5, 2));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], "seed: 1 before, 2 now");
        assert!(
            lines[1].starts_with("file data: 3 bytes, SHA-256 ba78"),
            "{}",
            lines[1]
        );
        assert_eq!(
            lines[2],
            "training loss of step 2: 1.25 before, 1.5 now (and 1 more)"
        );

        let mut longer = before.clone();
        let results = longer.results.as_mut().expect("has results");
        results.eval_losses.push(0.5);
        let lines = before.differences(&longer);
        assert_eq!(lines, ["number of evaluations: 1 before, 2 now"]);
    }
}
