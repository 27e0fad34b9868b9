//! A say in a run: what to do after a step, an evaluation, or when a checkpoint is written.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;

use crate::{BoxError, Evaluation, ModelView, StepRecord};

/// Whether a run goes on, or the error that ends it.
pub type Verdict = Result<ControlFlow<()>, BoxError>;

/// Called by the trainer. Every method has a default that does nothing.
///
/// `ControlFlow::Break` ends the run in order, with a last evaluation and a last checkpoint, from which it can be resumed; an error
/// ends it at once.
///
/// What a callback remembers is part of a checkpoint if it says so with [`state`](Self::state). A run that lacks a
/// callback whose state a checkpoint has is refused, since it would not continue that run. A callback that the
/// checkpoint does not know starts from the beginning, which is reported.
///
/// ```
/// use std::ops::ControlFlow;
/// use ft_train::{BoxError, Callback, Evaluation, ModelView, Verdict};
///
/// /// Stops as soon as the evaluation loss rises.
/// struct EarlyStopping { best: f64 }
///
/// impl<M> Callback<M> for EarlyStopping {
///     fn on_eval(&mut self, _: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
///         if evaluation.metrics.loss > self.best {
///             return Ok(ControlFlow::Break(()));
///         }
///         self.best = evaluation.metrics.loss;
///         Ok(ControlFlow::Continue(()))
///     }
///     fn state(&self) -> Option<serde_json::Value> {
///         Some(self.best.into())
///     }
///     fn restore(&mut self, state: serde_json::Value) -> Result<(), BoxError> {
///         self.best = serde_json::from_value(state)?;
///         Ok(())
///     }
/// }
/// ```
pub trait Callback<M> {
    /// After a step; `model` is the updated one, ready to generate from.
    fn on_step(&mut self, model: &ModelView<'_, M>, step: &StepRecord) -> Verdict {
        let _ = (model, step);
        Ok(ControlFlow::Continue(()))
    }

    /// After an evaluation.
    fn on_eval(&mut self, model: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
        let _ = (model, evaluation);
        Ok(ControlFlow::Continue(()))
    }

    /// While a checkpoint is written: what is put into `folder` (an adapter, say) becomes part of it.
    /// The folder has a temporary name until the checkpoint is whole.
    ///
    /// # Errors
    ///
    /// What the callback reports; the checkpoint is then not made and the run ends.
    fn on_checkpoint(&mut self, model: &ModelView<'_, M>, folder: &Path) -> Result<(), BoxError> {
        let _ = (model, folder);
        Ok(())
    }

    /// What checkpoints keep of the callback; `None` if it has nothing to keep.
    fn state(&self) -> Option<Value> {
        None
    }

    /// Takes back the [`state`](Self::state) of the checkpoint that a run continues from, before anything else is
    /// called.
    ///
    /// # Errors
    ///
    /// If it is not a state of this callback; the checkpoint is then reported as damaged.
    fn restore(&mut self, state: Value) -> Result<(), BoxError> {
        let _ = state;
        Ok(())
    }

    /// The name of the state in a checkpoint. Of several callbacks of one name, the order counts.
    fn name(&self) -> String {
        std::any::type_name::<Self>().to_string()
    }
}

/// The states of callbacks by name.
pub(crate) fn states<M>(callbacks: &[Box<dyn Callback<M> + '_>]) -> BTreeMap<String, Value> {
    let names = unique_names(callbacks).into_iter();
    let states = names.zip(callbacks);
    states
        .filter_map(|(name, callback)| Some((name, callback.state()?)))
        .collect()
}

/// A name for each callback: the second of a name is `name#2`.
pub(crate) fn unique_names<M>(callbacks: &[Box<dyn Callback<M> + '_>]) -> Vec<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let names = callbacks.iter().map(|callback| callback.name());
    names
        .map(|name| {
            let count = seen.entry(name.clone()).or_default();
            *count += 1;
            match *count {
                1 => name,
                n => format!("{name}#{n}"),
            }
        })
        .collect()
}
