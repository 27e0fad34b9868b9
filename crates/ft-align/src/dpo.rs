//! Direct preference optimization and its relatives: pairs of answers, a policy and a reference.

use burn::tensor::Tensor;
use ft_core::{CausalLm, Dims, LossSum, predicted_log_sum_squares, predicted_logps};
use ft_data::{Branches, PreferenceDataset, PreferenceExample};
use ft_kernels::exact;
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};

use crate::loss::{
    PairLogps, PairLoss, PairLosses, PairMetrics, PairSettings, pair_logps, wpo_weights,
};
use crate::sequences::{check_pairs, completion_logps, device_of, numbers, reach, shorter, tensor};
use crate::splits::Splits;
use crate::{Error, PairBatch, Reference, Result};

/// The settings of [`Dpo`].
#[derive(Clone, Debug, PartialEq)]
pub struct DpoConfig {
    /// The loss, or several with weights.
    pub losses: PairLosses,
    /// Its numbers.
    pub settings: PairSettings,
    /// How much tokens beyond the length of the shorter answer count: LD-DPO's α, 1 for all.
    pub ld_alpha: f64,
    /// Weights pairs by how likely the policy is to give them (WPO).
    pub use_weighting: bool,
}

impl Default for DpoConfig {
    /// TRL's: the loss `sigmoid` with β 0.1, all tokens, no weights.
    fn default() -> Self {
        Self {
            losses: PairLoss::Sigmoid.into(),
            settings: PairSettings::default(),
            ld_alpha: 1.0,
            use_weighting: false,
        }
    }
}

impl DpoConfig {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = match self.losses.check(&self.settings, self.use_weighting) {
            Err(Error::Settings(mistakes)) => mistakes,
            other => {
                other?;
                Vec::new()
            }
        };
        if !(0.0..=1.0).contains(&self.ld_alpha) {
            mistakes.push(format!(
                "ld_alpha must be from 0 to 1, not {}: 1 counts all tokens alike",
                self.ld_alpha
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }
}

/// Trains a policy on pairs against a reference (Rafailov et al., 2023, arXiv:2305.18290).
///
/// The loss of a step is the mean over its pairs. Metrics have TRL's names, see [`PairMetrics`]; `nll/chosen` is the
/// negative log-likelihood of a token of the chosen answers, whose exponential is their perplexity.
///
/// The policy has the dropout of its adapter while it trains, the reference has none: TRL switches dropout off. Use an
/// adapter without it, or rewards and margins have its noise.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoCausalLm, tokenizer: ft_core::Tokenizer,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_align::{Dpo, DpoConfig, Reference};
/// use ft_data::PreferenceDataset;
/// use ft_peft::{LoraConfig, attach};
/// use ft_train::{TrainConfig, Trainer};
///
/// let pairs = PreferenceDataset::load("pairs.jsonl", &tokenizer, 1024)?;
/// let (train, held_out) = pairs.split(0.1, 42)?;
/// let policy = attach(model, &LoraConfig::default(), "default", 42)?;
/// let method = Dpo::new(DpoConfig::default(), Reference::AdaptersOff, &policy, train, 4, Some(42))?
///     .with_evaluation(held_out)?;
/// let config = TrainConfig { learning_rate: 5e-6, ..TrainConfig::default() };
/// let (policy, report) = Trainer::with_method(config, method).fit(policy)?;
/// println!("{:?}", report.eval_after().map(|after| &after.metrics["rewards/accuracies"]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Dpo<M> {
    config: DpoConfig,
    reference: Reference<M>,
    dims: Dims,
    splits: Splits<PreferenceExample>,
}

impl<M: CausalLm> Dpo<M> {
    /// A method for `policy`, the model that will be trained. The order of the pairs is shuffled in every epoch if a seed
    /// is given.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the reference does not fit the policy, or there are no pairs.
    pub fn new(
        config: DpoConfig,
        reference: Reference<M>,
        policy: &M,
        train: PreferenceDataset,
        batch_size: usize,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        config.validate()?;
        reference.check(policy)?;
        check_precomputed(&reference, &train)?;
        let dims = policy.dims();
        check_pairs(dims, &train)?;
        Ok(Self {
            dims,
            config,
            reference,
            splits: Splits::new(train.examples, batch_size, shuffle_seed)?,
        })
    }

    /// Evaluates on these pairs too.
    ///
    /// # Errors
    ///
    /// If log-probabilities of the reference are missing, or a pair is longer than the model allows. Without pairs there is no evaluation.
    pub fn with_evaluation(self, held_out: PreferenceDataset) -> Result<Self> {
        check_precomputed(&self.reference, &held_out)?;
        check_pairs(self.dims, &held_out)?;
        Ok(Self {
            splits: self.splits.with_evaluation(held_out.examples)?,
            ..self
        })
    }
}

fn check_precomputed<M>(reference: &Reference<M>, dataset: &PreferenceDataset) -> Result<()> {
    let missing = dataset
        .examples
        .iter()
        .filter(|pair| pair.reference_logps.is_none());
    match (reference, missing.count()) {
        (Reference::Precomputed, missing) if missing > 0 => Err(Error::Reference(format!(
            "the log-probabilities of the reference are to be computed before the training, but {missing} pairs have none: \
             call add_reference_logps on the dataset"
        ))),
        _ => Ok(()),
    }
}

impl<M: CausalLm> Method<M> for Dpo<M> {
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
        let reference = self.reference.model(model);
        let reach = shorter(reach(&**model), reference.as_ref().and_then(reach));
        let batch = PairBatch::new(reach, &pairs, &device);
        let reference = match reference {
            Some(reference) => {
                let tokens = completion_logps(&reference, &batch.sequences, 1.0, &device);
                numbers(pair_logps(&tokens, self.config.ld_alpha))
            }
            None => {
                let side = |side: usize| {
                    let sums = pairs.iter().filter_map(move |pair| pair.reference_logps);
                    sums.map(move |sums| sums[side])
                };
                side(0).chain(side(1)).collect()
            }
        };
        Ok(PairBatch {
            reference: Some(reference),
            ..batch
        })
    }

    fn step(&mut self, model: &M, batch: &PairBatch, context: &StepContext) -> StepResult {
        pair_step(&self.config, &self.reference, model, batch, context)
    }
}

/// The summed loss of pairs against a reference, with the metrics.
pub(crate) fn pair_step<M: CausalLm>(
    config: &DpoConfig,
    reference: &Reference<M>,
    model: &M,
    batch: &PairBatch,
    context: &StepContext,
) -> StepResult {
    let (sequences, device) = (&batch.sequences, &context.device);
    let (hidden, policy) = exact(|| {
        let hidden = model.hidden_states(&sequences.batch.tokens(device), None);
        let head = model.head();
        let policy = predicted_logps(hidden.clone(), head, &sequences.completions, 1.0);
        (hidden, policy)
    });
    let logps = batch.reference.clone().unwrap_or_default();
    let pairs = PairLogps::new(&policy, tensor(logps.clone(), device), config.ld_alpha);
    if context.is_training() && context.step == 1 && context.micro_batch == 0 {
        let ratios = [pairs.chosen_log_ratios(), pairs.rejected_log_ratios()];
        let ratios = numbers(Tensor::cat(ratios.to_vec(), 0).detach());
        reference.check_start(model, &ratios, &logps)?;
    }
    let weights = config.use_weighting.then(|| {
        let squares = predicted_log_sum_squares(hidden, model.head(), &sequences.completions);
        let rows = wpo_weights(policy.logps.clone(), squares, &policy.mask);
        let count = batch.len();
        rows.clone().narrow(0, 0, count) * rows.narrow(0, count, count)
    });
    let pairs = PairLogps { weights, ..pairs };
    let losses = config.losses.compute(&pairs, &config.settings);
    let output = StepOutput::from(LossSum {
        sum: losses.sum(),
        count: batch.len(),
    });
    let beta = config.settings.beta;
    Ok(with_pair_metrics(output, &pairs, beta, sequences))
}

/// With the metrics of pairs: means over pairs, and over tokens for `nll/chosen`.
pub(crate) fn with_pair_metrics(
    output: StepOutput,
    pairs: &PairLogps,
    beta: f64,
    sequences: &Branches,
) -> StepOutput {
    let pairs_count = output.loss.count;
    let count = pairs_count as f64;
    let mut output = output.with_tokens(sequences.batch.token_count());
    for (name, values) in PairMetrics::new(pairs, beta).named() {
        output = output.with_metric(name, values.sum(), count);
    }
    let chosen = &sequences.completions[..pairs_count];
    let chosen_tokens: usize = chosen.iter().map(Vec::len).sum();
    let nll = pairs.chosen_nll.clone().detach().sum();
    output.with_metric("nll/chosen", nll, chosen_tokens as f64)
}
