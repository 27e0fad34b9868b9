//! A hash that identifies a model.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The sha256 of model folders (a base, then its adapter): of the names and contents of the weights and of every
/// JSON and Jinja file in them.
///
/// # Errors
///
/// If a folder cannot be read.
pub fn identity(folders: &[&Path]) -> Result<String> {
    let mut hash = Sha256::new();
    for folder in folders {
        for path in files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let mut content = Sha256::new();
            let failed = |source| Error::Read {
                path: path.clone(),
                source,
            };
            let mut file = std::fs::File::open(&path).map_err(failed)?;
            let mut buffer = vec![0; 1 << 20];
            loop {
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    count => content.update(&buffer[..count]),
                }
            }
            hash.update(format!("{}:{name}", name.len()));
            hash.update(content.finalize());
        }
        hash.update("/");
    }
    let digest = hash.finalize();
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Read {
        path: folder.to_path_buf(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let of_model = path.extension().is_some_and(|extension| {
            ["json", "jinja", "safetensors"].contains(&&*extension.to_string_lossy())
        });
        if of_model && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_weights_other_names_and_an_adapter_are_other_models() {
        let folder = tempfile::TempDir::new().expect("temporary folder");
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        for folder in [&a, &b] {
            std::fs::create_dir(folder).expect("creates");
            std::fs::write(folder.join("config.json"), "{}").expect("writes");
            std::fs::write(folder.join("model.safetensors"), [1; 100]).expect("writes");
        }
        let of = |folders: &[&Path]| identity(folders).expect("reads");
        assert_eq!(of(&[&a]), of(&[&b]));
        std::fs::write(b.join("README.md"), "ignored").expect("writes");
        assert_eq!(of(&[&a]), of(&[&b]));
        assert_ne!(of(&[&a]), of(&[&a, &b]));
        std::fs::write(b.join("model.safetensors"), [2; 100]).expect("writes");
        assert_ne!(of(&[&a]), of(&[&b]));
        assert!(identity(&[&folder.path().join("none")]).is_err());
    }
}
