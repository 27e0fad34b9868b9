//! The loss on held-out data, each label counted alike.

use burn::module::Module;
use ft_core::LossSum;
use ft_data::Batches;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

/// What an evaluation found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
}

/// Evaluates `model` on the batches of epoch 0, without gradients and with dropout off.
///
/// `step` is the step of the training: it gives the summed loss of a batch and its count.
///
/// # Errors
///
/// If no label counts, or a loss is not finite.
pub fn evaluate<M: Module, B>(
    model: &M,
    batches: &(impl Batches<Batch = B> + ?Sized),
    mut step: impl FnMut(&M, &B) -> LossSum,
) -> Result<EvalMetrics> {
    let model = model.valid();
    let (mut sum, mut tokens) = (0.0, 0);
    for index in 0..batches.len(0) {
        let loss = step(&model, &batches.batch(0, index));
        if loss.count == 0 {
            continue;
        }
        let value: f64 = loss.sum.into_data().iter::<f64>().sum();
        if !value.is_finite() {
            return Err(Error::NonFiniteEvaluation {
                batch: index,
                loss: value / loss.count as f64,
            });
        }
        sum += value;
        tokens += loss.count;
    }
    if tokens == 0 {
        return Err(Error::EmptyEvaluation);
    }
    let loss = sum / tokens as f64;
    Ok(EvalMetrics {
        loss,
        perplexity: loss.exp(),
        tokens,
    })
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
        };
        let text = serde_json::to_string(&metrics).expect("serializes");
        assert_eq!(
            serde_json::from_str::<EvalMetrics>(&text).ok(),
            Some(metrics)
        );
    }
}
