//! Folders that Hugging Face's `datasets` wrote: `save_to_disk` of a `Dataset` (`state.json` names its files) and of a `DatasetDict`
//! (`dataset_dict.json` names its splits, each a folder), and its cache (`dataset_info.json` beside Arrow files).
//!
//! Of several splits, `train` is meant, as of datasets of the hub, so that no test rows are learnt.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::hub_dataset::split_of;
use crate::{Error, Result};

/// The files of a folder that `datasets` wrote, in its order; none if the path is something else.
///
/// # Errors
///
/// If the folder has no split `train`, is damaged, or has a selection of rows beside its files.
pub(super) fn saved_files(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    if let Some((path, dict)) = read(folder, "dataset_dict.json")? {
        return of_train(&path, folder, &dict).map(Some);
    }
    if let Some((path, state)) = read(folder, "state.json")?
        && let Some(files) = state["_data_files"].as_array()
    {
        return of_state(&path, folder, &state, files).map(Some);
    }
    if folder.join("dataset_info.json").is_file() {
        return cached(folder);
    }
    Ok(None)
}

fn of_train(path: &Path, folder: &Path, dict: &Value) -> Result<Vec<PathBuf>> {
    let splits = dict["splits"].as_array().into_iter().flatten();
    let splits: Vec<&str> = splits.filter_map(Value::as_str).collect();
    let files = match splits.contains(&"train") {
        true => saved_files(&folder.join("train"))?,
        false => {
            let reason = format!(
                "the dataset has no split `train`, but: {}. Name the folder of one, as {}",
                splits.join(", "),
                folder.join(splits.first().unwrap_or(&"test")).display()
            );
            return Err(Error::Dataset(reason).in_file(path));
        }
    };
    files.ok_or_else(|| {
        Error::Dataset("the folder of its split `train` has no dataset".into()).in_file(path)
    })
}

fn of_state(path: &Path, folder: &Path, state: &Value, files: &[Value]) -> Result<Vec<PathBuf>> {
    let wrong = |reason: String| Error::Dataset(reason).in_file(path);
    let indices = ["_indices_files", "_indices_data_files"];
    if indices.iter().any(|key| {
        state[*key]
            .as_array()
            .is_some_and(|files| !files.is_empty())
    }) {
        return Err(wrong(
            "the dataset is a selection of the rows in its files: save it with a `datasets` of version 2 or later".into(),
        ));
    }
    let file = |entry: &Value| {
        let name = entry["filename"].as_str().unwrap_or_default();
        let file = folder.join(name);
        // A name of something outside of the folder is none.
        match Path::new(name).file_name() == Some(name.as_ref()) && file.is_file() {
            true => Ok(file),
            false => Err(wrong(format!(
                "it names the file `{name}`, which is not in the folder"
            ))),
        }
    };
    match files.iter().map(file).collect::<Result<Vec<_>>>()? {
        files if files.is_empty() => Err(wrong("the dataset is empty: it has no files".into())),
        files => Ok(files),
    }
}

/// The Arrow files of a folder of the cache, without results of `map` and `filter`.
fn cached(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let read = |source| Error::Read {
        path: folder.to_path_buf(),
        source,
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".arrow") && !name.starts_with("cache-") {
            files.push(name.into_owned());
        }
    }
    files.sort();
    if files.iter().any(|name| split_of(name).is_some()) {
        files.retain(|name| split_of(name) == Some("train"));
        if files.is_empty() {
            let reason = "the folder has no Arrow files of the split `train`: name files, as with `*test*.arrow`";
            return Err(Error::Dataset(reason.into()).in_file(folder));
        }
    }
    let files: Vec<PathBuf> = files.into_iter().map(|name| folder.join(name)).collect();
    Ok((!files.is_empty()).then_some(files))
}

/// A JSON file of the folder and its path, if it is there.
fn read(folder: &Path, name: &str) -> Result<Option<(PathBuf, Value)>> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    match serde_json::from_str(&text) {
        Ok(value) => Ok(Some((path, value))),
        Err(error) => Err(Error::Json {
            line: error.line(),
            reason: error.to_string(),
            path,
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (name, value) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("makes folders");
            fs::write(path, value.to_string()).expect("writes");
        }
        folder
    }

    fn names(folder: &tempfile::TempDir, below: &str) -> Result<Option<Vec<String>>, String> {
        let files = saved_files(&folder.path().join(below)).map_err(|error| error.to_string())?;
        let name = |file: PathBuf| {
            let below = file.strip_prefix(folder.path()).expect("is below");
            below.display().to_string()
        };
        Ok(files.map(|files| files.into_iter().map(name).collect()))
    }

    fn of(files: &[&str]) -> Result<Option<Vec<String>>, String> {
        Ok(Some(files.iter().map(|name| name.to_string()).collect()))
    }

    #[test]
    fn states_name_files_and_dictionaries_splits() {
        let files = json!({"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}], "_split": null});
        let one = json!({"_data_files": [{"filename": "c.arrow"}]});
        let saved = folder(&[
            ("dataset_dict.json", json!({"splits": ["test", "train"]})),
            ("train/state.json", files),
            ("train/dataset_info.json", json!({})),
            ("train/a.arrow", json!(0)),
            ("train/b.arrow", json!(0)),
            ("train/cache-1.arrow", json!(0)),
            ("test/state.json", one),
            ("test/c.arrow", json!(0)),
        ]);
        assert_eq!(names(&saved, ""), of(&["train/b.arrow", "train/a.arrow"]));
        assert_eq!(names(&saved, "test"), of(&["test/c.arrow"]));
    }

    #[test]
    fn a_cache_gives_its_train_files() {
        let cache = folder(&[
            ("x/dataset_info.json", json!({})),
            ("x/json-train.arrow", json!(0)),
            ("x/json-test.arrow", json!(0)),
            ("x/cache-0123.arrow", json!(0)),
            ("y/dataset_info.json", json!({})),
            ("y/rows.json", json!([])),
        ]);
        assert_eq!(names(&cache, "x"), of(&["x/json-train.arrow"]));
        assert_eq!(names(&cache, "y"), Ok(None));
        assert_eq!(names(&cache, ""), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let state = |name: &str| json!({"_data_files": [{"filename": name}]});
        let mut selection = state("a.arrow");
        selection["_indices_files"] = json!([{"filename": "indices.arrow"}]);
        let saved = folder(&[
            ("dict/dataset_dict.json", json!({"splits": ["dev"]})),
            ("empty/state.json", json!({"_data_files": []})),
            ("missing/state.json", state("a.arrow")),
            ("outside/state.json", state("../dict/dataset_dict.json")),
            ("selection/state.json", selection),
        ]);
        for (below, reason) in [
            ("dict", "no split `train`, but: dev"),
            ("empty", "has no files"),
            ("missing", "`a.arrow`, which is not in the folder"),
            ("outside", "which is not in the folder"),
            ("selection", "a selection of the rows"),
        ] {
            let error = names(&saved, below).expect_err(below);
            assert!(error.contains(reason), "{below}: {error}");
        }
    }
}
