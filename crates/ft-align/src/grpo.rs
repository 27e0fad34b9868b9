//! Group relative policy optimization and its relatives: a policy samples completions, rewards score them.

mod sampling;
mod update;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ft_core::{CausalLm, GenerationConfig, Tokenizer};
use ft_data::{PromptDataset, PromptExample};
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};

use crate::reward::WeightedSum;
use crate::scored_rollout::{PolicyBatch, ScoredRollout};
use crate::splits::Splits;
use crate::{Error, GrpoConfig, Reference, Result};
use update::{evaluation, update};

/// Trains a policy on completions that it samples itself (Shao et al., 2024, arXiv:2402.03300).
///
/// A set of completions is sampled from the model under training, with its adapters, without a copy. The loss is that of
/// [`PolicyLoss`](crate::loss::PolicyLoss); see [`GrpoConfig`]. Metrics have TRL's names: `reward`, `reward_std`, `rewards/NAME/mean`,
/// `rewards/NAME/std`, `frac_reward_zero_std`, `completions/mean_length`, `completions/mean_terminated_length`,
/// `completions/clipped_ratio`, `entropy`, `clip_ratio/low_mean`, `clip_ratio/high_mean`, `clip_ratio/region_mean`, and with a
/// reference `kl`, weighted with the ratios of policy and sampling policy.
///
/// An evaluation answers every held-out prompt once, greedily. Its loss is the mean reward with the sign changed, so that
/// lower is better, and its metric `reward` the mean reward.
pub struct Grpo<M> {
    config: GrpoConfig,
    rewards: Arc<WeightedSum>,
    tokenizer: Tokenizer,
    reference: Option<Reference<M>>,
    splits: Splits<PromptExample>,
    /// The newest set of completions, and which one it is, by epoch and number.
    held: Option<(usize, usize, PolicyBatch)>,
    sampled: Sampled,
    /// The longest sequence of the model.
    room: usize,
}

/// What the sampling of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Sampled tokens, without those of evaluations.
    pub tokens: usize,
    /// The time of sampling them.
    pub generation: Duration,
    /// The time of scoring them.
    pub scoring: Duration,
    /// The time of sampling and scoring in evaluations.
    pub evaluation: Duration,
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
        let reference = reference.filter(|_| config.beta > 0.0);
        match &reference {
            None if config.beta > 0.0 => {
                return Err(Error::Reference(format!(
                    "beta is {}, so that a reference is needed: give Reference::AdaptersOff or another one, or set beta \
                     to 0",
                    config.beta
                )));
            }
            Some(Reference::Precomputed) => {
                return Err(Error::Reference(
                    "completions are sampled during the training, so that their log-probabilities cannot be computed \
                     before: use Reference::AdaptersOff or another model"
                        .into(),
                ));
            }
            Some(reference) => reference.check(policy)?,
            None => {}
        }
        let room = policy.dims().max_position_embeddings;
        check_room(&train, &config, room)?;
        warn_about_sampling(&config.generation);
        Ok(Self {
            room,
            splits: Splits::new(train.examples, config.prompts_per_batch, shuffle_seed)?,
            config,
            rewards: Arc::new(rewards),
            tokenizer,
            reference,
            held: None,
            sampled: Sampled::default(),
        })
    }

    /// Evaluates on these prompts too. Without prompts there is no evaluation.
    ///
    /// # Errors
    ///
    /// If the batches cannot be made.
    pub fn with_evaluation(self, held_out: PromptDataset) -> Result<Self> {
        check_room(&held_out, &self.config, self.room)?;
        let rows = self.config.max_rows.max(1);
        Ok(Self {
            splits: self.splits.with_evaluation_of(held_out.examples, rows)?,
            ..self
        })
    }

    /// What the sampling took so far in this process.
    pub fn sampled(&self) -> Sampled {
        self.sampled
    }
}

/// Checks that every prompt leaves room for a completion of the largest length.
fn check_room(prompts: &PromptDataset, config: &GrpoConfig, room: usize) -> Result<()> {
    let longest = prompts
        .examples
        .iter()
        .map(|prompt| prompt.input_ids.len())
        .max();
    let longest = longest.unwrap_or(0);
    let new = config.generation.max_new_tokens;
    if longest + new > room {
        return Err(Error::Settings(vec![format!(
            "the longest prompt has {longest} tokens and a completion up to {new}, but the model takes {room}: lower \
             max_new_tokens, or leave out longer prompts (the maximum length of PromptDataset::load)"
        )]));
    }
    Ok(())
}

/// Log-probabilities are those of the temperature alone.
fn warn_about_sampling(generation: &GenerationConfig) {
    let plain = GenerationConfig::default();
    if generation.top_k != plain.top_k
        || generation.top_p != plain.top_p
        || generation.min_p != plain.min_p
        || generation.repetition_penalty != plain.repetition_penalty
    {
        tracing::warn!(
            "completions are sampled with top_k, top_p, min_p or a repetition penalty, which the log-probabilities of the \
             loss do not know: the update is that of another distribution; leave them out"
        );
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

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PolicyBatch, BoxError> {
        if !context.is_training() {
            let prompts = self.splits.batch(0, index, context);
            return self.evaluate(model, &prompts);
        }
        let (set, update) = (index / self.config.updates(), index % self.config.updates());
        if context.micro_batch > 0 && self.config.updates() > 1 {
            return Err(Error::Settings(vec![format!(
                "a set of completions has {} batches, each for an update of its own, but gradient accumulation puts \
                 several into one update: set gradient_accumulation_steps to 1, and sample more prompts together",
                self.config.updates()
            )])
            .into());
        }
        if !matches!(&self.held, Some((of, number, _)) if (*of, *number) == (epoch, set)) {
            let prompts = self.splits.batch(epoch, set, context);
            let batch = self.make(model, prompts, context)?;
            if context.step == 1
                && let Some(reference) = &self.reference
            {
                let ratios: Vec<f32> = batch.rows.iter().map(ScoredRollout::log_ratio).collect();
                let sums = batch.rows.iter().map(|row| row.reference.iter().sum());
                reference.check_start(&**model, &ratios, &sums.collect::<Vec<f32>>())?;
            }
            self.held = Some((epoch, set, batch));
        }
        let Some((_, _, batch)) = &self.held else {
            return Ok(PolicyBatch::default());
        };
        // The last set of an epoch may have fewer prompts; with fewer than parts, parts have one of them.
        let (part, parts) = (update % self.config.minibatches, self.config.minibatches);
        let size = self.config.num_generations;
        let groups = batch.rows.len() / size;
        let range = match groups < parts {
            true => part % groups..part % groups + 1,
            false => part * groups / parts..(part + 1) * groups / parts,
        };
        Ok(PolicyBatch {
            rows: batch.rows[range.start * size..range.end * size].to_vec(),
            off_policy: batch.off_policy,
            metrics: batch.metrics.clone(),
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
