//! Group relative policy optimization and its relatives: a policy samples completions, rewards score them.

mod reading;
mod sampling;
mod update;

use std::fs;
use std::path::Path;

use ft_core::{CausalLm, RolloutConfig, Tokenizer};
use ft_data::{PromptDataset, PromptExample};
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};

use crate::reward::WeightedSum;
use crate::sampler::{Sampled, Sampler, evaluation, warn_about_dropout, warn_about_sampling};
use crate::scored_rollout::{PolicyBatch, part};
use crate::splits::Splits;
use crate::{Error, GrpoConfig, Reference, Result};
use update::update;

/// Trains a policy on completions that it samples itself (Shao et al., 2024, arXiv:2402.03300).
///
/// A set of completions is sampled from the model under training, with its adapters, without a copy. The loss is that of
/// [`PolicyLoss`](crate::loss::PolicyLoss); see [`GrpoConfig`]. Metrics have TRL's names: `reward`, `reward_std`, `rewards/NAME/mean`,
/// `rewards/NAME/std`, `frac_reward_zero_std`, `completions/mean_length`, `completions/mean_terminated_length` and the same with
/// `min` and `max`, `completions/clipped_ratio`, `entropy`, `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean`, and with a
/// reference `kl`, weighted with the ratios of policy and sampling policy.
///
/// An evaluation answers every held-out prompt once, greedily. Its loss is the mean reward with the sign changed, so that
/// lower is better, and its metric `reward` the mean reward.
pub struct Grpo<M> {
    config: GrpoConfig,
    sampler: Sampler,
    reference: Option<Reference<M>>,
    splits: Splits<PromptExample>,
    /// The newest set of completions, and which one it is, by epoch and number.
    held: Option<(usize, usize, PolicyBatch)>,
    /// The longest sequence of the model.
    room: usize,
}

impl<M: CausalLm> Grpo<M> {
    /// A method for `policy`, the model that will be trained. The order of the prompts is shuffled in every epoch if a seed
    /// is given. A reference is needed if `beta` is above 0.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the reference is missing, precomputed or does not fit the policy, or there are no
    /// prompts.
    pub fn new(
        config: GrpoConfig,
        rewards: WeightedSum,
        tokenizer: Tokenizer,
        reference: Option<Reference<M>>,
        policy: &M,
        train: PromptDataset,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        config.validate()?;
        warn_about_sampling(&config.generation);
        warn_about_dropout(policy);
        let reference = Reference::of_samples(reference, config.beta, policy)?;
        let room = policy.dims().max_position_embeddings;
        let sampler = Sampler::new(
            RolloutConfig {
                num_generations: config.num_generations,
                generation: config.generation.clone(),
                max_rows: config.max_rows,
            },
            tokenizer,
            Some(rewards),
            config.reward_time_limit,
        );
        sampler.check_room(&train.examples, room)?;
        Ok(Self {
            room,
            splits: Splits::new(train.examples, config.prompts_per_batch, shuffle_seed)?,
            config,
            sampler,
            reference,
            held: None,
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
}

impl<M: CausalLm> Method<M> for Grpo<M> {
    type Batch = PolicyBatch;

    fn len(&self, epoch: usize) -> usize {
        self.splits.len(epoch) * self.config.updates()
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
    ) -> Result<PolicyBatch, BoxError> {
        if !context.is_training() {
            let prompts = self.splits.batch(0, index, context);
            return Ok(self.sampler.evaluate(&**model, &prompts)?);
        }
        let (set, update) = (index / self.config.updates(), index % self.config.updates());
        if context.micro_batch > 0 && self.config.updates() > 1 {
            return Err(Error::one_update_each(self.config.updates()).into());
        }
        if !matches!(&self.held, Some((of, number, _)) if (*of, *number) == (epoch, set)) {
            let prompts = self.splits.batch(epoch, set, context);
            let batch = self.make(model, prompts, context)?;
            if context.step == 1
                && let Some(reference) = &self.reference
            {
                reference.check_start_of(model, &batch.rows)?;
            }
            self.held = Some((epoch, set, batch));
        }
        let Some((_, _, batch)) = &self.held else {
            return Ok(PolicyBatch::default());
        };
        let size = self.config.num_generations;
        let range = part(batch.rows.len() / size, update, self.config.minibatches);
        Ok(PolicyBatch {
            rows: batch.rows[range.start * size..range.end * size].to_vec(),
            off_policy: batch.off_policy,
            metrics: batch.metrics.clone(),
            ..PolicyBatch::default()
        })
    }

    fn step(&mut self, model: &M, batch: &PolicyBatch, context: &StepContext) -> StepResult {
        match context.is_training() {
            true => update(&self.config, model, batch, context),
            false => Ok(evaluation(batch, &context.device)),
        }
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        Ok(fs::write(
            folder.join("rollouts.json"),
            serde_json::to_vec(&self.held)?,
        )?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        self.held = serde_json::from_slice(&fs::read(folder.join("rollouts.json"))?)?;
        Ok(())
    }
}
