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
use crate::records::best;
use crate::trainer_state::{Settings, TrainerState};
use crate::{
    Callback, Error, Evaluation, Method, ModelView, OptimizerStates, Result, TrainConfig, trainable,
};

/// An open output folder.
#[derive(Debug)]
pub(crate) struct RunFolder {
    checkpoints: Checkpoints,
    /// The parameters of the best evaluation, and of the one that was best when a checkpoint was written.
    best: Checkpoints,
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
    /// The checkpoint that a run continues from, if there is one and `config` says to resume. It changes nothing.
    ///
    /// # Errors
    ///
    /// If the folder has another run, or none to resume.
    pub(crate) fn find(
        folder: &Path,
        config: &TrainConfig,
        settings: &Settings,
    ) -> Result<Option<Resumed>> {
        let mut found = Checkpoints::of(folder).list()?;
        let newest = found.pop().map(|(_, newest)| newest);
        let previous = found.pop().map(|(_, previous)| previous);
        match newest {
            Some(newest) if config.resume => {
                let resumed = Resumed::read(newest, previous, settings)?;
                if config.load_best_model_at_end {
                    resumed.check_best(&best_of(folder))?;
                }
                Ok(Some(resumed))
            }
            Some(newest) if !config.overwrite => Err(Error::RunExists { newest }),
            // A run that was killed before its first checkpoint is resumed from its beginning.
            None if config.resume && !folder.join(LOG).exists() => Err(Error::NothingToResume {
                folder: folder.to_path_buf(),
            }),
            _ => Ok(None),
        }
    }

    /// Opens `folder` for the steps after `resumed`, or for a run from its beginning, of which nothing may be there.
    pub(crate) fn open(
        folder: &Path,
        config: &TrainConfig,
        resumed: Option<usize>,
    ) -> Result<Self> {
        let (checkpoints, best) = (Checkpoints::of(folder), best_of(folder));
        fs::create_dir_all(folder).map_err(Error::write(folder))?;
        checkpoints.remove_unfinished()?;
        best.remove_unfinished()?;
        let log = match resumed {
            Some(step) => TrainLog::resume(folder, step)?,
            None => {
                checkpoints.remove_all()?;
                best.remove_all()?;
                TrainLog::create(folder)?
            }
        };
        let opened = Self {
            checkpoints,
            best,
            log,
            limit: config.save_total_limit,
            path: folder.to_path_buf(),
        };
        opened.prune(None)?;
        Ok(opened)
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
        self.prune(best(&state.evaluations))?;
        Ok(saved)
    }
}

/// The file of the evaluation beside the best parameters.
const EVALUATION: &str = "evaluation.json";

/// The folders of the best parameters of a run, by the step of their evaluation.
fn best_of(output_dir: &Path) -> Checkpoints {
    Checkpoints::in_folder(output_dir.join("best"))
}

impl RunFolder {
    /// Keeps the parameters that train as the best ones, those of this evaluation.
    pub(crate) fn save_best(&self, model: &impl Module, evaluation: &Evaluation) -> Result<()> {
        self.best.write(evaluation.step, |folder| {
            let tensors = trainable::tensors(model);
            write_tensors(&folder.join(TRAINABLE), &tensors, &Default::default())?;
            Ok(write_json(&folder.join(EVALUATION), evaluation)?)
        })?;
        self.prune(Some(evaluation))
    }

    /// The model with the parameters of this evaluation, the best one.
    pub(crate) fn load_best<M: Module>(&self, model: M, evaluation: &Evaluation) -> Result<M> {
        let path = self.best.of_step(evaluation.step).join(TRAINABLE);
        let values = read_tensors(&path)?;
        trainable::replace(model, &path, values)
    }

    /// Removes checkpoints beyond the limit, and best parameters but those of `current` and of the newest two checkpoints.
    fn prune(&self, current: Option<&Evaluation>) -> Result<()> {
        if let Some(limit) = self.limit {
            self.checkpoints.prune(limit)?;
        }
        let kept = self.best.list()?;
        if kept.len() < 2 {
            return Ok(());
        }
        // A damaged checkpoint is removed, and the one before it resumed.
        let mut needed: Vec<usize> = current.iter().map(|one| one.step).collect();
        for (_, folder) in self.checkpoints.list()?.iter().rev().take(2) {
            if let Ok(state) = TrainerState::read(&folder.join(STATE)) {
                needed.extend(best(&state.evaluations).map(|best| best.step));
            }
        }
        let steps = kept.iter().map(|(step, _)| *step);
        let mut surplus = steps.filter(|step| !needed.contains(step));
        surplus.try_for_each(|step| self.best.remove(step))
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

    /// Checks that the best parameters so far are there, and are those of the evaluation that the checkpoint has.
    fn check_best(&self, kept: &Checkpoints) -> Result<()> {
        let Some(best) = best(&self.state.evaluations) else {
            return Ok(());
        };
        let path = kept.of_step(best.step).join(EVALUATION);
        let found = fs::read(&path).ok();
        let found: Option<Evaluation> = found.and_then(|json| serde_json::from_slice(&json).ok());
        match found.is_some_and(|found| found.metrics.loss == best.metrics.loss) {
            true => Ok(()),
            false => Err(self.damaged(&format!(
                "its best evaluation is that of step {}, whose parameters are not in {}",
                best.step,
                kept.of_step(best.step).display()
            ))),
        }
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
