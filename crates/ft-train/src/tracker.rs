//! Where the numbers of a run go besides `train_log.jsonl`: TensorBoard, CSV, W&B's offline runs, MLflow (feature `mlflow`), or a tracker of your own.

mod crc32c;
mod csv;
#[cfg(feature = "mlflow")]
mod mlflow;
mod protobuf;
mod tensorboard;
mod wandb;

pub use csv::CsvTracker;
#[cfg(feature = "mlflow")]
pub use mlflow::MlflowTracker;
pub use tensorboard::TensorBoard;
pub use wandb::WandbTracker;

use crate::{BoxError, EvalMetrics, Evaluation, StepRecord};

/// Gets the numbers of a run as it goes. An error ends the run.
///
/// Names are those of transformers: `train/loss`, `train/learning_rate`, `train/grad_norm`, `eval/loss`, and `eval/NAME/loss` of a
/// named evaluation set.
///
/// ```
/// use ft_train::{BoxError, Tracker};
///
/// struct Print;
///
/// impl Tracker for Print {
///     fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError> {
///         println!("{step}: {scalars:?}");
///         Ok(())
///     }
/// }
/// ```
pub trait Tracker {
    /// Before anything is logged, and before anything of an earlier run in the output folder is removed. A run that is resumed has
    /// taken `after` steps; what an earlier process logged of later steps is no part of it.
    ///
    /// # Errors
    ///
    /// Of any kind; the run is then refused.
    fn begin(&mut self, after: usize) -> Result<(), BoxError> {
        let _ = after;
        Ok(())
    }

    /// Numbers that belong to a step.
    ///
    /// # Errors
    ///
    /// Of any kind.
    fn log(&mut self, step: usize, scalars: &[(String, f64)]) -> Result<(), BoxError>;

    /// After the last step.
    ///
    /// # Errors
    ///
    /// Of any kind.
    fn finish(&mut self) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The numbers of a step, by name.
pub(crate) fn step_scalars(record: &StepRecord) -> Vec<(String, f64)> {
    let mut scalars: Vec<(String, f64)> = [
        ("train/loss", record.loss),
        ("train/learning_rate", record.learning_rate),
        ("train/grad_norm", record.grad_norm),
        ("train/epoch", record.epoch),
        ("train/tokens_per_s", record.tokens_per_s),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into();
    let metrics = record.metrics.iter();
    scalars.extend(metrics.map(|(name, value)| (format!("train/{name}"), *value)));
    scalars
}

/// The numbers of an evaluation, by name.
pub(crate) fn eval_scalars(evaluation: &Evaluation) -> Vec<(String, f64)> {
    let mut scalars = Vec::new();
    let mut add = |prefix: &str, found: &EvalMetrics| {
        scalars.push((format!("{prefix}/loss"), found.loss));
        scalars.push((format!("{prefix}/perplexity"), found.perplexity));
        let metrics = found.metrics.iter();
        scalars.extend(metrics.map(|(name, value)| (format!("{prefix}/{name}"), *value)));
    };
    add("eval", &evaluation.metrics);
    for (name, found) in &evaluation.sets {
        add(&format!("eval/{name}"), found);
    }
    scalars
}
