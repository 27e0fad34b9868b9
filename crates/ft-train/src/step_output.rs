//! What a step returns: a summed loss, its count, and metrics that are reduced as the loss is.

use burn::tensor::Tensor;
use ft_core::{CausalLm, LossSum, causal_lm_loss};
use ft_data::Batch;

use crate::{BoxError, Metric, MetricSum, StepContext};

/// What a step returns. `?` turns any error into the right one.
pub type StepResult = Result<StepOutput, BoxError>;

/// What a step found about a batch.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ft_core::LossSum;
/// use ft_train::StepOutput;
///
/// // Four pairs with a summed loss of 2.8; of three the chosen answer has the higher reward.
/// let sum = Tensor::from_data([2.8], &Device::default());
/// let output = StepOutput::from(LossSum { sum, count: 4 }).with_metric("accuracy", 3.0, 4.0);
/// assert_eq!(output.metrics[0].name, "accuracy");
/// ```
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The summed loss, and what it was summed over.
    pub loss: LossSum,
    /// Sums of other numbers.
    pub metrics: Vec<Metric>,
    /// How many tokens the batch has, for tokens a second; if absent, [`LossSum::count`] is taken.
    pub tokens: Option<usize>,
}

impl From<LossSum> for StepOutput {
    fn from(loss: LossSum) -> Self {
        Self {
            loss,
            metrics: Vec::new(),
            tokens: None,
        }
    }
}

impl StepOutput {
    /// Adds a metric: `sum` over things that weigh `weight` together. What is reported of a step or an evaluation
    /// is `Σ sums / Σ weights` over its batches, as of the loss. The mean of a batch is `mean * weight`.
    ///
    /// A sum may be a number or a tensor of one element, which is read together with the losses.
    ///
    /// # Panics
    ///
    /// If the weight is negative or not finite, or the tensor has not one element.
    #[must_use]
    pub fn with_metric(
        mut self,
        name: impl Into<String>,
        sum: impl Into<MetricSum>,
        weight: f64,
    ) -> Self {
        let metric = Metric::new(name.into(), sum.into(), weight);
        self.metrics.push(metric);
        self
    }

    /// With how many tokens the batch has.
    #[must_use]
    pub fn with_tokens(self, tokens: usize) -> Self {
        Self {
            tokens: Some(tokens),
            ..self
        }
    }

    /// The loss outside the graph.
    pub(crate) fn loss_value(&self) -> Tensor<1> {
        self.loss.sum.clone().inner()
    }
}

/// The step of supervised training: every token that has a label is predicted from those before it.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoCausalLm, train: ft_data::SftBatches, held_out: ft_data::SftBatches,
/// # ) -> ft_train::Result<()> {
/// use ft_train::{TrainConfig, Trainer, evaluate, next_token_loss};
///
/// println!("{}", evaluate(&model, &held_out, next_token_loss)?.loss);
/// let (model, _) = Trainer::new(TrainConfig::default(), train, next_token_loss).fit(model)?;
/// println!("{}", evaluate(&model, &held_out, next_token_loss)?.loss);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// None; the type is that of all steps.
pub fn next_token_loss<M: CausalLm>(model: &M, batch: &Batch, context: &StepContext) -> StepResult {
    let hidden = model.hidden_states(&batch.tokens(&context.device), None);
    let loss = causal_lm_loss(hidden, model.head(), &batch.labels);
    Ok(StepOutput::from(loss).with_tokens(batch.token_count()))
}
