//! A say in a run: what to do after a step, an evaluation, or when a checkpoint is written.

use std::ops::ControlFlow;
use std::path::Path;

use crate::{BoxError, Evaluation, StepRecord};

/// Whether a run goes on, or the error that ends it.
pub type Verdict = Result<ControlFlow<()>, BoxError>;

/// Called by the trainer. Every method has a default that does nothing.
///
/// `ControlFlow::Break` ends the run in order, with a last evaluation and a last checkpoint; an error
/// ends it at once.
///
/// ```
/// use std::ops::ControlFlow;
/// use ft_train::{Callback, Evaluation, Verdict};
///
/// /// Stops as soon as the evaluation loss rises.
/// struct EarlyStopping { best: f64 }
///
/// impl<M> Callback<M> for EarlyStopping {
///     fn on_eval(&mut self, _: &M, evaluation: &Evaluation) -> Verdict {
///         if evaluation.metrics.loss > self.best {
///             return Ok(ControlFlow::Break(()));
///         }
///         self.best = evaluation.metrics.loss;
///         Ok(ControlFlow::Continue(()))
///     }
/// }
/// ```
pub trait Callback<M> {
    /// After a step; `model` is the updated one.
    fn on_step(&mut self, model: &M, step: &StepRecord) -> Verdict {
        let _ = (model, step);
        Ok(ControlFlow::Continue(()))
    }

    /// After an evaluation.
    fn on_eval(&mut self, model: &M, evaluation: &Evaluation) -> Verdict {
        let _ = (model, evaluation);
        Ok(ControlFlow::Continue(()))
    }

    /// While a checkpoint is written: what is put into `folder` (an adapter, say) becomes part of it.
    /// The folder has a temporary name until the checkpoint is whole.
    ///
    /// # Errors
    ///
    /// What the callback reports; the checkpoint is then not made and the run ends.
    fn on_checkpoint(&mut self, model: &M, folder: &Path) -> Result<(), BoxError> {
        let _ = (model, folder);
        Ok(())
    }
}
