//! Training of process reward models, which score each step of a solution: TRL's `PRMTrainer` as a step.

use burn::module::Module;
use burn::tensor::activation;
use ft_core::{AutoTokenClassifier, IGNORE_INDEX, LossSum};
use ft_data::{Batch, Tokenized, collate_padded};
use ft_train::{StepContext, StepOutput, StepResult};

use crate::loss::process_rewards;
use crate::{Error, Result};

/// The step of a process reward model (Lightman et al., 2023, arXiv:2305.20050): the class of every step at its end, wrong (0) or
/// right (1).
///
/// Rows are those of [`load_stepwise`](ft_data::load_stepwise), padded on the right. The loss is the cross-entropy, a mean over the
/// ends of steps; the metric is `accuracy`.
///
/// # Errors
///
/// If the model does not have two labels.
pub fn process_reward_step(
    model: &AutoTokenClassifier,
    batch: &Batch,
    context: &StepContext,
) -> StepResult {
    check_labels(model)?;
    let logits = model.scores(&batch.tokens(&context.device));
    let (losses, _) = process_rewards(logits.clone(), &batch.labels);
    let count = batch
        .labels
        .iter()
        .filter(|&&label| label != IGNORE_INDEX)
        .count();
    let classes = logits.inner().argmax(2).into_data();
    let right = classes.iter::<i64>().zip(&batch.labels);
    let right = right.filter(|(class, label)| class == *label).count();
    let loss = LossSum {
        sum: losses.sum(),
        count,
    };
    Ok(StepOutput::from(loss)
        .with_metric("accuracy", right as f64, count as f64)
        .with_tokens(batch.token_count()))
}

/// The probability that each step of each row is right, in the order of the steps. A step ends where the row has a label, whatever
/// that is.
///
/// Rows are scored `batch_size` at a time.
///
/// # Errors
///
/// If the model does not have two labels.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn score_steps(
    model: &AutoTokenClassifier,
    rows: &[Tokenized],
    batch_size: usize,
) -> Result<Vec<Vec<f32>>> {
    check_labels(model)?;
    let model = model.valid();
    let device = model.devices().first().cloned().unwrap_or_default();
    let mut found = Vec::with_capacity(rows.len());
    for rows in rows.chunks(batch_size) {
        let batch = collate_padded(&rows.iter().collect::<Vec<_>>(), 1, 0);
        let logits = model.scores(&batch.tokens(&device));
        let right = activation::softmax(logits, 2).narrow(2, 1, 1).into_data();
        let right: Vec<f32> = right.iter::<f32>().collect();
        let rows = right.chunks(batch.seq).zip(batch.labels.chunks(batch.seq));
        found.extend(rows.map(|(right, labels)| {
            let ends = right.iter().zip(labels);
            let ends = ends.filter(|(_, label)| **label != IGNORE_INDEX);
            ends.map(|(right, _)| *right).collect()
        }));
    }
    Ok(found)
}

fn check_labels(model: &AutoTokenClassifier) -> Result<()> {
    match model.config().num_labels() {
        2 => Ok(()),
        labels => Err(Error::RewardModel(format!(
            "the model has {labels} labels, and a process reward model has two, wrong and right: make it with two labels"
        ))),
    }
}
