//! What a run reports: a record for each step and each evaluation, and a report at the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metric::nan_if_null;
use crate::{EvalMetrics, Finding, Metrics};

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which step, counted from 1.
    pub step: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean loss of a label over the step's batches, before the update.
    pub loss: f64,
    /// The learning rate of the update.
    #[serde(rename = "lr")]
    pub learning_rate: f64,
    /// Norm of the gradient of the mean loss, before clipping.
    pub grad_norm: f64,
    /// Tokens of the step's batches.
    pub tokens: usize,
    /// Tokens a second in this step.
    pub tokens_per_s: f64,
    /// Seconds since the run began, without what was lost to interruptions.
    pub elapsed_s: f64,
    /// What the step reports besides, reduced over its batches as the loss is.
    #[serde(
        default,
        skip_serializing_if = "Metrics::is_empty",
        deserialize_with = "nan_if_null"
    )]
    pub metrics: Metrics,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// After which step; 0 before the first.
    pub step: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// What it found.
    #[serde(flatten)]
    pub metrics: EvalMetrics,
    /// What it found on the named sets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, EvalMetrics>,
}

/// A whole run. Where it was resumed, what came before belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainReport {
    /// Mean loss of a label in each step.
    pub train_losses: Vec<f64>,
    /// What the steps report besides: the metrics of each step.
    pub train_metrics: Vec<Metrics>,
    /// How many steps were taken.
    pub steps: usize,
    /// How many tokens were seen.
    pub tokens: usize,
    /// Tokens a second in the steps of this process, without evaluation and saving.
    pub tokens_per_s: f64,
    /// Seconds in all, without what was lost to interruptions.
    pub elapsed_s: f64,
    /// All evaluations.
    pub evaluations: Vec<Evaluation>,
    /// What was diagnosed.
    pub findings: Vec<Finding>,
    /// The step whose parameters the model has, if the best were restored.
    pub best_step: Option<usize>,
    /// The step that this process continued from, if it resumed.
    pub resumed_from: Option<usize>,
    /// Whether a callback ended the run before its last step.
    pub stopped_early: bool,
}

impl TrainReport {
    /// The evaluation before the first step.
    pub fn eval_before(&self) -> Option<&EvalMetrics> {
        let first = self.evaluations.first()?;
        (first.step == 0).then_some(&first.metrics)
    }

    /// The evaluation after the last step.
    pub fn eval_after(&self) -> Option<&EvalMetrics> {
        let last = self.evaluations.last()?;
        (last.step == self.steps).then_some(&last.metrics)
    }

    /// The evaluation with the smallest loss, the first of several.
    pub fn eval_best(&self) -> Option<&Evaluation> {
        best(&self.evaluations)
    }
}

/// The evaluation with the smallest loss, the first of several.
pub(crate) fn best(evaluations: &[Evaluation]) -> Option<&Evaluation> {
    let smaller = |a: &&Evaluation, b: &&Evaluation| a.metrics.loss.total_cmp(&b.metrics.loss);
    evaluations.iter().min_by(smaller)
}
