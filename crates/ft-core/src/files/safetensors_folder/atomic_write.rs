//! Files that are replaced whole or not at all.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempPath;

use crate::{Error, Result};

/// Writes a value as indented JSON, atomically.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_file(path, &json_bytes(path, value)?)
}

/// A value as indented JSON, for the file `path`.
pub(super) fn json_bytes(path: &Path, value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| Error::invalid(path, e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Writes a file so that a reader sees either the old bytes or all of the new ones; makes the
/// folder if it is not there.
///
/// # Errors
///
/// If the folder or file cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |part| std::fs::write(part, bytes))
}

/// Lets `write` fill a file beside `path`, syncs it, and renames it to `path`.
pub(in crate::files) fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<()> {
    stage(path, write)?.rename()?;
    sync_folder(path)
}

/// Replaces two files of one folder that belong together, the second one by these bytes.
///
/// Both are written before one is renamed, and the old second file is removed first, unless it has the same bytes. So a
/// kill at any moment leaves the old files, the new ones, or no second file: never one that belongs to another first file.
pub(super) fn replace_both(
    first: &Path,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
    second: &Path,
    bytes: &[u8],
) -> Result<()> {
    let new_first = stage(first, write)?;
    let new_second = stage(second, |part| std::fs::write(part, bytes))?;
    let old = std::fs::read(second).ok();
    if old.as_deref() == Some(bytes) {
        new_first.rename()?;
        return sync_folder(first);
    }
    if old.is_some() {
        std::fs::remove_file(second).map_err(Error::write(second))?;
        sync_folder(second)?;
    }
    if let Err(error) = new_first.rename() {
        // The first file is still the old one.
        if let Some(old) = old {
            write_file(second, &old)?;
        }
        return Err(error);
    }
    sync_folder(first)?;
    new_second.rename()?;
    sync_folder(second)
}

/// A file that is written and synced, beside the place that it is for.
struct Staged {
    part: TempPath,
    path: PathBuf,
}

impl Staged {
    fn rename(self) -> Result<()> {
        let renamed = self.part.persist(&self.path);
        renamed.map_err(|e| Error::write(&self.path)(e.error))
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A new name is on the disk once the folder is; systems without it do that by themselves.
fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let folder = folder_of(path);
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::write(folder))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Lets `write` fill a file beside `path`, and syncs it.
fn stage(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<Staged> {
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
    let part = tempfile::Builder::new()
        .prefix(".ft-")
        .suffix(".part")
        .tempfile_in(folder)
        .map_err(Error::write(path))?
        .into_temp_path();
    write(&part).map_err(Error::write(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file is private; a checkpoint is for whoever may read the folder.
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&part, readable).map_err(Error::write(path))?;
    }
    File::options()
        .write(true)
        .open(&part)
        .and_then(|file| file.sync_all())
        .map_err(Error::write(path))?;
    Ok(Staged {
        part,
        path: path.to_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_belong_together_are_both_new_or_both_old() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let write = |text: &'static str| move |part: &Path| std::fs::write(part, text);
        let read = || [&first, &second].map(|path| std::fs::read_to_string(path).expect("reads"));
        replace_both(&first, write("1"), &second, b"a").expect("writes");
        replace_both(&first, write("2"), &second, b"b").expect("writes");
        assert_eq!(read(), ["2", "b"]);
        let fails = |_: &Path| Err(std::io::Error::other("full"));
        assert!(replace_both(&first, fails, &second, b"c").is_err());
        assert_eq!(read(), ["2", "b"]);
        // A file cannot take the place of a folder that is not empty.
        std::fs::remove_file(&first).expect("there");
        std::fs::create_dir_all(first.join("inner")).expect("makes");
        assert!(replace_both(&first, write("4"), &second, b"d").is_err());
        assert_eq!(std::fs::read_to_string(&second).expect("there"), "b");
        // And no second file that belongs to another first one.
        std::fs::remove_dir_all(&first).expect("there");
        std::fs::remove_file(&second).expect("there");
        std::fs::create_dir_all(second.join("inner")).expect("makes");
        assert!(replace_both(&first, write("5"), &second, b"e").is_err());
        assert!(!second.is_file());
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 2);
    }
}
