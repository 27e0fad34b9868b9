//! Proximal policy optimization: a policy samples completions, a reward scores them, a value model predicts the scores.

mod sampling;
mod update;

use burn::module::ModuleDisplay;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ft_core::{CausalLm, RolloutConfig, Tokenizer};
use ft_data::{PromptDataset, PromptExample};
use ft_train::{BoxError, Method, ModelView, StepContext, StepResult};
use serde::{Deserialize, Serialize};

use crate::loss::AdaptiveKl;
use crate::reward::WeightedSum;
use crate::sampler::{Sampled, Sampler, evaluation, warn_about_dropout, warn_about_sampling};
use crate::scored_rollout::{PolicyBatch, ScoredRollout, part};
use crate::splits::Splits;
use crate::{ActorCritic, Error, PpoConfig, Reference, Result};
use update::update;

/// Trains a policy and a value model on completions that the policy samples (Schulman et al., 2017, arXiv:1707.06347; for
/// language models Ouyang et al., 2022, arXiv:2203.02155).
///
/// The reward of a token is `−β (ln p − ln p_ref)`, plus the score of the completion at its last token. Advantages are those
/// of [`gae`](crate::loss::gae()), whitened over the set of completions. The loss is
/// [`clipped_surrogate`](crate::loss::clipped_surrogate) plus `value_coef` times
/// [`clipped_value_loss`](crate::loss::clipped_value_loss), both means over tokens. Completions without a score are left out.
///
/// Metrics have the names of TRL's `PPOTrainer`: `objective/kl` (of a completion), `objective/scores`,
/// `objective/non_score_reward`, `objective/rlhf_reward`, `loss/policy_avg`, `loss/value_avg`, `policy/approxkl_avg`,
/// `policy/clipfrac_avg`, `val/clipfrac_avg`, `val/ratio`; and those of [`Grpo`](crate::Grpo): `reward`, `reward_std`,
/// `rewards/NAME/mean`, `completions/mean_length`, `completions/clipped_ratio`, `entropy`, `kl` (of a token). `beta` is the
/// current weight of the divergence.
///
/// There are two differences from TRL. The score is at the last sampled token; TRL puts it one token later where a completion
/// ended before the longest one. TRL then looks at a value behind the end; here it is 0.
///
/// An evaluation answers every held-out prompt once, greedily. Its loss is the mean reward with the sign changed, so that
/// lower is better, and its metric `reward` the mean reward.
///
/// ```no_run
/// # fn demo(
/// #     policy: ft_core::AutoCausalLm, value: ft_core::AutoSequenceClassifier, tokenizer: ft_core::Tokenizer,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use ft_align::reward::{WeightedSum, by_name};
/// use ft_align::{ActorCritic, Ppo, PpoConfig, Reference};
/// use ft_core::GenerationConfig;
/// use ft_data::PromptDataset;
/// use ft_train::{TrainConfig, Trainer};
///
/// let prompts = PromptDataset::load("prompts.jsonl", &tokenizer, 512)?;
/// let rewards = WeightedSum::new([(by_name("gsm8k")?, 1.0)])?;
/// let config = PpoConfig {
///     generation: GenerationConfig {
///         eos_token_ids: tokenizer.eos_token_id().into_iter().collect(),
///         ..PpoConfig::default().generation
///     },
///     ..PpoConfig::default()
/// };
/// let model = ActorCritic::new(policy, value)?;
/// let reference = Some(Reference::AdaptersOff);
/// let method = Ppo::new(config, rewards, tokenizer, reference, &model, prompts, Some(42))?;
/// let (model, report) = Trainer::with_method(TrainConfig::default(), method).fit(model)?;
/// # Ok(())
/// # }
/// ```
pub struct Ppo<M> {
    config: PpoConfig,
    sampler: Sampler,
    reference: Option<Reference<M>>,
    splits: Splits<PromptExample>,
    state: State,
    /// The longest sequence of the model.
    room: usize,
}

/// What is kept between steps.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// The newest set of completions, and which one it is, by epoch and number.
    held: Option<(usize, usize, Set)>,
    /// The current β, if it changes.
    beta: Option<f64>,
}

/// A set of completions, and numbers about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Set {
    rows: Vec<PpoRow>,
    metrics: BTreeMap<String, f64>,
}

/// A completion with what the update needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PpoRow {
    /// The completion, its score and its log-probabilities under the reference.
    pub scored: ScoredRollout,
    /// The values of its tokens when it was sampled.
    pub values: Vec<f32>,
    /// The advantages of its tokens.
    pub advantages: Vec<f32>,
    /// The returns of its tokens.
    pub returns: Vec<f32>,
}

/// Completions that a step is taken on.
#[derive(Clone, Debug, PartialEq)]
pub enum PpoBatch {
    /// For an update.
    Training {
        /// The completions, prompt by prompt.
        rows: Vec<PpoRow>,
        /// Numbers about the set of completions.
        metrics: BTreeMap<String, f64>,
    },
    /// Answers to held-out prompts.
    Evaluation(PolicyBatch),
}

impl<M: CausalLm + ModuleDisplay> Ppo<M> {
    /// A method for `model`, which will be trained. The order of the prompts is shuffled in every epoch if a seed is given.
    /// A reference is needed if `beta` is above 0.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the reference is missing, precomputed or does not fit the policy, or there are no
    /// prompts.
    pub fn new(
        config: PpoConfig,
        rewards: WeightedSum,
        tokenizer: Tokenizer,
        reference: Option<Reference<M>>,
        model: &ActorCritic<M>,
        train: PromptDataset,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        config.validate()?;
        warn_about_sampling(&config.generation);
        warn_about_dropout(&model.policy);
        let reference = Reference::of_samples(reference, config.beta, &model.policy)?;
        let room = model.policy.dims().max_position_embeddings;
        let rollout = RolloutConfig {
            num_generations: config.num_generations,
            generation: config.generation.clone(),
            max_rows: config.max_rows,
        };
        let sampler = Sampler::new(rollout, tokenizer, Some(rewards), config.reward_time_limit);
        sampler.check_room(&train.examples, room)?;
        Ok(Self {
            room,
            splits: Splits::new(train.examples, config.prompts_per_batch, shuffle_seed)?,
            state: State {
                held: None,
                beta: config.controller().map(|controller| controller.coefficient),
            },
            config,
            sampler,
            reference,
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

    /// The current weight of the KL divergence.
    fn beta(&self) -> f64 {
        self.state.beta.unwrap_or(self.config.beta)
    }

    /// Moves β after a set of completions with this mean divergence.
    fn control(&mut self, kl: f64, completions: usize) {
        if let Some(controller) = self.config.controller() {
            let mut controller = AdaptiveKl {
                coefficient: self.beta(),
                ..controller
            };
            controller.update(kl, completions);
            self.state.beta = Some(controller.coefficient);
        }
    }
}

impl<M: CausalLm + ModuleDisplay> Method<ActorCritic<M>> for Ppo<M> {
    type Batch = PpoBatch;

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
        model: &ModelView<'_, ActorCritic<M>>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PpoBatch, BoxError> {
        if !context.is_training() {
            let prompts = self.splits.batch(0, index, context);
            let answers = self.sampler.evaluate(&model.policy, &prompts)?;
            return Ok(PpoBatch::Evaluation(answers));
        }
        let updates = self.config.updates();
        let (set, update) = (index / updates, index % updates);
        if context.micro_batch > 0 && updates > 1 {
            return Err(Error::one_update_each(updates).into());
        }
        if !matches!(&self.state.held, Some((of, number, _)) if (*of, *number) == (epoch, set)) {
            let prompts = self.splits.batch(epoch, set, context);
            let made = self.make(model, &prompts, context)?;
            self.state.held = Some((epoch, set, made));
        }
        let none = Set::default();
        let held = self.state.held.as_ref().map(|(_, _, held)| held);
        let Set { rows, metrics } = held.unwrap_or(&none);
        let size = self.config.num_generations;
        let range = part(rows.len() / size, update, self.config.minibatches);
        Ok(PpoBatch::Training {
            rows: rows[range.start * size..range.end * size].to_vec(),
            metrics: metrics.clone(),
        })
    }

    fn step(
        &mut self,
        model: &ActorCritic<M>,
        batch: &PpoBatch,
        context: &StepContext,
    ) -> StepResult {
        match batch {
            PpoBatch::Training { rows, metrics } => {
                update(&self.config, model, rows, metrics, context)
            }
            PpoBatch::Evaluation(answers) => Ok(evaluation(answers, &context.device)),
        }
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        let state = serde_json::to_vec(&self.state)?;
        Ok(fs::write(folder.join("rollouts.json"), state)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        self.state = serde_json::from_slice(&fs::read(folder.join("rollouts.json"))?)?;
        Ok(())
    }
}
