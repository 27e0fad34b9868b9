//! What can go wrong with a training run: settings, data, numbers, checkpoints.

use std::path::{Path, PathBuf};

use crate::Optim;

/// A `Result` of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of any kind, as callbacks return it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of this crate. Each message says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not make sense, all of them at once.
    #[error("the training settings have mistakes:\n  - {}", .0.join("\n  - "))]
    Config(Vec<String>),
    /// There is nothing to train on.
    #[error("epoch {epoch} of the training data has no batches: the dataset is empty")]
    EmptyEpoch {
        /// Which epoch, counted from 0.
        epoch: usize,
    },
    /// No parameter requires gradients.
    #[error(
        "no parameter of the model requires gradients, so there is nothing to train: attach an adapter, or unfreeze \
         a part of the model"
    )]
    NothingToTrain,
    /// A rule selects no parameter, or none that trains where only those count.
    #[error("`{rule}` selects no parameter. There are:\n  - {}", existing.join("\n  - "))]
    MatchesNothing {
        /// The rule.
        rule: String,
        /// What could be selected.
        existing: Vec<String>,
    },
    /// A group of parameters has nothing left.
    #[error(
        "group {number} ({rules}) is left with no parameter: groups before it have all that it selects. Put it before \
         them, or narrow their rules"
    )]
    EmptyGroup {
        /// Which group, counted from 0.
        number: usize,
        /// Its rules.
        rules: String,
    },
    /// A rule is not a regular expression.
    #[error("`{pattern}` is not a regular expression: {source}")]
    Regex {
        /// The rule.
        pattern: String,
        /// Why.
        source: regex::Error,
    },
    /// Parameters that are to train are held in 16 bits.
    #[error(
        "{first} is held in 16 bits or less and cannot train ({count} such parameters): load the model in f32, or train adapters"
    )]
    HeldIn16Bits {
        /// The first of them.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// All labels of a step are masked.
    #[error(
        "step {step}: the batches {first} to {last} of epoch {epoch} have no label that counts: all are masked. Look at \
         how labels are masked, and whether truncation cuts off every response"
    )]
    NoLabels {
        /// Which optimizer step, counted from 1.
        step: usize,
        /// Which epoch, counted from 0.
        epoch: usize,
        /// First batch of the step within the epoch.
        first: usize,
        /// Last batch of the step within the epoch.
        last: usize,
    },
    /// The loss is not a finite number. The parameters are as they were before the step.
    #[error(
        "step {step}: the loss of batch {batch} of epoch {epoch} is {loss}. Lower the learning rate, lengthen the \
         warmup, clip gradients (max_grad_norm), or look at that batch{}", kept.as_ref().map_or(String::new(), |path| format!(", which is in {}", path.display()))
    )]
    NonFiniteLoss {
        /// Which optimizer step, counted from 1.
        step: usize,
        /// Which epoch, counted from 0.
        epoch: usize,
        /// Which batch within the epoch.
        batch: usize,
        /// The loss.
        loss: f64,
        /// The file that holds the batch, if it was kept.
        kept: Option<PathBuf>,
    },
    /// The loss is finite, its gradient is not. The parameters are as they were before the step.
    #[error(
        "step {step}: the norm of the gradient is {norm} although the loss is finite. Lower the learning rate, or look \
         for a division by zero or a root of zero in the step"
    )]
    NonFiniteGradient {
        /// Which optimizer step, counted from 1.
        step: usize,
        /// The norm.
        norm: f64,
    },
    /// The loss is no function of the trainable parameters.
    #[error(
        "the loss does not depend on any trainable parameter: the step detaches it, works on another model than the one \
         it is given, or the parameters that train take no part in the forward pass (an inactive adapter?)"
    )]
    NoGradient,
    /// A step failed, or a batch could not be made. The parameters are as they were before the step.
    #[error("step {step}: batch {batch} of epoch {epoch}: {source}")]
    Step {
        /// Which optimizer step, counted from 1.
        step: usize,
        /// Which epoch, counted from 0.
        epoch: usize,
        /// Which batch within the epoch.
        batch: usize,
        /// Why.
        source: BoxError,
    },
    /// What a method does at the update of a step failed.
    #[error("step {step}: the update: {source}")]
    Update {
        /// Which optimizer step, counted from 1.
        step: usize,
        /// Why.
        source: BoxError,
    },
    /// A step of an evaluation failed, or a batch of it could not be made.
    #[error("evaluation: batch {batch}: {source}")]
    Evaluation {
        /// Which batch.
        batch: usize,
        /// Why.
        source: BoxError,
    },
    /// The evaluation data have no label that counts.
    #[error(
        "the evaluation data have no label that counts: they are empty, or all of it is masked"
    )]
    EmptyEvaluation,
    /// The evaluation loss is not a finite number.
    #[error("evaluation: the loss of batch {batch} is {loss}")]
    NonFiniteEvaluation {
        /// Which batch.
        batch: usize,
        /// The loss.
        loss: f64,
    },
    /// The output folder holds another run.
    #[error(
        "{} is a checkpoint of an earlier run: resume it, choose another output folder, or allow overwriting, which \
         removes it", newest.display()
    )]
    RunExists {
        /// Its newest checkpoint.
        newest: PathBuf,
    },
    /// There is no run to resume.
    #[error(
        "{} holds no run to resume (neither checkpoints nor a log): look at the path, or start without resuming",
        folder.display()
    )]
    NothingToResume {
        /// The output folder.
        folder: PathBuf,
    },
    /// A checkpoint cannot be read.
    #[error("the checkpoint {} is damaged: {reason}. {}", folder.display(), instead(previous))]
    DamagedCheckpoint {
        /// The checkpoint.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The checkpoint before it.
        previous: Option<PathBuf>,
    },
    /// A checkpoint belongs to a run with other settings.
    #[error(
        "the checkpoint {} belongs to a run with other settings, so that resuming would not continue it:\n  - {}\nUse \
         the same settings, or start again in another folder",
        folder.display(), differences.join("\n  - ")
    )]
    OtherSettings {
        /// The checkpoint.
        folder: PathBuf,
        /// Every setting that differs, with both values.
        differences: Vec<String>,
    },
    /// A checkpoint has the states of callbacks that the run lacks.
    #[error(
        "the checkpoint {} has the state of {}, and this run has no callback of that name: add it (with_callback), or \
         start again in another folder",
        folder.display(), missing.join(" and of ")
    )]
    OtherCallbacks {
        /// The checkpoint.
        folder: PathBuf,
        /// Names of the callbacks.
        missing: Vec<String>,
    },
    /// A checkpoint belongs to other parameters.
    #[error("{} does not fit the trainable parameters of the model{}", path.display(), listed(missing, unexpected, misshapen))]
    OtherParameters {
        /// The file.
        path: PathBuf,
        /// What the model trains and the file lacks.
        missing: Vec<String>,
        /// What the file holds and the model does not train.
        unexpected: Vec<String>,
        /// Names whose shapes differ, with both shapes.
        misshapen: Vec<String>,
    },
    /// The states in a file are those of another optimizer.
    #[error(
        "{} holds the states of {}, and the optimizer here is {}: take the one that the run began with",
        path.display(), named(saved), named(here)
    )]
    OtherOptimizer {
        /// The file.
        path: PathBuf,
        /// Whose states it holds; `None` stands for one that is not in [`Optim`].
        saved: Option<Optim>,
        /// The optimizer that was to have them.
        here: Option<Optim>,
    },
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What a method keeps could not be written into a checkpoint.
    #[error("the method's state cannot be saved: {0}")]
    Method(BoxError),
    /// A name that stands for nothing.
    #[error(transparent)]
    UnknownName(#[from] UnknownName),
    /// A tracker failed.
    #[error("a tracker: {0}")]
    Tracker(BoxError),
    /// A callback ended the run.
    #[error("a callback ended the training: {0}")]
    Callback(BoxError),
    /// From ft-core: mostly files.
    #[error(transparent)]
    Core(#[from] ft_core::Error),
}

/// A name in the settings that stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}`: use {known}")]
pub struct UnknownName {
    /// What it was to be a name of.
    pub kind: &'static str,
    /// The name.
    pub name: String,
    /// The names that there are.
    pub known: &'static str,
}

impl Error {
    /// For `map_err` on a read of `path`.
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Read {
            path: path.to_path_buf(),
            source,
        }
    }

    /// For `map_err` on a write of `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Write {
            path: path.to_path_buf(),
            source,
        }
    }
}

fn named(optim: &Option<Optim>) -> String {
    match optim {
        Some(optim) => optim.to_string(),
        None => "one that the settings have no name for".to_string(),
    }
}

/// What to do about a damaged checkpoint.
fn instead(previous: &Option<PathBuf>) -> String {
    match previous {
        Some(previous) => format!("Remove it to resume from {} instead", previous.display()),
        None => "There is none before it: remove it and start again".to_string(),
    }
}

/// Names by kind, a line a kind, at most a dozen each.
fn listed(missing: &[String], unexpected: &[String], misshapen: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = String::new();
    for (kind, names) in [
        ("missing", missing),
        ("left over", unexpected),
        ("of another shape", misshapen),
    ] {
        if !names.is_empty() {
            let shown = names[..names.len().min(SHOWN)].join(", ");
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            text.push_str(&format!("\n  {kind} ({}): {shown}{more}", names.len()));
        }
    }
    text
}
