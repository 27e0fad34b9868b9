//! Which files a path names, and of which kind a file is.

use std::fs;
use std::path::{Path, PathBuf};

use super::Kind;
use super::hub_dataset::HubDataset;
use super::saved_dataset::saved_files;
use crate::{Error, Result};

const KNOWN: &str =
    ".json, .jsonl, .ndjson, .csv, .tsv or .txt, and .gz or .zst after it, .parquet or .arrow";

/// The files that a path names: the file itself, the data files of a folder and those below it, those that a glob matches, or those of
/// a dataset of the hub. They are in the order of their paths. A folder that `datasets` wrote has them in its own order.
///
/// # Errors
///
/// If nothing is there, or a folder or a glob has no data file.
pub(crate) fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    if let Some(dataset) = HubDataset::of(path) {
        return dataset?.files();
    }
    if let Some(files) = saved_files(path)? {
        return Ok(files);
    }
    let mut files = Vec::new();
    if path.is_dir() {
        walk(path, &|path| kind_of(path).is_some(), &mut files)?;
        if files.is_empty() {
            return Err(Error::Dataset(format!(
                "the folder has no data files: their names end in {KNOWN}"
            ))
            .in_file(path));
        }
    } else if let Some(pattern) = path.to_str().filter(|text| text.contains(['*', '?', '['])) {
        let matches = glob::glob(pattern).map_err(|error| {
            Error::Settings(format!("`{pattern}` is no valid pattern: {error}"))
        })?;
        for found in matches {
            let found = found.map_err(|error| Error::Read {
                path: error.path().to_path_buf(),
                source: error.into(),
            })?;
            if found.is_file() {
                files.push(found);
            }
        }
        if files.is_empty() {
            return Err(Error::Dataset(format!("no file matches `{pattern}`")));
        }
    } else {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let path = path.to_path_buf();
        return Err(Error::Read { path, source });
    }
    files.sort();
    Ok(files)
}

/// The data files that a path names, in the order in which their rows are read, each with its name below the folder that all of
/// them have in common. Names do not depend on where that folder is.
///
/// # Errors
///
/// If nothing is there, or a folder or a glob has no data file.
pub fn data_files(path: impl AsRef<Path>) -> Result<Vec<(String, PathBuf)>> {
    let files = files_of(path.as_ref())?;
    let mut common = files[0].parent().unwrap_or(Path::new(""));
    while let Some(parent) = common.parent()
        && !files.iter().all(|file| file.starts_with(common))
    {
        common = parent;
    }
    let named = files.iter().map(|file| {
        let name = file.strip_prefix(common).unwrap_or(file);
        (name.to_string_lossy().replace('\\', "/"), file.clone())
    });
    Ok(named.collect())
}

/// Adds the files of a folder and those below it that `wanted` names. Links to folders are not followed, so that there are no circles.
pub(crate) fn walk(
    folder: &Path,
    wanted: &dyn Fn(&Path) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<()> {
    let read = |source| Error::Read {
        path: folder.to_path_buf(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(read)?.is_dir() {
            walk(&path, wanted, files)?;
        } else if path.is_file() && wanted(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// The kind of a file, by its extension without that of its compression.
pub(super) fn kind_of(path: &Path) -> Option<Kind> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let plain = [".gz", ".zst"]
        .iter()
        .find_map(|end| name.strip_suffix(end));
    let (_, extension) = plain.unwrap_or(&name).rsplit_once('.')?;
    match extension {
        "json" | "jsonl" | "ndjson" => Some(Kind::Json),
        "csv" => Some(Kind::Csv(b',')),
        "tsv" => Some(Kind::Csv(b'\t')),
        "txt" => Some(Kind::Text),
        #[cfg(feature = "parquet")]
        "parquet" if plain.is_none() => Some(Kind::Parquet),
        #[cfg(feature = "arrow")]
        "arrow" if plain.is_none() => Some(Kind::Arrow),
        _ => None,
    }
}

/// The kind of a file that was named itself: JSON if its name does not say more.
pub(super) fn kind_of_file(path: &Path) -> Result<Kind> {
    let end = path.extension().and_then(|end| end.to_str());
    match (kind_of(path), end) {
        (None, Some(feature @ ("parquet" | "arrow"))) => Err(Error::Settings(format!(
            "this program was built without the feature `{feature}`: build with --features {feature}, or convert the file to JSONL"
        ))
        .in_file(path)),
        (kind, _) => Ok(kind.unwrap_or(Kind::Json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_from_names() {
        for (name, kind) in [
            ("a.JSON", Some(Kind::Json)),
            ("a.b.jsonl.gz", Some(Kind::Json)),
            ("a.csv.zst", Some(Kind::Csv(b','))),
            ("a.tsv", Some(Kind::Csv(b'\t'))),
            ("a.txt", Some(Kind::Text)),
            ("a.gz", None),
            ("README", None),
        ] {
            assert_eq!(kind_of(Path::new(name)), kind, "{name}");
        }
    }

    #[test]
    fn folders_and_globs_name_their_files_in_order() {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir_all(folder.path().join("b/c")).expect("makes folders");
        for name in [
            "b/c/2.jsonl",
            "b/1.json",
            "a.txt",
            "README.md",
            ".hidden.json",
        ] {
            fs::write(folder.path().join(name), "").expect("writes");
        }
        let names = |path: PathBuf| -> Vec<String> {
            let files = files_of(&path).expect("names files");
            let relative = files
                .iter()
                .map(|file| file.strip_prefix(folder.path()).expect("is below"));
            relative.map(|file| file.display().to_string()).collect()
        };
        assert_eq!(
            names(folder.path().to_path_buf()),
            ["a.txt", "b/1.json", "b/c/2.jsonl"]
        );
        assert_eq!(
            names(folder.path().join("b/**/*.json*")),
            ["b/1.json", "b/c/2.jsonl"]
        );
        let named = |path: &str| -> Vec<String> {
            let files = data_files(folder.path().join(path)).expect("names files");
            files.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(named(""), ["a.txt", "b/1.json", "b/c/2.jsonl"]);
        assert_eq!(named("b/**/*.json*"), ["1.json", "c/2.jsonl"]);
        assert_eq!(named("b/c/2.jsonl"), ["2.jsonl"]);
        for nothing in ["b/*.csv", "none.json"] {
            assert!(files_of(&folder.path().join(nothing)).is_err());
        }
        fs::create_dir(folder.path().join("empty")).expect("makes a folder");
        let error = files_of(&folder.path().join("empty")).expect_err("is empty");
        assert!(error.to_string().contains("no data files"), "{error}");
    }
}
