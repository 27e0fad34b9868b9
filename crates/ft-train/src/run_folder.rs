//! The output folder of a run: its log, its checkpoints, and what to do with those that are there.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::Optimizer;
use ft_core::safetensors_folder::{read_tensors, write_json, write_tensors};

use crate::checkpoint::{Checkpoints, OPTIMIZER, STATE, TRAINABLE};
use crate::log::{LOG, TrainLog};
use crate::trainer_state::{Settings, TrainerState};
use crate::{Callback, Error, OptimizerStates, Result, TrainConfig, trainable};

/// An open output folder.
#[derive(Debug)]
pub(crate) struct RunFolder {
    checkpoints: Checkpoints,
    pub(crate) log: TrainLog,
    limit: Option<usize>,
}

/// A checkpoint that a run continues from.
#[derive(Debug)]
pub(crate) struct Resumed {
    folder: PathBuf,
    previous: Option<PathBuf>,
    pub(crate) state: TrainerState,
}

impl RunFolder {
    /// Opens `folder` for a new run, or for the one that it holds if `config` says to resume.
    pub(crate) fn open(
        folder: &Path,
        config: &TrainConfig,
        settings: &Settings,
    ) -> Result<(Self, Option<Resumed>)> {
        let checkpoints = Checkpoints::of(folder);
        let mut found = checkpoints.list()?;
        let newest = found.pop().map(|(_, newest)| newest);
        let previous = found.pop().map(|(_, previous)| previous);
        let resumed = match newest {
            Some(newest) if config.resume => Some(Resumed::read(newest, previous, settings)?),
            Some(newest) if !config.overwrite => return Err(Error::RunExists { newest }),
            // A run that was killed before its first checkpoint is resumed from its beginning.
            None if config.resume && !folder.join(LOG).exists() => {
                let folder = folder.to_path_buf();
                return Err(Error::NothingToResume { folder });
            }
            _ => None,
        };
        std::fs::create_dir_all(folder).map_err(Error::write(folder))?;
        checkpoints.remove_unfinished()?;
        let log = match &resumed {
            Some(resumed) => TrainLog::resume(folder, resumed.state.step)?,
            None => {
                checkpoints.remove_all()?;
                TrainLog::create(folder)?
            }
        };
        let opened = Self {
            checkpoints,
            log,
            limit: config.save_total_limit,
        };
        Ok((opened, resumed))
    }

    /// Writes a checkpoint, then removes those beyond the limit.
    pub(crate) fn save<M: Module, O: Optimizer>(
        &self,
        model: &M,
        optimizer: &OptimizerStates<O>,
        state: &TrainerState,
        callbacks: &mut [Box<dyn Callback<M> + '_>],
    ) -> Result<PathBuf> {
        let saved = self.checkpoints.write(state.step, |folder| {
            let tensors = trainable::tensors(model);
            write_tensors(&folder.join(TRAINABLE), &tensors, &Default::default())?;
            optimizer.save(&folder.join(OPTIMIZER))?;
            for callback in callbacks {
                let called = callback.on_checkpoint(model, folder);
                called.map_err(Error::Callback)?;
            }
            Ok(write_json(&folder.join(STATE), state)?)
        })?;
        if let Some(limit) = self.limit {
            self.checkpoints.prune(limit)?;
        }
        Ok(saved)
    }
}

impl Resumed {
    fn read(folder: PathBuf, previous: Option<PathBuf>, settings: &Settings) -> Result<Self> {
        let state = match TrainerState::read(&folder.join(STATE)) {
            Ok(state) => state,
            Err(reason) => {
                return Err(Error::DamagedCheckpoint {
                    folder,
                    reason,
                    previous,
                });
            }
        };
        let differences = state.differences(settings);
        if !differences.is_empty() {
            return Err(Error::OtherSettings {
                folder,
                differences,
            });
        }
        Ok(Self {
            folder,
            previous,
            state,
        })
    }

    /// Parameters and optimizer as they were.
    pub(crate) fn restore<M: Module, O: Optimizer>(
        &self,
        model: M,
        optimizer: &mut OptimizerStates<O>,
    ) -> Result<M> {
        let path = self.folder.join(TRAINABLE);
        let values = read_tensors(&path).map_err(|error| self.damaged(error))?;
        let model = trainable::replace(model, &path, values)?;
        match optimizer.load(&self.folder.join(OPTIMIZER), &model) {
            Err(Error::Core(error)) => Err(self.damaged(error)),
            loaded => loaded,
        }?;
        Ok(model)
    }

    fn damaged(&self, error: ft_core::Error) -> Error {
        Error::DamagedCheckpoint {
            folder: self.folder.clone(),
            reason: error.to_string(),
            previous: self.previous.clone(),
        }
    }
}
