//! Files that are replaced whole or not at all.

use std::fs::File;
use std::path::Path;

use serde::Serialize;

use crate::{Error, Result};

/// Writes a value as indented JSON, atomically.
///
/// # Errors
///
/// If the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| Error::invalid(path, e.to_string()))?;
    bytes.push(b'\n');
    write_file(path, &bytes)
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
pub(super) fn replace(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
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
    part.persist(path)
        .map_err(|e| Error::write(path)(e.error))?;
    // The new name is on the disk once the folder is; systems without it do that by themselves.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::write(folder))?;
    Ok(())
}
