//! Ends a run whose evaluation loss no longer improves.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BoxError, Callback, Evaluation, ModelView, Verdict};

/// Ends a run when the evaluation loss has not improved for several evaluations, as transformers' `EarlyStoppingCallback`.
///
/// With [`TrainConfig::load_best_model_at_end`](crate::TrainConfig::load_best_model_at_end) the run returns the best model.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: usize,
    threshold: f64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct State {
    best: Option<f64>,
    without_improvement: usize,
}

impl EarlyStopping {
    /// Ends the run after so many evaluations without an improvement.
    ///
    /// # Panics
    ///
    /// If the patience is 0.
    pub fn new(patience: usize) -> Self {
        assert!(patience > 0, "a patience of 0 ends every run");
        Self {
            patience,
            threshold: 0.0,
            state: State::default(),
        }
    }

    /// A loss counts as an improvement if it is smaller by more than this; 0 without it.
    #[must_use]
    pub fn with_threshold(self, threshold: f64) -> Self {
        Self { threshold, ..self }
    }
}

impl<M> Callback<M> for EarlyStopping {
    fn on_eval(&mut self, _: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
        let loss = evaluation.metrics.loss;
        let improves = self
            .state
            .best
            .is_none_or(|best| loss < best - self.threshold);
        if improves {
            self.state = State {
                best: Some(loss),
                without_improvement: 0,
            };
        } else {
            self.state.without_improvement += 1;
        }
        Ok(match self.state.without_improvement >= self.patience {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        })
    }

    fn state(&self) -> Option<Value> {
        serde_json::to_value(self.state).ok()
    }

    fn restore(&mut self, state: Value) -> Result<(), BoxError> {
        self.state = serde_json::from_value(state)?;
        Ok(())
    }
}
