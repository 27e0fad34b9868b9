//! How much a model forgets of what it is not trained on.

use std::io::Write;
use std::ops::ControlFlow;

use serde_json::Value;

use crate::{BoxError, Callback, Evaluation, ModelView, Verdict};

/// Compares the perplexity on a named evaluation set, general text for one, with that before the first step. It warns on stderr
/// when it has risen by 5%, and ends the run when it has risen by 15%.
///
/// The set is added with [`Trainer::with_named_evaluation`](crate::Trainer::with_named_evaluation), and the run evaluates before its
/// first step ([`TrainConfig::eval_at_start`](crate::TrainConfig::eval_at_start)), unless the base is given.
#[derive(Clone, Debug)]
pub struct ForgettingMonitor {
    set: String,
    warn: f64,
    stop: f64,
    /// The perplexity of the base.
    base: Option<f64>,
    warned: bool,
}

impl ForgettingMonitor {
    /// Watches this set.
    pub fn new(set: impl Into<String>) -> Self {
        Self {
            set: set.into(),
            warn: 0.05,
            stop: 0.15,
            base: None,
            warned: false,
        }
    }

    /// Other limits, as shares of the base's perplexity. An infinite one is never reached.
    #[must_use]
    pub fn with_limits(self, warn: f64, stop: f64) -> Self {
        Self { warn, stop, ..self }
    }

    /// The perplexity of the base, if the run does not begin with it.
    #[must_use]
    pub fn with_base(self, perplexity: f64) -> Self {
        Self {
            base: Some(perplexity),
            ..self
        }
    }
}

impl<M> Callback<M> for ForgettingMonitor {
    fn on_eval(&mut self, _: &ModelView<'_, M>, evaluation: &Evaluation) -> Verdict {
        let Self {
            set, warn, stop, ..
        } = &*self;
        let Some(found) = evaluation.sets.get(set) else {
            return Err(format!(
                "there is no evaluation set `{set}`, which the forgetting monitor watches: add it with with_named_evaluation"
            )
            .into());
        };
        let now = found.perplexity;
        let base = match self.base {
            Some(base) => base,
            None if evaluation.step == 0 => now,
            None => {
                return Err(format!(
                    "the perplexity of the base on `{set}` is not known: evaluate at the start (eval_at_start), or give it (with_base)"
                )
                .into());
            }
        };
        let rise = now / base - 1.0;
        let text = format!(
            "the perplexity on `{set}` rose from {base:.3} to {now:.3} ({:+.1}%) by step {}",
            100.0 * rise,
            evaluation.step
        );
        let verdict = match rise > *stop {
            true => {
                say(&format!(
                    "forgetting: {text}; the run ends. Mix general text into the training data, lower the learning rate, or train an adapter"
                ));
                ControlFlow::Break(())
            }
            false => ControlFlow::Continue(()),
        };
        if rise > *warn && rise <= *stop && !self.warned {
            say(&format!(
                "forgetting: {text}; it ends the run at {:+.0}%",
                100.0 * stop
            ));
        }
        self.warned = rise > *warn;
        self.base = Some(base);
        Ok(verdict)
    }

    fn state(&self) -> Option<Value> {
        self.base.map(Value::from)
    }

    fn restore(&mut self, state: Value) -> Result<(), BoxError> {
        self.base = serde_json::from_value(state)?;
        Ok(())
    }
}

/// A closed stderr is no reason to end a training run.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
