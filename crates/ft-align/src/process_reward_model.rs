//! Training of process reward models, which score each step of a solution, with the rows and the loss of `PRMTrainer` in earlier
//! versions of TRL.

use burn::module::Module;
use burn::tensor::activation;
use ft_core::{AutoTokenClassifier, IGNORE_INDEX, LossSum, Tokenizer};
use ft_data::{Batch, Tokenized, collate_padded, tokenize_steps};
use ft_train::{StepContext, StepOutput, StepResult};

use crate::loss::process_rewards;
use crate::score_rows::by_length;
use crate::{Error, Result};

/// The step of a process reward model (Lightman et al., 2023, arXiv:2305.20050): the class of every step at its end, wrong (0) or
/// right (1).
///
/// Rows are those of [`load_stepwise`](ft_data::load_stepwise), padded on the right. The loss is the cross-entropy, a mean over the
/// ends of steps; the metric is `accuracy`.
///
/// # Errors
///
/// If the model does not have two labels, or a row is longer than it allows.
pub fn process_reward_step(
    model: &AutoTokenClassifier,
    batch: &Batch,
    context: &StepContext,
) -> StepResult {
    check_labels(model)?;
    model.dims().check_length(batch.seq)?;
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

/// The probability that each step of each solution is right, in the order of the steps.
///
/// A solution is a prompt and its steps. Between steps is the separator that the model was trained with: that of its `config.json`
/// ([`step_separator`](ft_core::SequenceClassifierConfig::step_separator)), or the one that is given. Rows are scored as in
/// [`score_steps`].
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoTokenClassifier, tokenizer: ft_core::Tokenizer,
/// # ) -> Result<(), ft_align::Error> {
/// let steps = ["There are 3 + 4 apples.", "So there are 8."];
/// let scores = ft_align::score_solutions(&model, &tokenizer, None, &[("3 + 4 apples?", steps)], 8)?;
/// assert_eq!(scores[0].len(), 2);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`score_steps`], and if the model has no separator and none is given, or the tokenizer refuses a text.
///
/// # Panics
///
/// If `batch_size` is 0.
pub fn score_solutions<S: AsRef<str>>(
    model: &AutoTokenClassifier,
    tokenizer: &Tokenizer,
    separator: Option<&str>,
    solutions: &[(impl AsRef<str>, impl AsRef<[S]>)],
    batch_size: usize,
) -> Result<Vec<Vec<f32>>> {
    let known = model.config().step_separator.as_deref();
    let Some(separator) = separator.or(known) else {
        return Err(Error::RewardModel(
            "the model's config.json has no step_separator, so what stands behind a step is not known: give the separator that \
             the model was trained with"
                .into(),
        ));
    };
    let rows = solutions.iter().map(|(prompt, steps)| {
        let steps = steps.as_ref().iter().map(|step| (step.as_ref(), 0));
        Ok(tokenize_steps(
            prompt.as_ref(),
            steps,
            tokenizer,
            separator,
        )?)
    });
    score_steps(model, &rows.collect::<Result<Vec<_>>>()?, batch_size)
}

/// The probability that each step of each row is right, in the order of the steps. A step ends where the row has a label, whatever
/// that is.
///
/// Rows of similar lengths make a batch of at most `batch_size`, so that there is little padding. There is no dropout and no
/// graph.
///
/// # Errors
///
/// If the model does not have two labels, or a row has no tokens or more than the model allows.
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
    let mut found = vec![Vec::new(); rows.len()];
    for places in by_length(rows, batch_size)? {
        let rows: Vec<&Tokenized> = places.iter().map(|&place| &rows[place]).collect();
        let batch = collate_padded(&rows, 1, 0);
        model.dims().check_length(batch.seq)?;
        let logits = model.scores(&batch.tokens(&device));
        let right = activation::softmax(logits, 2).narrow(2, 1, 1).into_data();
        let right: Vec<f32> = right.iter::<f32>().collect();
        let rows = right.chunks(batch.seq).zip(batch.labels.chunks(batch.seq));
        for (place, (right, labels)) in places.into_iter().zip(rows) {
            let ends = right.iter().zip(labels);
            let ends = ends.filter(|(_, label)| **label != IGNORE_INDEX);
            found[place] = ends.map(|(right, _)| *right).collect();
        }
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
