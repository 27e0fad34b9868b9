//! Online direct preference optimization: the policy samples the answers of its pairs, and rewards rank them.

use std::collections::BTreeMap;
use std::time::Duration;

use ft_core::{CausalLm, GenerationConfig, RolloutConfig, Tokenizer};
use ft_data::{PreferenceExample, PromptDataset, PromptExample, Tokenized};
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};

use crate::best_of_n::best_and_worst;
use crate::dpo::{DpoConfig, pair_step};
use crate::loss::pair_logps;
use crate::reward::WeightedSum;
use crate::sampler::{Sampled, Sampler, evaluation, sampling_mistakes, warn_about_sampling};
use crate::scored_rollout::{Group, PolicyBatch, group_metrics, tokenized};
use crate::sequences::{completion_logps, device_of, numbers, reach, shorter};
use crate::splits::Splits;
use crate::{Error, PairBatch, Reference, Result, ScoredRollout};

/// The settings of [`OnlineDpo`].
#[derive(Clone, Debug, PartialEq)]
pub struct OnlineDpoConfig {
    /// The loss of pairs and its numbers.
    pub dpo: DpoConfig,
    /// Completions of each prompt, of which the best and the worst are the pair.
    pub num_generations: usize,
    /// Prompts that are sampled together, for one update.
    pub prompts_per_batch: usize,
    /// How completions are sampled.
    pub generation: GenerationConfig,
    /// The largest number of completions that are sampled at the same time, or those of one prompt if they are more.
    pub max_rows: usize,
    /// How long a reward may take for a batch.
    pub reward_time_limit: Duration,
}

impl Default for OnlineDpoConfig {
    /// Two completions of each of 8 prompts, up to 64 tokens at a temperature of 0.9, and the default of [`DpoConfig`]: TRL's
    /// settings.
    fn default() -> Self {
        Self {
            dpo: DpoConfig::default(),
            num_generations: 2,
            prompts_per_batch: 8,
            generation: GenerationConfig {
                max_new_tokens: 64,
                temperature: 0.9,
                ..GenerationConfig::default()
            },
            max_rows: 64,
            reward_time_limit: Duration::from_secs(60),
        }
    }
}

impl OnlineDpoConfig {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = match self.dpo.validate() {
            Err(Error::Settings(mistakes)) => mistakes,
            other => {
                other?;
                Vec::new()
            }
        };
        mistakes.extend(sampling_mistakes(
            &self.generation,
            self.prompts_per_batch,
            1,
            1,
        ));
        if self.num_generations < 2 {
            mistakes.push(format!(
                "num_generations must be 2 or more, not {}: a pair has two completions",
                self.num_generations
            ));
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }
}

/// Trains a policy on pairs of completions that it samples itself (Guo et al., 2024, arXiv:2402.04792).
///
/// The completion with the highest reward is the chosen one, that with the lowest the rejected one; prompts whose
/// completions are all equally good are left out, and a batch of such prompts counts as one pair with a loss of 0. The loss is that of [`Dpo`](crate::Dpo). Metrics are those of [`Dpo`](crate::Dpo) and of [`Grpo`](crate::Grpo)'s sampling, and `pairs`,
/// the share of the prompts that gave a pair.
///
/// An evaluation answers every held-out prompt once, greedily. Its loss is the mean reward with the sign changed, so that
/// lower is better, and its metric `reward` the mean reward.
pub struct OnlineDpo<M> {
    config: OnlineDpoConfig,
    sampler: Sampler,
    reference: Reference<M>,
    splits: Splits<PromptExample>,
    /// The longest sequence of the model.
    room: usize,
}

/// What a step is taken on.
#[derive(Clone, Debug)]
pub enum OnlineBatch {
    /// Pairs for an update.
    Training {
        /// The pairs.
        pairs: PairBatch,
        /// Whether they count. No prompt of the batch gave a pair if they do not.
        counts: bool,
        /// How many prompts were answered.
        prompts: usize,
        /// Numbers about the set of completions.
        metrics: BTreeMap<String, f64>,
    },
    /// Answers to held-out prompts.
    Evaluation(PolicyBatch),
}

impl<M: CausalLm> OnlineDpo<M> {
    /// A method for `policy`, the model that will be trained. The order of the prompts is shuffled in every epoch if a seed
    /// is given.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the reference is precomputed or does not fit the policy, or there are no prompts.
    pub fn new(
        config: OnlineDpoConfig,
        rewards: WeightedSum,
        tokenizer: Tokenizer,
        reference: Reference<M>,
        policy: &M,
        train: PromptDataset,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        config.validate()?;
        warn_about_sampling(&config.generation);
        reference.check_sampling(policy)?;
        let room = policy.dims().max_position_embeddings;
        let rollout = RolloutConfig {
            num_generations: config.num_generations,
            generation: config.generation.clone(),
            max_rows: config.max_rows,
        };
        let sampler = Sampler::new(rollout, tokenizer, Some(rewards), config.reward_time_limit);
        sampler.check_room(&train.examples, room)?;
        Ok(Self {
            splits: Splits::new(train.examples, config.prompts_per_batch, shuffle_seed)?,
            config,
            sampler,
            reference,
            room,
        })
    }

    /// Evaluates on these prompts too. Without prompts there is no evaluation.
    ///
    /// # Errors
    ///
    /// If the batches cannot be made.
    pub fn with_evaluation(self, held_out: PromptDataset) -> Result<Self> {
        self.sampler.check_room(&held_out.examples, self.room)?;
        let rows = self.config.max_rows.max(1);
        Ok(Self {
            splits: self.splits.with_evaluation_of(held_out.examples, rows)?,
            ..self
        })
    }

    /// What the sampling took so far in this process.
    pub fn sampled(&self) -> Sampled {
        self.sampler.sampled()
    }

    /// The pairs of a set of completions, with their log-probabilities under the reference.
    fn pairs(&self, policy: &M, groups: &[Group]) -> OnlineBatch {
        let mut metrics = group_metrics(groups);
        let found = groups
            .iter()
            .filter_map(|group| best_and_worst(&group.rows));
        let mut pairs: Vec<PreferenceExample> = found.map(|pair| example(pair.into())).collect();
        let counts = !pairs.is_empty();
        metrics.insert(
            "pairs".into(),
            pairs.len() as f64 / groups.len().max(1) as f64,
        );
        if !counts {
            // The step needs something to run on, which then has no effect.
            let rows = groups.iter().take(1).flat_map(|group| &group.rows);
            let rows: Vec<_> = rows.take(2).collect();
            pairs.push(example([rows[0], rows[1]]));
        }
        let device = device_of(policy);
        let reference = self.reference.model(policy);
        let reach = shorter(reach(policy), reference.as_ref().and_then(reach));
        let batch = PairBatch::new(reach, &pairs, &device);
        let reference = reference.map(|reference| {
            let tokens = completion_logps(&reference, &batch.sequences, 1.0, &device);
            numbers(pair_logps(&tokens, self.config.dpo.ld_alpha))
        });
        OnlineBatch::Training {
            pairs: PairBatch { reference, ..batch },
            counts,
            prompts: groups.len(),
            metrics,
        }
    }
}

fn example([chosen, rejected]: [&ScoredRollout; 2]) -> PreferenceExample {
    let mut rows: Vec<Tokenized> = tokenized([chosen, rejected]);
    let rejected = rows.pop().unwrap_or_default();
    let chosen = rows.pop().unwrap_or_default();
    PreferenceExample {
        chosen,
        rejected,
        reference_logps: None,
        margin: 0.0,
    }
}

impl<M: CausalLm> Method<M> for OnlineDpo<M> {
    type Batch = OnlineBatch;

    fn len(&self, epoch: usize) -> usize {
        self.splits.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.splits.evaluation_len()
    }

    fn loss_is_a_measure(&self) -> bool {
        false
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<OnlineBatch, BoxError> {
        let prompts = self.splits.batch(epoch, index, context);
        if !context.is_training() {
            let answers = self.sampler.evaluate(&**model, &prompts)?;
            return Ok(OnlineBatch::Evaluation(answers));
        }
        let groups = self.sampler.complete(&**model, &prompts, context.seed)?;
        Ok(self.pairs(model, &groups))
    }

    fn step(&mut self, model: &M, batch: &OnlineBatch, context: &StepContext) -> StepResult {
        let (pairs, counts, prompts, metrics) = match batch {
            OnlineBatch::Evaluation(answers) => return Ok(evaluation(answers, &context.device)),
            OnlineBatch::Training {
                pairs,
                counts,
                prompts,
                metrics,
            } => (pairs, *counts, prompts, metrics),
        };
        let mut output = pair_step(&self.config.dpo, &self.reference, model, pairs, context)?;
        if !counts {
            output.loss.sum = output.loss.sum * 0.0;
            output.metrics.clear();
        }
        for (name, value) in metrics {
            let prompts = *prompts as f64;
            output = output.with_metric(name.clone(), value * prompts, prompts);
        }
        Ok(output)
    }
}
