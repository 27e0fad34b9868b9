//! Checkpoint folders that are whole or not there.
//!
//! A checkpoint is written as `.step-N.part`, synced file by file, and renamed to `step-N` once all of
//! it is on the disk; only then are old ones removed. So a kill at any moment leaves the last good
//! checkpoint, and at most an unfinished folder that the next run clears away.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Values of the parameters that train, by path.
pub(crate) const TRAINABLE: &str = "trainable.safetensors";
/// States of the optimizer.
pub(crate) const OPTIMIZER: &str = "optimizer.safetensors";
/// What the method keeps, a folder.
pub(crate) const METHOD: &str = "method";
/// Where the run stands.
pub(crate) const STATE: &str = "trainer_state.json";

/// The newest complete checkpoint of the run in `output_dir`, if it has any.
///
/// # Errors
///
/// If the folder exists and cannot be read.
pub fn latest_checkpoint(output_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(Checkpoints::of(output_dir)
        .list()?
        .pop()
        .map(|(_, folder)| folder))
}

/// The checkpoints of a run.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    pub(crate) fn of(output_dir: &Path) -> Self {
        Self::in_folder(output_dir.join("checkpoints"))
    }

    /// Those in a folder of their own.
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the one of this step is, once it is complete.
    pub(crate) fn of_step(&self, step: usize) -> PathBuf {
        self.folder.join(format!("step-{step}"))
    }

    /// Steps and folders of the complete ones, in order of their steps.
    pub(crate) fn list(&self) -> Result<Vec<(usize, PathBuf)>> {
        let mut found = Vec::new();
        for path in self.entries()? {
            let step = file_name(&path)
                .strip_prefix("step-")
                .and_then(|number| number.parse().ok());
            if let Some(step) = step
                && path.is_dir()
            {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Writes a checkpoint: `fill` puts the files into the folder that it is given.
    pub(crate) fn write(
        &self,
        step: usize,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let unfinished = self.folder.join(format!(".step-{step}.part"));
        let finished = self.of_step(step);
        remove(&unfinished)?;
        fs::create_dir_all(&unfinished).map_err(Error::write(&unfinished))?;
        fill(&unfinished)?;
        sync_tree(&unfinished)?;
        remove(&finished)?;
        fs::rename(&unfinished, &finished).map_err(Error::write(&finished))?;
        sync_folder(&self.folder)?;
        Ok(finished)
    }

    /// Removes all but the newest `limit`.
    pub(crate) fn prune(&self, limit: usize) -> Result<()> {
        let all = self.list()?;
        let surplus = all.len().saturating_sub(limit);
        all[..surplus].iter().try_for_each(|(_, old)| remove(old))
    }

    /// Removes what a killed run left unfinished.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        let unfinished = |path: &PathBuf| {
            let name = file_name(path);
            name.starts_with(".step-") && name.ends_with(".part")
        };
        let all = self.entries()?;
        all.iter()
            .filter(|path| unfinished(path))
            .try_for_each(|path| remove(path))
    }

    /// Removes the one of this step.
    pub(crate) fn remove(&self, step: usize) -> Result<()> {
        remove(&self.of_step(step))
    }

    /// Removes all of them.
    pub(crate) fn remove_all(&self) -> Result<()> {
        self.list()?
            .iter()
            .try_for_each(|(_, folder)| remove(folder))
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        if !self.folder.exists() {
            return Ok(Vec::new());
        }
        let entries = fs::read_dir(&self.folder).map_err(Error::read(&self.folder))?;
        entries
            .map(|entry| Ok(entry.map_err(Error::read(&self.folder))?.path()))
            .collect()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::write(folder)(error))
        }
        _ => Ok(()),
    }
}

/// Syncs every file below `folder`, then the folder's own entries.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::read(folder))? {
        let path = entry.map_err(Error::read(folder))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            let file = File::open(&path).map_err(Error::read(&path))?;
            file.sync_all().map_err(Error::write(&path))?;
        }
    }
    sync_folder(folder)
}

/// Makes the entries of a folder durable, where folders can be opened.
fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(Error::write(folder))?;
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
