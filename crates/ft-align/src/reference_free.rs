//! Pairs of answers without a reference: ORPO, CPO, SimPO and AlphaPO.

use burn::tensor::Tensor;
use ft_core::{CausalLm, Dims, LossSum, predicted_logps};
use ft_data::{PreferenceDataset, PreferenceExample};
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};

use crate::dpo::with_pair_metrics;
use crate::loss::{
    PairLogps, PolicyLogps, ReferenceFreeLoss, ReferenceFreeSettings, box_cox, log_odds_ratio,
    sum_logps,
};
use crate::sequences::{check_pairs, device_of, reach};
use crate::splits::Splits;
use crate::{PairBatch, Result};

/// Trains a policy on pairs alone. ORPO does it together with supervised training, from a base model, in one stage.
///
/// The loss of a step is the mean over its pairs. Metrics have TRL's names: `rewards/*` are `β` times the log-probabilities
/// that the loss takes, sums for CPO and means over tokens for the others; for AlphaPO they are `β (1 − p^{−α})/α`. `nll_loss` is the negative log-likelihood that
/// is added with [`nll_weight`](ReferenceFreeSettings::nll_weight); for ORPO also `log_odds_ratio` (the mean of `ln σ(o)`)
/// and `log_odds_chosen` (that of `o`).
#[derive(Debug)]
pub struct ReferenceFree {
    loss: ReferenceFreeLoss,
    settings: ReferenceFreeSettings,
    dims: Dims,
    splits: Splits<PreferenceExample>,
}

impl ReferenceFree {
    /// A method with this loss for `policy`, the model that will be trained. The order of the pairs is shuffled in every epoch
    /// if a seed is given.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, there are no pairs, or a pair is longer than the model allows.
    pub fn new<M: CausalLm>(
        loss: ReferenceFreeLoss,
        settings: ReferenceFreeSettings,
        policy: &M,
        train: PreferenceDataset,
        batch_size: usize,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        loss.check(&settings)?;
        let dims = policy.dims();
        check_pairs(dims, &train)?;
        Ok(Self {
            dims,
            loss,
            settings,
            splits: Splits::new(train.examples, batch_size, shuffle_seed)?,
        })
    }

    /// Evaluates on these pairs too. Without pairs there is no evaluation.
    ///
    /// # Errors
    ///
    /// If a pair is longer than the model allows.
    pub fn with_evaluation(self, held_out: PreferenceDataset) -> Result<Self> {
        check_pairs(self.dims, &held_out)?;
        Ok(Self {
            splits: self.splits.with_evaluation(held_out.examples)?,
            ..self
        })
    }
}

impl<M: CausalLm> Method<M> for ReferenceFree {
    type Batch = PairBatch;

    fn len(&self, epoch: usize) -> usize {
        self.splits.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.splits.evaluation_len()
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PairBatch, BoxError> {
        let pairs = self.splits.batch(epoch, index, context);
        let device = device_of(&**model);
        Ok(PairBatch::new(reach(&**model), &pairs, &device))
    }

    fn step(&mut self, model: &M, batch: &PairBatch, context: &StepContext) -> StepResult {
        let (sequences, device, count) = (&batch.sequences, &context.device, batch.len());
        let hidden = model.hidden_states(&sequences.batch.tokens(device), None);
        let tokens = predicted_logps(hidden.clone(), model.head(), &sequences.completions, 1.0);
        let sums = sum_logps(tokens.logps, &tokens.mask);
        let lengths: Tensor<1> = tokens.mask.sum_dim(1).squeeze_dim(1);
        let half = |rows: &Tensor<1>, second: bool| {
            rows.clone()
                .narrow(0, if second { count } else { 0 }, count)
        };
        let pairs = PolicyLogps {
            chosen: half(&sums, false),
            rejected: half(&sums, true),
            chosen_tokens: half(&lengths, false),
            rejected_tokens: half(&lengths, true),
        };
        let means = pairs.means();

        // The likelihood of the chosen answers, and for ORPO of their prompts.
        let mut nll = -pairs.chosen.clone().sum();
        let mut learnt: usize = sequences.completions[..count].iter().map(Vec::len).sum();
        if self.loss.learns_prompts() && self.settings.nll_weight > 0.0 {
            let prompts = &sequences.prompts[..count];
            let tokens = predicted_logps(hidden, model.head(), prompts, 1.0);
            nll = nll - tokens.logps.sum();
            learnt += prompts.iter().map(Vec::len).sum::<usize>();
        }
        let nll = nll / learnt.max(1) as f64;

        let losses = self.loss.compute(&pairs, &self.settings).sum();
        let sum = losses + nll.clone() * (self.settings.nll_weight * count as f64);
        let mut output = StepOutput::from(LossSum { sum, count });
        let weight = count as f64;
        output = output.with_metric("nll_loss", nll.detach() * weight, weight);
        if self.loss == ReferenceFreeLoss::Orpo {
            let odds = log_odds_ratio(means[0].clone(), means[1].clone()).detach();
            let log_sigmoid = burn::tensor::activation::log_sigmoid(odds.clone());
            output = output
                .with_metric("log_odds_ratio", log_sigmoid.sum(), weight)
                .with_metric("log_odds_chosen", odds.sum(), weight);
        }
        let [chosen, rejected] = match self.loss.is_of_means() {
            true => means,
            false => [pairs.chosen.clone(), pairs.rejected.clone()],
        };
        // Rewards are β times the difference from what stands in the place of a reference.
        let alpha = match self.loss {
            ReferenceFreeLoss::Alphapo => self.settings.alpha,
            _ => 0.0,
        };
        let offset = |logps: &Tensor<1>| logps.clone() - box_cox(logps.clone(), -alpha);
        let logged = PairLogps {
            ref_chosen: offset(&chosen),
            ref_rejected: offset(&rejected),
            chosen_nll: -pairs.chosen,
            chosen,
            rejected,
            chosen_tokens: pairs.chosen_tokens,
            rejected_tokens: pairs.rejected_tokens,
            weights: None,
        };
        Ok(with_pair_metrics(
            output,
            &logged,
            self.settings.beta,
            sequences,
        ))
    }
}
