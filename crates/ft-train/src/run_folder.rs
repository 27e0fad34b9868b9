//! The output folder of a run: its log, its checkpoints, and what to do with those that are there.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::Optimizer;
use ft_core::safetensors_folder::{read_tensors, write_json, write_tensors};
use serde_json::Value;

use crate::callback::{self, unique_names};
use crate::checkpoint::{Checkpoints, METHOD, OPTIMIZER, STATE, TRAINABLE};
use crate::log::{LOG, TrainLog};
use crate::trainer_state::{Settings, TrainerState};
use crate::{
    Callback, Error, Evaluation, Method, ModelView, OptimizerStates, Result, TrainConfig, trainable,
};

/// An open output folder.
#[derive(Debug)]
pub(crate) struct RunFolder {
    checkpoints: Checkpoints,
    pub(crate) log: TrainLog,
    limit: Option<usize>,
    path: PathBuf,
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
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
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
            path: folder.to_path_buf(),
        };
        Ok((opened, resumed))
    }

    /// Writes a checkpoint, then removes those beyond the limit.
    pub(crate) fn save<M: Module, O: Optimizer>(
        &self,
        model: &M,
        optimizer: &OptimizerStates<O>,
        state: &mut TrainerState,
        method: &impl Method<M>,
        callbacks: &mut [Box<dyn Callback<M> + '_>],
    ) -> Result<PathBuf> {
        let saved = self.checkpoints.write(state.step, |folder| {
            let tensors = trainable::tensors(model);
            write_tensors(&folder.join(TRAINABLE), &tensors, &Default::default())?;
            optimizer.save(&folder.join(OPTIMIZER))?;
            save_method(method, &folder.join(METHOD))?;
            let view = ModelView::new(model);
            for callback in callbacks.iter_mut() {
                let called = callback.on_checkpoint(&view, folder);
                called.map_err(Error::Callback)?;
            }
            // Last, so that what callbacks change while the checkpoint is written is part of it.
            state.callbacks = callback::states(callbacks);
            Ok(write_json(&folder.join(STATE), state)?)
        })?;
        if let Some(limit) = self.limit {
            self.checkpoints.prune(limit)?;
        }
        Ok(saved)
    }
}

/// The folder of the best parameters, and its files.
const BEST: &str = "best";
const BEST_STEP: &str = "best.json";

impl RunFolder {
    /// Keeps the parameters that train as the best ones, those of this evaluation.
    pub(crate) fn save_best(&self, model: &impl Module, evaluation: &Evaluation) -> Result<()> {
        let folder = self.path.join(BEST);
        fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
        write_tensors(
            &folder.join(TRAINABLE),
            &trainable::tensors(model),
            &Default::default(),
        )?;
        Ok(write_json(&folder.join(BEST_STEP), evaluation)?)
    }

    /// The model with the best parameters.
    pub(crate) fn load_best<M: Module>(&self, model: M) -> Result<M> {
        let path = self.path.join(BEST).join(TRAINABLE);
        let values = read_tensors(&path)?;
        trainable::replace(model, &path, values)
    }

    /// Keeps a batch whose loss is not finite; the path of its file.
    pub(crate) fn save_batch(&self, step: usize, batch: &Value) -> Result<PathBuf> {
        let path = self.path.join(format!("batch-of-step-{step}.json"));
        write_json(&path, batch)?;
        Ok(path)
    }
}

/// Fills `folder` with what the method keeps; without anything there is no folder.
fn save_method<M>(method: &impl Method<M>, folder: &Path) -> Result<()> {
    fs::create_dir(folder).map_err(Error::write(folder))?;
    method.save(folder).map_err(Error::Method)?;
    let mut entries = fs::read_dir(folder).map_err(Error::read(folder))?;
    if entries.next().is_none() {
        fs::remove_dir(folder).map_err(Error::write(folder))?;
    }
    Ok(())
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

    /// Parameters, optimizer and method as they were.
    pub(crate) fn restore<M: Module, O: Optimizer>(
        &self,
        model: M,
        optimizer: &mut OptimizerStates<O>,
        method: &mut impl Method<M>,
    ) -> Result<M> {
        let path = self.folder.join(TRAINABLE);
        let values = read_tensors(&path).map_err(|error| self.damaged(&error))?;
        let model = trainable::replace(model, &path, values)?;
        match optimizer.load(&self.folder.join(OPTIMIZER), &model) {
            Err(Error::Core(error)) => Err(self.damaged(&error)),
            loaded => loaded,
        }?;
        let kept = self.folder.join(METHOD);
        if kept.is_dir() {
            let restored = method.restore(&kept);
            restored.map_err(|error| self.damaged(&format!("{METHOD}: {error}")))?;
        }
        Ok(model)
    }

    /// Callbacks as they were; names of those that keep a state and have none in the checkpoint.
    pub(crate) fn restore_callbacks<M>(
        &self,
        callbacks: &mut [Box<dyn Callback<M> + '_>],
    ) -> Result<Vec<String>> {
        let names = unique_names(callbacks);
        let states = self.state.callbacks.keys();
        let missing: Vec<_> = states
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        if !missing.is_empty() {
            let folder = self.folder.clone();
            return Err(Error::OtherCallbacks { folder, missing });
        }
        let mut fresh = Vec::new();
        for (name, callback) in names.into_iter().zip(callbacks) {
            match self.state.callbacks.get(&name) {
                Some(state) => {
                    let restored = callback.restore(state.clone());
                    restored.map_err(|error| self.damaged(&format!("{STATE}, {name}: {error}")))?;
                }
                None if callback.state().is_some() => fresh.push(name),
                None => {}
            }
        }
        Ok(fresh)
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> Error {
        Error::DamagedCheckpoint {
            folder: self.folder.clone(),
            reason: error.to_string(),
            previous: self.previous.clone(),
        }
    }
}
