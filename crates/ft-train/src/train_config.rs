//! The settings of a run. Names and meanings are those of transformers' `TrainingArguments` where it
//! has them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Optim, Result, Schedule};

/// The settings of a run.
///
/// ```
/// use ft_train::{Schedule, TrainConfig};
///
/// let config = TrainConfig {
///     learning_rate: 2e-4,
///     schedule: Schedule::Cosine,
///     warmup_ratio: 0.03,
///     gradient_accumulation_steps: 8,
///     ..TrainConfig::default()
/// };
/// assert!(config.validate().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// What the learning rate does after the warmup.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// The same as a part of all steps, rounded up; give one of the two.
    pub warmup_ratio: f64,
    /// Passes over the data; a fraction ends within an epoch.
    pub epochs: f64,
    /// Optimizer steps in all; overrides `epochs`.
    pub max_steps: Option<usize>,
    /// Batches whose gradients make up one step. The last step of an epoch takes what is left.
    pub gradient_accumulation_steps: usize,
    /// The gradient of a step is scaled down to this norm, taken over all parameters.
    pub max_grad_norm: Option<f64>,
    /// The optimizer.
    pub optim: Optim,
    /// Decoupled weight decay (of SGD: added to the gradient); parameters of rank 1 (norms, biases) are spared.
    pub weight_decay: f64,
    /// Decay rates of AdamW's two moments, or of Lion's moment in its step and in its state.
    pub betas: (f64, f64),
    /// AdamW's term in the denominator.
    pub eps: f64,
    /// Seed of all randomness in a step, such as dropout.
    pub seed: u64,
    /// Evaluate every so many steps.
    pub eval_every: Option<usize>,
    /// Evaluate before the first step.
    pub eval_at_start: bool,
    /// Evaluate after the last step.
    pub eval_at_end: bool,
    /// Keep the trainable parameters of the best evaluation in a folder of `output_dir/best`, and return the model with them.
    pub load_best_model_at_end: bool,
    /// Where checkpoints and the log go; without it nothing is written.
    pub output_dir: Option<PathBuf>,
    /// Write a checkpoint every so many steps, and after the last one.
    pub save_every: Option<usize>,
    /// Keep so many checkpoints, the newest.
    pub save_total_limit: Option<usize>,
    /// Continue the run in `output_dir` from its newest checkpoint.
    pub resume: bool,
    /// Start again although `output_dir` contains a run, whose checkpoints, best parameters and log are removed.
    pub overwrite: bool,
    /// Where there is no terminal, report every so many steps.
    pub logging_steps: usize,
    /// Report progress on stderr.
    pub progress: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            learning_rate: 5e-5,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            warmup_ratio: 0.0,
            epochs: 1.0,
            max_steps: None,
            gradient_accumulation_steps: 1,
            max_grad_norm: Some(1.0),
            optim: Optim::AdamW,
            weight_decay: 0.0,
            betas: (0.9, 0.999),
            eps: 1e-8,
            seed: 42,
            eval_every: None,
            eval_at_start: true,
            eval_at_end: true,
            load_best_model_at_end: false,
            output_dir: None,
            save_every: Some(500),
            save_total_limit: None,
            resume: false,
            overwrite: false,
            logging_steps: 10,
            progress: true,
        }
    }
}

impl TrainConfig {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] with every mistake at once.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = Vec::new();
        let mut check = |fine: bool, name: &str, value: String, fix: &str| {
            if !fine {
                mistakes.push(format!("{name} is {value}: {fix}"));
            }
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let within = |x: f64| (0.0..1.0).contains(&x);
        let some = |steps: Option<usize>| steps != Some(0);

        check(
            positive(self.learning_rate),
            "learning_rate",
            self.learning_rate.to_string(),
            "it must be above 0",
        );
        check(
            within(self.warmup_ratio),
            "warmup_ratio",
            self.warmup_ratio.to_string(),
            "it must be in [0, 1)",
        );
        check(
            self.warmup_steps == 0 || self.warmup_ratio == 0.0,
            "warmup_ratio",
            self.warmup_ratio.to_string(),
            "warmup_steps is set too; set one of the two",
        );
        check(
            self.max_steps.is_some() || positive(self.epochs),
            "epochs",
            self.epochs.to_string(),
            "it must be above 0",
        );
        check(
            self.gradient_accumulation_steps > 0,
            "gradient_accumulation_steps",
            "0".into(),
            "it must be at least 1",
        );
        if let Some(norm) = self.max_grad_norm {
            let fix = "it must be above 0; for no clipping set it to None";
            check(positive(norm), "max_grad_norm", norm.to_string(), fix);
        }
        check(
            self.weight_decay == 0.0 || positive(self.weight_decay),
            "weight_decay",
            self.weight_decay.to_string(),
            "it must be 0 or above",
        );
        check(
            within(self.betas.0) && within(self.betas.1),
            "betas",
            format!("{:?}", self.betas),
            "both must be in [0, 1)",
        );
        check(
            positive(self.eps),
            "eps",
            self.eps.to_string(),
            "it must be above 0",
        );
        for (name, steps) in [
            ("max_steps", self.max_steps),
            ("eval_every", self.eval_every),
            ("save_every", self.save_every),
            ("save_total_limit", self.save_total_limit),
        ] {
            let fix = "it must be at least 1, or None";
            check(some(steps), name, "0".into(), fix);
        }
        check(
            self.logging_steps > 0,
            "logging_steps",
            "0".into(),
            "it must be at least 1; to be silent set progress to false",
        );
        if let Some(mistake) = self.schedule.mistake() {
            check(false, "schedule", self.schedule.to_string(), mistake);
        }
        check(
            !matches!(self.schedule, Schedule::ReduceLrOnPlateau { .. })
                || self.eval_every.is_some(),
            "schedule",
            self.schedule.to_string(),
            "it needs evaluations; set eval_every",
        );
        check(
            !self.load_best_model_at_end || self.output_dir.is_some(),
            "load_best_model_at_end",
            "true".into(),
            "output_dir is not set, so there is no place to keep the best model",
        );
        check(
            !self.resume || self.output_dir.is_some(),
            "resume",
            "true".into(),
            "output_dir is not set, so there is nothing to resume from",
        );
        check(
            !(self.resume && self.overwrite),
            "overwrite",
            "true".into(),
            "resume is set too; set one of the two",
        );
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Error::Config(mistakes))
        }
    }

    /// Whether a run of `total_steps` evaluates at all.
    pub(crate) fn evaluates(&self, total_steps: usize) -> bool {
        let every = self.eval_every.is_some_and(|every| every <= total_steps);
        self.eval_at_start || self.eval_at_end || every
    }

    /// The steps of the warmup in a run of `total_steps`.
    pub fn warmup_of(&self, total_steps: usize) -> usize {
        if self.warmup_steps > 0 {
            self.warmup_steps
        } else {
            (total_steps as f64 * self.warmup_ratio).ceil() as usize
        }
    }

    /// The learning rate at `step`, counted from 0, in a run of `total_steps`, without what evaluations do to it.
    pub fn learning_rate_at(&self, step: usize, total_steps: usize) -> f64 {
        let warmup = self.warmup_of(total_steps);
        self.learning_rate * self.schedule.factor(step, warmup, total_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert!(TrainConfig::default().validate().is_ok());
    }

    #[test]
    fn every_mistake_is_said_at_once() {
        let config = TrainConfig {
            learning_rate: f64::NAN,
            epochs: 0.0,
            gradient_accumulation_steps: 0,
            betas: (0.9, 1.0),
            save_every: Some(0),
            resume: true,
            ..TrainConfig::default()
        };
        let Err(Error::Config(mistakes)) = config.validate() else {
            panic!("accepted");
        };
        let names: Vec<_> = mistakes
            .iter()
            .filter_map(|mistake| mistake.split(' ').next())
            .collect();
        assert_eq!(
            names,
            [
                "learning_rate",
                "epochs",
                "gradient_accumulation_steps",
                "betas",
                "save_every",
                "resume"
            ]
        );
    }

    #[test]
    fn a_warmup_ratio_is_rounded_up() {
        let config = TrainConfig {
            warmup_ratio: 0.03,
            ..TrainConfig::default()
        };
        assert_eq!(config.warmup_of(101), 4);
    }
}
