//! What of a model is in the hub's cache, read from the file system alone.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::repo_id::{RepoId, Revision, is_commit};
use crate::{Error, Result};

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
const TOKENIZER: &str = "tokenizer.json";

/// The folder of one model or dataset in the cache, which need not exist.
#[derive(Clone, Debug)]
pub(super) struct CachedRepo {
    folder: PathBuf,
}

/// The files of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// Where they are.
    pub(super) folder: PathBuf,
    /// Files without which nothing can be loaded.
    pub(super) missing: Vec<String>,
}

impl CachedRepo {
    pub(super) fn new(cache: &Path, id: &RepoId) -> Self {
        Self {
            folder: cache.join(id.folder_name()),
        }
    }

    /// That of a dataset.
    pub(super) fn of_dataset(cache: &Path, id: &RepoId) -> Self {
        Self {
            folder: cache.join(id.dataset_folder_name()),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The snapshot that a revision names, if there is one.
    pub(super) fn find(&self, revision: &Revision) -> Result<Option<Snapshot>> {
        let Some(folder) = self.find_folder(revision)? else {
            return Ok(None);
        };
        let missing = missing_files(&folder)?;
        Ok(Some(Snapshot { folder, missing }))
    }

    /// The folder of the snapshot that a revision names, if there is one, complete or not.
    pub(super) fn find_folder(&self, revision: &Revision) -> Result<Option<PathBuf>> {
        let commit = if revision.is_commit() {
            revision.as_str().to_string()
        } else {
            let path = self.reference(revision);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) if is_absence(e.kind()) => return Ok(None),
                Err(e) => return Err(Error::read(&path)(e)),
            };
            let commit = text.trim();
            if !is_commit(commit) {
                return Err(Error::invalid(
                    &path,
                    format!("should hold a commit hash, but holds {commit:?}: delete the file"),
                ));
            }
            commit.to_string()
        };
        let folder = self.snapshot(&commit);
        Ok(folder.is_dir().then_some(folder))
    }

    /// The file that says which commit a revision is.
    pub(super) fn reference(&self, revision: &Revision) -> PathBuf {
        self.folder.join("refs").join(revision.as_str())
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }
}

impl Snapshot {
    /// Whether nothing that a model or adapter usually has is missing. Python may have fetched the
    /// weights without the tokenizer.
    pub(super) fn is_whole(&self) -> bool {
        self.missing.is_empty()
            && (self.folder.join(TOKENIZER).is_file()
                || self.folder.join(ADAPTER_WEIGHTS).is_file())
    }
}

fn is_absence(kind: ErrorKind) -> bool {
    // A reference `a` is a file, and `a/b` is asked for; or the other way round.
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

/// What a folder lacks to be a model or an adapter; links into nowhere count as missing.
fn missing_files(folder: &Path) -> Result<Vec<String>> {
    let has = |name: &str| folder.join(name).is_file();
    let adapter = has(ADAPTER_CONFIG);
    if adapter && has(ADAPTER_WEIGHTS) {
        return Ok(Vec::new());
    }
    if adapter && !has(CONFIG) {
        return Ok(vec![ADAPTER_WEIGHTS.to_string()]);
    }
    let mut missing = Vec::new();
    if !has(CONFIG) {
        missing.push(CONFIG.to_string());
    }
    if has(WEIGHTS) {
        return Ok(missing);
    }
    if has(INDEX) {
        let shards = shards(&folder.join(INDEX))?;
        missing.extend(shards.into_iter().filter(|shard| !has(shard)));
    } else {
        missing.push(WEIGHTS.to_string());
    }
    Ok(missing)
}

/// The files that an index spreads the weights over. They are plain names in the index's folder.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(index).map_err(Error::read(index))?;
    let parsed: Value = serde_json::from_str(&text)
        .map_err(|e| Error::invalid(index, format!("not valid JSON: {e}")))?;
    let Some(weight_map) = parsed["weight_map"].as_object() else {
        return Err(Error::invalid(index, "has no weight_map"));
    };
    let mut shards = BTreeSet::new();
    for (tensor, file) in weight_map {
        match file.as_str().filter(|file| is_shard_name(file)) {
            Some(file) => shards.insert(file.to_string()),
            None => {
                return Err(Error::invalid(
                    index,
                    format!(
                        "{tensor} is said to be in {file}, which is not the name of a safetensors \
                         file"
                    ),
                ));
            }
        };
    }
    Ok(shards)
}

/// A safetensors file by a plain name: no folder, no pickle, no pattern.
fn is_shard_name(file: &str) -> bool {
    file.ends_with(".safetensors") && is_plain_name(file)
}

/// Letters, digits, `-`, `_` and `.`, the last not in front.
pub(super) fn is_plain_name(file: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !file.is_empty() && !file.starts_with('.') && file.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::{is_shard_name, missing_files};

    fn missing(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        missing_files(folder.path()).unwrap()
    }

    #[test]
    fn a_model_needs_its_configuration_and_all_of_its_weights() {
        let index = r#"{"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}"#;
        let none: [&str; 0] = [];
        assert_eq!(missing(&[]), ["config.json", "model.safetensors"]);
        assert_eq!(missing(&[("config.json", "{}")]), ["model.safetensors"]);
        assert_eq!(missing(&[("model.safetensors", "")]), ["config.json"]);
        assert_eq!(
            missing(&[("config.json", "{}"), ("model.safetensors", "")]),
            none
        );
        let mut sharded = vec![
            ("config.json", "{}"),
            ("model.safetensors.index.json", index),
            ("m-1.safetensors", ""),
        ];
        assert_eq!(missing(&sharded), ["m-2.safetensors"]);
        sharded.push(("m-2.safetensors", ""));
        assert_eq!(missing(&sharded), none);
    }

    #[test]
    fn an_adapter_needs_no_model() {
        let none: [&str; 0] = [];
        let config = ("adapter_config.json", "{}");
        assert_eq!(missing(&[config]), ["adapter_model.safetensors"]);
        assert_eq!(missing(&[config, ("adapter_model.safetensors", "")]), none);
        // Adapter repositories may carry the base model's configuration as well.
        assert_eq!(
            missing(&[
                config,
                ("adapter_model.safetensors", ""),
                ("config.json", "{}")
            ]),
            none
        );
    }

    #[test]
    fn shards_are_plain_safetensors_names() {
        for good in [
            "model-00001-of-00002.safetensors",
            "diffusion_pytorch.safetensors",
        ] {
            assert!(is_shard_name(good), "{good}");
        }
        for bad in [
            "../x.safetensors",
            "a/b.safetensors",
            "/x.safetensors",
            "a\\b.safetensors",
            "*.safetensors",
            ".safetensors",
            "pytorch_model-1.bin",
            "",
        ] {
            assert!(!is_shard_name(bad), "{bad}");
        }
    }
}
