//! The loss on held-out data, each label counted alike.

use std::ops::Range;

use burn::module::Module;
use ft_data::Batches;
use serde::{Deserialize, Deserializer, Serialize};

use crate::metric::{MetricSums, nan_if_null};
use crate::{
    Error, Method, Metrics, ModelView, OnBatches, Result, StepContext, StepOutput, StepResult,
};

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalMetrics {
    /// Mean loss of a label: `Σ sums / Σ counts` over all batches.
    #[serde(rename = "eval_loss")]
    pub loss: f64,
    /// `exp(loss)`.
    #[serde(rename = "eval_perplexity", deserialize_with = "infinite_if_null")]
    pub perplexity: f64,
    /// How many labels were counted.
    #[serde(rename = "eval_tokens")]
    pub tokens: usize,
    /// What the step reports besides, reduced as the loss is.
    #[serde(
        rename = "eval_metrics",
        default,
        skip_serializing_if = "Metrics::is_empty",
        deserialize_with = "nan_if_null"
    )]
    pub metrics: Metrics,
}

/// Evaluates `model` on the batches of epoch 0, without gradients and with dropout off.
///
/// `step` is the step of the training, [`next_token_loss`](crate::next_token_loss) for one; its context says that
/// it is an evaluation, with seeds of a run of seed 0.
///
/// # Errors
///
/// If a step fails, no label counts, or a loss is not finite.
pub fn evaluate<M: Module, B>(
    model: &M,
    batches: &(impl Batches<Batch = B> + ?Sized),
    step: impl FnMut(&M, &B, &StepContext) -> StepResult,
) -> Result<EvalMetrics> {
    let mut method = OnBatches::new(Borrowed(batches), step);
    let len = batches.len(0);
    evaluate_method(model, &mut method, 0..len, 0, 0)
}

/// Batches that somebody else has.
struct Borrowed<'a, T: ?Sized>(&'a T);

impl<T: Batches + ?Sized> Batches for Borrowed<'_, T> {
    type Batch = T::Batch;
    fn len(&self, epoch: usize) -> usize {
        self.0.len(epoch)
    }
    fn batch(&self, epoch: usize, index: usize) -> T::Batch {
        self.0.batch(epoch, index)
    }
}

/// Evaluates on these batches that a method has for it, after `step` steps of a run of seed `seed`.
pub(crate) fn evaluate_method<M: Module, T: Method<M>>(
    model: &M,
    method: &mut T,
    batches: Range<usize>,
    seed: u64,
    step: usize,
) -> Result<EvalMetrics> {
    let model = model.valid();
    let view = ModelView::new(&model);
    let device = model.devices().first().cloned().unwrap_or_default();
    let mut sums = EvalSums::default();
    for index in batches {
        let context = StepContext::evaluation(&device, seed, step, index);
        let failed = |source| Error::Evaluation {
            batch: index,
            source,
        };
        for device in model.devices() {
            device.seed(context.seed);
        }
        let batch = (method.batch(&view, 0, index, &context)).map_err(failed)?;
        let output = method.step(&model, &batch, &context).map_err(failed)?;
        sums.add(index, output)?;
    }
    sums.finish()
}

/// An evaluation under way.
#[derive(Default)]
struct EvalSums {
    sum: f64,
    tokens: usize,
    metrics: MetricSums,
}

impl EvalSums {
    fn add(&mut self, batch: usize, output: StepOutput) -> Result<()> {
        let count = output.loss.count;
        if count > 0 {
            let value: f64 = output.loss_value().into_data().iter::<f64>().sum();
            if !value.is_finite() {
                let loss = value / count as f64;
                return Err(Error::NonFiniteEvaluation { batch, loss });
            }
            self.sum += value;
            self.tokens += count;
        }
        self.metrics.add(output.metrics);
        Ok(())
    }

    fn finish(self) -> Result<EvalMetrics> {
        if self.tokens == 0 {
            return Err(Error::EmptyEvaluation);
        }
        let loss = self.sum / self.tokens as f64;
        Ok(EvalMetrics {
            loss,
            perplexity: loss.exp(),
            tokens: self.tokens,
            metrics: self.metrics.reduce(),
        })
    }
}

/// JSON has no infinity, and writes null instead.
fn infinite_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Option::<f64>::deserialize(deserializer)?;
    Ok(value.unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perplexity_beyond_all_numbers_survives_json() {
        let metrics = EvalMetrics {
            loss: 1e4,
            perplexity: f64::INFINITY,
            tokens: 1,
            metrics: Metrics::from([("accuracy".into(), 0.25)]),
        };
        let text = serde_json::to_string(&metrics).expect("serializes");
        assert_eq!(
            serde_json::from_str::<EvalMetrics>(&text).ok(),
            Some(metrics)
        );
    }
}
