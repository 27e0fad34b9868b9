//! Training of reward models on pairs: TRL's `RewardTrainer` as a step.

use burn::tensor::{Device, Tensor, TensorData};
use ft_core::{AutoSequenceClassifier, LossSum};
use ft_data::{Batch, PreferenceBatch};
use ft_train::{StepContext, StepOutput, StepResult};

use crate::loss::bradley_terry;
use crate::{Error, Result};

/// The step of a reward model: its score of the chosen answer should be above that of the rejected one.
///
/// The loss of a pair is [`bradley_terry`]; scores are those of the last token of prompt and answer. Labels are not read.
/// Batches are those of [`PreferenceDataset::into_batches`](ft_data::PreferenceDataset::into_batches). A column `margin` of the
/// data is subtracted from the difference of the scores, which must then be larger.
///
/// Metrics are TRL's: `accuracy` (pairs whose chosen score is higher; equal scores do not count), `margin` (the mean
/// difference), `min_reward`, `mean_reward` and `max_reward`. Over several batches, `min_reward` and `max_reward` are means
/// of those of the batches.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoSequenceClassifier, data: ft_data::PreferenceDataset,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_align::RewardModel;
/// use ft_train::{TrainConfig, Trainer};
///
/// let batches = data.into_batches(8, Some(42), 0)?;
/// let reward = RewardModel::default();
/// let step = |model: &_, batch: &_, context: &_| reward.step(model, batch, context);
/// let (model, report) = Trainer::new(TrainConfig::default(), batches, step).fit(model)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardModel {
    /// How strongly the two scores of a pair are drawn to a sum of 0. 0 leaves it out; 0.01 is usual.
    pub center_rewards_coefficient: f64,
}

impl RewardModel {
    /// The summed loss of the pairs of a batch, with their number and the metrics.
    ///
    /// # Errors
    ///
    /// If the model does not have exactly one label, or a row is longer than it allows.
    pub fn step(
        &self,
        model: &AutoSequenceClassifier,
        batch: &PreferenceBatch,
        context: &StepContext,
    ) -> StepResult {
        let rows = &batch.rows;
        let rewards = rewards(model, rows, &context.device)?;
        let pairs = rows.batch / 2;
        let margins = TensorData::new(batch.margins.clone(), [pairs]);
        let chosen = rewards.clone().narrow(0, 0, pairs);
        let rejected = rewards.clone().narrow(0, pairs, pairs);
        let losses = bradley_terry(
            chosen.clone(),
            rejected.clone(),
            Some(Tensor::from_data(margins, &context.device)),
            self.center_rewards_coefficient,
        );
        let loss = LossSum {
            sum: losses.sum(),
            count: pairs,
        };
        let [rewards, chosen, rejected] = [rewards, chosen, rejected].map(Tensor::inner);
        let right = chosen.clone().greater(rejected.clone()).float();
        let margins = chosen - rejected;
        let (tokens, rows) = (rows.token_count(), rows.batch as f64);
        let pairs = pairs as f64;
        Ok(StepOutput::from(loss)
            .with_metric("accuracy", right.sum(), pairs)
            .with_metric("margin", margins.sum(), pairs)
            .with_metric("min_reward", rewards.clone().min(), 1.0)
            .with_metric("mean_reward", rewards.clone().sum(), rows)
            .with_metric("max_reward", rewards.max(), 1.0)
            .with_tokens(tokens))
    }
}

/// The scores of the rows of a batch, `[rows]`.
///
/// # Errors
///
/// If the model does not have exactly one label, or a row is longer than it allows.
pub(crate) fn rewards(
    model: &AutoSequenceClassifier,
    batch: &Batch,
    device: &Device,
) -> Result<Tensor<1>> {
    model.dims().check_length(batch.seq)?;
    match model.num_labels() {
        1 => Ok(model
            .scores(&batch.tokens(device), &batch.lengths)
            .squeeze_dim(1)),
        labels => Err(Error::RewardModel(format!(
            "the model has {labels} labels, and a reward model has one: make it with one label"
        ))),
    }
}
