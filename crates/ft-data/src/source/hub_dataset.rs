//! Datasets of the hub: `hf://datasets/ORG/NAME[@REVISION][/PATH]`, as the file systems of `huggingface_hub` write them.
//!
//! The path is a file, a folder or a glob in the repository. Without one, the files of the split `train` are meant, if names of files tell
//! splits apart (`data/train-00000-of-00002.parquet`), so that no test rows are learnt. With the cargo feature `hub` of ft-core these
//! files are downloaded, and no others.

use std::path::{Path, PathBuf};

use ft_core::{HubOptions, resolve_dataset};

use super::files::{files_of, kind_of};
use crate::{Error, Result};

const PREFIX: &str = "hf://datasets/";

/// A dataset, and what of it is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HubDataset {
    id: String,
    revision: Option<String>,
    /// Empty for the split `train`.
    path: String,
}

impl HubDataset {
    /// The dataset that a path names; none if the path is one of files.
    pub(super) fn of(path: &Path) -> Option<Result<Self>> {
        let rest = path.to_str()?.strip_prefix(PREFIX)?;
        let mut parts = rest.splitn(3, '/');
        let (org, name) = (parts.next()?, parts.next().unwrap_or_default());
        let path = parts.next().unwrap_or_default().trim_end_matches('/');
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision.to_string())),
            None => (name, None),
        };
        let leaves = path.split('/').any(|part| part == "..");
        if org.is_empty() || name.is_empty() || leaves {
            return Some(Err(Error::Settings(format!(
                "`{PREFIX}{rest}` names no dataset: write {PREFIX}ORG/NAME, {PREFIX}ORG/NAME/data/train-*.parquet, or \
                 {PREFIX}ORG/NAME@REVISION"
            ))));
        }
        Some(Ok(Self {
            id: format!("{org}/{name}"),
            revision,
            path: path.to_string(),
        }))
    }

    /// Its files in the cache, after downloading those that are missing.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        self.files_with(HubOptions::from_env())
    }

    fn files_with(&self, options: HubOptions) -> Result<Vec<PathBuf>> {
        let options = HubOptions {
            revision: self.revision.clone().or(options.revision.clone()),
            ..options
        };
        let folder = resolve_dataset(&self.id, &|all| self.wanted(all), &options)?;
        let files = match self.path.as_str() {
            "" => {
                let all = files_of(&folder)?;
                let below = |file: &Path| {
                    let name = file.strip_prefix(&folder).unwrap_or(file);
                    name.to_string_lossy().replace('\\', "/")
                };
                of_train(all, |file| split_of(&below(file)))
            }
            path => files_of(&folder.join(path))?,
        };
        if files.is_empty() {
            return Err(Error::Dataset(format!(
                "the dataset {} has no split `train`: name files, as {PREFIX}{}/data/test-*.parquet",
                self.id, self.id
            )));
        }
        self.check_shards(&files)?;
        Ok(files)
    }

    /// The names that are meant, of all names in the repository.
    fn wanted(&self, all: &[String]) -> Vec<String> {
        let is_data = |name: &&String| {
            let hidden = name.split('/').any(|part| part.starts_with('.'));
            !hidden && kind_of(Path::new(name)).is_some()
        };
        let mut wanted: Vec<String> = match self.path.as_str() {
            "" => {
                let of_train = of_train(all.iter().collect(), |name| split_of(name));
                of_train.into_iter().filter(is_data).cloned().collect()
            }
            path => {
                let below = format!("{path}/");
                let named =
                    |name: &&String| *name == path || name.starts_with(&below) && is_data(name);
                all.iter().filter(named).cloned().collect()
            }
        };
        if wanted.is_empty()
            && let Ok(pattern) = glob::Pattern::new(&self.path)
        {
            // As `files_of`, whose stars do not cross folders.
            let options = glob::MatchOptions {
                require_literal_separator: true,
                ..glob::MatchOptions::new()
            };
            let matches = |name: &&String| pattern.matches_with(name, options) && is_data(name);
            wanted.extend(all.iter().filter(matches).cloned());
        }
        // What `save_to_disk` of Hugging Face's datasets writes beside the rows, which says what belongs together.
        let saved = |name: &&String| {
            let name = name.rsplit('/').next().unwrap_or(name);
            matches!(
                name,
                "state.json" | "dataset_info.json" | "dataset_dict.json"
            )
        };
        if all.iter().any(|name| name.ends_with("state.json")) {
            let more = all
                .iter()
                .filter(saved)
                .filter(|name| !wanted.contains(name));
            let more: Vec<String> = more.cloned().collect();
            wanted.extend(more);
        }
        wanted
    }

    /// A cache may have a part of the files only: `train-00000-of-00003` says how many there are.
    fn check_shards(&self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let Some((begin, end, count)) = shards(&name) else {
                continue;
            };
            for shard in 0..count {
                let shard = format!("{begin}{shard:05}-of-{count:05}{end}");
                if !file.with_file_name(&shard).is_file() {
                    return Err(Error::Dataset(format!(
                        "{shard} is missing: the cache has a part of the dataset {0} only: download the rest with \
                         `hf download {0} --repo-type dataset`",
                        self.id
                    ))
                    .in_file(file));
                }
            }
        }
        Ok(())
    }
}

/// The files of the split `train`, or all of them if no name tells a split.
fn of_train<F>(files: Vec<F>, split: impl Fn(&F) -> Option<&'static str>) -> Vec<F> {
    match files.iter().any(|file| split(file).is_some()) {
        true => (files.into_iter())
            .filter(|file| split(file) == Some("train"))
            .collect(),
        false => files,
    }
}

/// What comes before and after `NNNNN-of-MMMMM` in a name, and how many there are.
fn shards(name: &str) -> Option<(&str, &str, usize)> {
    const DIGITS: usize = 5;
    let at = name.find("-of-")?;
    let (begin, number) = name[..at].split_at_checked(at.checked_sub(DIGITS)?)?;
    let (count, end) = name[at + 4..].split_at_checked(DIGITS)?;
    number.parse::<usize>().ok()?;
    Some((begin, end, count.parse().ok()?))
}

/// The split that a path names: a folder or the beginning of the name of the file, as datasets reads them.
pub(super) fn split_of(path: &str) -> Option<&'static str> {
    const SPLITS: [(&str, &str); 7] = [
        ("train", "train"),
        ("training", "train"),
        ("test", "test"),
        ("testing", "test"),
        ("validation", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
    ];
    let words = path.split(['/', '.', '-', '_']);
    words
        .filter_map(|word| SPLITS.iter().find(|(name, _)| *name == word))
        .map(|(_, split)| *split)
        .next()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn dataset(path: &str) -> HubDataset {
        HubDataset::of(Path::new(path))
            .expect("is of the hub")
            .expect("is a dataset")
    }

    #[test]
    fn addresses_name_a_dataset_a_revision_and_files() {
        let whole = dataset("hf://datasets/org/name");
        assert_eq!((whole.id.as_str(), whole.path.as_str()), ("org/name", ""));
        let part = dataset("hf://datasets/org/name@v1/data/train-*.parquet");
        assert_eq!(part.revision.as_deref(), Some("v1"));
        assert_eq!(part.path, "data/train-*.parquet");
        assert!(HubDataset::of(Path::new("data/rows.jsonl")).is_none());
        for wrong in ["hf://datasets/name", "hf://datasets/org/name/../x"] {
            assert!(HubDataset::of(Path::new(wrong)).is_some_and(|found| found.is_err()));
        }
    }

    #[test]
    fn names_tell_splits_and_shards() {
        for (path, split) in [
            ("data/train-00000-of-00001.parquet", Some("train")),
            ("test.jsonl", Some("test")),
            ("dev/rows.csv", Some("validation")),
            ("trained_models.json", None),
            ("rows.jsonl", None),
        ] {
            assert_eq!(split_of(path), split, "{path}");
        }
        assert_eq!(
            shards("train-00001-of-00003.parquet"),
            Some(("train-", ".parquet", 3))
        );
        assert_eq!(shards("one-of-many.json"), None);
    }

    #[test]
    fn files_are_chosen_by_split_folder_name_or_pattern() {
        let all = [
            "README.md",
            "data/test-00000-of-00001.csv",
            "data/train-00000-of-00001.csv",
            ".gitattributes",
            ".devcontainer/x.json",
            "en/a.jsonl",
            "en/deep/b.csv.gz",
            "x.jsonl",
        ]
        .map(String::from);
        for (path, expected) in [
            ("", &["data/train-00000-of-00001.csv"][..]),
            ("/data/test-*", &["data/test-00000-of-00001.csv"]),
            ("/en", &["en/a.jsonl", "en/deep/b.csv.gz"]),
            ("/*.jsonl", &["x.jsonl"]),
            ("/**/*.jsonl", &["en/a.jsonl", "x.jsonl"]),
            ("/*", &["x.jsonl"]),
            ("/X.JSONL", &[]),
            ("/x.jsonl", &["x.jsonl"]),
            ("/absent", &[]),
        ] {
            let dataset = dataset(&format!("hf://datasets/org/name{path}"));
            assert_eq!(dataset.wanted(&all), expected, "{path}");
        }
        let plain = ["a.jsonl", "b.txt", "notes.md"].map(String::from);
        assert_eq!(
            dataset("hf://datasets/org/name").wanted(&plain),
            ["a.jsonl", "b.txt"]
        );
        let saved = [
            "dataset_dict.json",
            "test/state.json",
            "train/data-00000-of-00001.csv",
            "train/state.json",
        ]
        .map(String::from);
        let mut wanted = dataset("hf://datasets/org/name").wanted(&saved);
        wanted.sort();
        assert_eq!(wanted, saved);
    }

    #[test]
    fn files_come_from_the_cache() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let repo = cache.path().join("datasets--org--name");
        let snapshot = repo.join("snapshots").join(commit);
        let write = |path: PathBuf| {
            fs::create_dir_all(path.parent().expect("a folder")).expect("makes a folder");
            fs::write(path, commit).expect("writes");
        };
        write(repo.join("refs/main"));
        for name in [
            "train-00000-of-00002",
            "train-00001-of-00002",
            "test-00000-of-00001",
        ] {
            write(snapshot.join("data").join(format!("{name}.jsonl")));
        }
        write(snapshot.join("README.md"));
        let files = |address: &str| {
            let options = HubOptions {
                cache_dir: Some(cache.path().to_path_buf()),
                offline: true,
                ..HubOptions::default()
            };
            dataset(address).files_with(options)
        };
        let names = |address: &str| -> Vec<String> {
            let files = files(address).expect("are in the cache").into_iter();
            let name = |file: PathBuf| Some(file.file_name()?.to_str()?.to_string());
            files.filter_map(name).collect()
        };
        let train = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"];
        assert_eq!(names("hf://datasets/org/name"), train);
        assert_eq!(names("hf://datasets/org/name/data/train-*.jsonl"), train);
        let test = ["test-00000-of-00001.jsonl"];
        assert_eq!(
            names(&format!("hf://datasets/org/name@{commit}/data/test-*")),
            test
        );

        fs::remove_file(snapshot.join("data/train-00001-of-00002.jsonl")).expect("removes");
        let error = files("hf://datasets/org/name")
            .expect_err("is a part")
            .to_string();
        assert!(
            error.contains("train-00001-of-00002.jsonl is missing"),
            "{error}"
        );
        let error = files("hf://datasets/org/other")
            .expect_err("is absent")
            .to_string();
        assert!(error.contains("not in the cache"), "{error}");
    }
}
