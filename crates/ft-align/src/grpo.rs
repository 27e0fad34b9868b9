//! Group relative policy optimization and its relatives: a policy samples completions, rewards score them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Tensor, TensorData};
use ft_core::{
    CausalLm, GenerationConfig, LossSum, Tokenizer, mix_seed, predicted_logps_and_entropy,
};
use ft_data::{Batches, Loader, Prompt, PromptDataset, PromptExample, Tokenized};
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};

use crate::loss::{
    PolicyLoss, PolicySettings, PolicyTokens, Reduction, Scaling, all_alike, clipped_terms, k3,
    leave_one_out, top_entropy_mask, without_truncated,
};
use crate::reward::{Completion, PromptRef, WeightedSum};
use crate::rollout::{Rollout, RolloutConfig, sample};
use crate::scored_rollout::{
    Group, PolicyBatch, Score, ScoredRollout, by_name, group_metrics, mean, tokenized,
};
use crate::sequences::{collate, completion_logps, device_of};
use crate::{Error, GrpoConfig, Reference, Result};

/// Trains a policy on completions that it samples itself (Shao et al., 2024, arXiv:2402.03300).
///
/// A set of completions is sampled from the model under training, with its adapters, without a copy. The loss is that of
/// [`PolicyLoss`]; see [`GrpoConfig`]. Metrics have TRL's names: `reward`, `reward_std`, `rewards/NAME/mean`,
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
    train: PromptLoader,
    evaluation: Option<PromptLoader>,
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

type PromptLoader = Loader<PromptExample, Vec<PromptExample>>;

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
            train: loader(train, config.prompts_per_batch, shuffle_seed)?,
            evaluation: None,
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
        let evaluation = match held_out.is_empty() {
            true => None,
            false => Some(loader(held_out, rows, None)?),
        };
        Ok(Self { evaluation, ..self })
    }

    /// What the sampling took so far in this process.
    pub fn sampled(&self) -> Sampled {
        self.sampled
    }

    /// Samples and scores the completions of these prompts.
    fn make(
        &mut self,
        model: &M,
        prompts: Vec<PromptExample>,
        seed: u64,
    ) -> Result<PolicyBatch, BoxError> {
        let mut groups = self.complete(model, prompts, seed)?;
        let alike = |rows: &[ScoredRollout]| {
            all_alike(&rows.iter().map(|row| row.reward).collect::<Vec<_>>())
        };
        for round in 0..self.config.dynamic_sampling as u64 {
            let seed = mix_seed(seed, 1 + round);
            let places: Vec<usize> = (0..groups.len())
                .filter(|&i| alike(&groups[i].rows))
                .collect();
            if places.is_empty() {
                break;
            }
            let all = self.train.examples();
            let others = places.iter().map(|&place| {
                let drawn = mix_seed(seed, place as u64) % all.len() as u64;
                all[drawn as usize].clone()
            });
            let others = others.collect();
            for (place, group) in places.into_iter().zip(self.complete(model, others, seed)?) {
                if !alike(&group.rows) {
                    groups[place] = group;
                }
            }
        }
        let mut batch = PolicyBatch {
            off_policy: self.config.updates() > 1,
            metrics: group_metrics(&groups),
            rows: Vec::new(),
        };
        batch.rows = groups.into_iter().flat_map(|group| group.rows).collect();
        self.scale_by_batch(&mut batch.rows);
        self.add_reference(model, &mut batch.rows);
        self.reward_nearness(&mut batch.rows);
        Ok(batch)
    }

    /// The scored completions of each prompt.
    fn complete(
        &mut self,
        model: &M,
        prompts: Vec<PromptExample>,
        seed: u64,
    ) -> Result<Vec<Group>, BoxError> {
        let began = Instant::now();
        let config = RolloutConfig {
            num_generations: self.config.num_generations,
            generation: self.config.generation.clone(),
            max_rows: self.config.max_rows,
        };
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.input_ids[..]).collect();
        let sampled = sample(model, &self.tokenizer, &ids, &config, seed)?;
        let tokens = sampled
            .iter()
            .flatten()
            .map(|rollout| rollout.token_ids.len());
        self.sampled.tokens += tokens.sum::<usize>();
        self.sampled.generation += began.elapsed();

        let began = Instant::now();
        let scored = self.score(&prompts, &sampled);
        self.sampled.scoring += began.elapsed();
        let groups = prompts
            .into_iter()
            .zip(sampled)
            .zip(scored.chunks(self.config.num_generations));
        let groups = groups.map(|((prompt, rollouts), scores)| {
            let rewards: Vec<Option<f64>> = scores.iter().map(|score| score.total).collect();
            let scaling = match self.config.scaling {
                Scaling::Batch => Scaling::None,
                other => other,
            };
            let advantages = self
                .config
                .loss
                .advantages(&rewards, rewards.len(), scaling);
            let rows = rollouts.into_iter().zip(rewards).zip(advantages);
            Group {
                parts: scores.iter().map(|score| score.parts.clone()).collect(),
                rows: rows
                    .map(|((rollout, reward), advantage)| ScoredRollout {
                        prompt_ids: prompt.input_ids.clone(),
                        rollout,
                        reward,
                        advantage,
                        reference: Vec::new(),
                    })
                    .collect(),
            }
        });
        Ok(groups.collect())
    }

    /// The rewards of completions, prompt by prompt.
    fn score(&self, prompts: &[PromptExample], sampled: &[Vec<Rollout>]) -> Vec<Score> {
        let completions: Vec<Completion<'_>> = prompts
            .iter()
            .zip(sampled)
            .flat_map(|(prompt, rollouts)| {
                rollouts.iter().map(move |rollout| Completion {
                    prompt: match &prompt.sample.prompt {
                        Prompt::Text(text) => PromptRef::Text(text),
                        Prompt::Messages(messages) => PromptRef::Messages(messages),
                    },
                    text: &rollout.text,
                    token_count: rollout.token_ids.len(),
                    finished: rollout.finished,
                    columns: &prompt.sample.columns,
                })
            })
            .collect();
        let scores = self
            .rewards
            .score_batch(&completions, self.config.reward_time_limit);
        if let Some(warning) = scores.parts.warning() {
            tracing::warn!("{warning}");
        }
        let parts = |row: usize| {
            let values = scores.parts.values.iter().map(move |values| values[row]);
            scores.parts.names.iter().cloned().zip(values)
        };
        (0..completions.len())
            .map(|row| Score {
                total: scores.sums[row].filter(|sum| sum.is_finite()),
                parts: parts(row).collect(),
            })
            .collect()
    }

    /// Divides advantages by the deviation of all rewards, where that is the scaling.
    fn scale_by_batch(&self, rows: &mut [ScoredRollout]) {
        if self.config.scaling != Scaling::Batch || self.config.loss == PolicyLoss::Rloo {
            return;
        }
        let rewards: Vec<Option<f64>> = rows.iter().map(|row| row.reward).collect();
        let scaled =
            self.config
                .loss
                .advantages(&rewards, self.config.num_generations, Scaling::Batch);
        for (row, advantage) in rows.iter_mut().zip(scaled) {
            row.advantage = advantage;
        }
    }

    /// RLOO subtracts the KL divergence from the rewards, `β Σₜ (lp − ref)` of a completion.
    fn reward_nearness(&self, rows: &mut [ScoredRollout]) {
        if self.config.loss != PolicyLoss::Rloo || self.config.beta == 0.0 {
            return;
        }
        let rewards: Vec<Option<f64>> = rows
            .iter()
            .map(|row| Some(row.reward? - self.config.beta * f64::from(row.log_ratio())))
            .collect();
        let advantages = leave_one_out(&rewards, self.config.num_generations);
        for (row, advantage) in rows.iter_mut().zip(advantages) {
            row.advantage = advantage;
        }
    }

    /// Log-probabilities under the reference.
    fn add_reference(&self, policy: &M, rows: &mut [ScoredRollout]) {
        let Some(reference) = self
            .reference
            .as_ref()
            .and_then(|reference| reference.model(policy))
        else {
            return;
        };
        for rows in rows.chunks_mut(self.config.num_generations * self.config.prompts_per_batch) {
            let logps = self.logps_of(&reference, rows);
            for (row, logps) in rows.iter_mut().zip(logps) {
                row.reference = logps;
            }
        }
    }

    /// Log-probabilities of completions at the temperature of the sampling, without a graph.
    fn logps_of(&self, model: &M, rows: &[ScoredRollout]) -> Vec<Vec<f32>> {
        let device = device_of(model);
        let sequences = tokenized(rows);
        let groups: Vec<Vec<&Tokenized>> = (sequences.chunks(self.config.num_generations))
            .map(|group| group.iter().collect())
            .collect();
        let branches = collate(model, &groups, &device);
        let temperature = f64::from(self.config.generation.temperature);
        let found = completion_logps(model, &branches, temperature, &device);
        let [_, longest] = found.logps.dims();
        let flat: Vec<f32> = found.logps.into_data().iter::<f32>().collect();
        let rows = flat.chunks(longest.max(1)).zip(rows);
        rows.map(|(logps, row)| logps[..row.rollout.token_ids.len()].to_vec())
            .collect()
    }

    /// Answers held-out prompts greedily.
    fn evaluate(&mut self, model: &M, prompts: &[PromptExample]) -> Result<PolicyBatch, BoxError> {
        let began = Instant::now();
        let config = RolloutConfig {
            num_generations: 1,
            generation: GenerationConfig {
                temperature: 0.0,
                ..self.config.generation.clone()
            },
            max_rows: self.config.max_rows,
        };
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.input_ids[..]).collect();
        let sampled = sample(model, &self.tokenizer, &ids, &config, 0)?;
        let scores = self.score(prompts, &sampled);
        let mut metrics = BTreeMap::new();
        for (name, values) in by_name(scores.iter().map(|score| &score.parts)) {
            metrics.insert(format!("rewards/{name}/mean"), mean(&values));
        }
        let rows = sampled.into_iter().flatten().zip(scores);
        self.sampled.evaluation += began.elapsed();
        Ok(PolicyBatch {
            metrics,
            rows: rows
                .map(|(rollout, score)| ScoredRollout {
                    rollout,
                    reward: score.total,
                    ..ScoredRollout::default()
                })
                .collect(),
            ..PolicyBatch::default()
        })
    }
}

fn loader(
    dataset: PromptDataset,
    batch_size: usize,
    shuffle_seed: Option<u64>,
) -> Result<PromptLoader> {
    Ok(Loader::new(
        dataset.examples,
        batch_size,
        shuffle_seed,
        |prompts| prompts.iter().map(|prompt| (*prompt).clone()).collect(),
    )?)
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
        self.train.len(epoch) * self.config.updates()
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|batches| batches.len(0))
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<PolicyBatch, BoxError> {
        if let Some(evaluation) = self.evaluation.as_ref().filter(|_| !context.is_training()) {
            let prompts = evaluation.batch(0, index);
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
            let prompts = self.train.batch(epoch, set);
            let batch = self.make(model, prompts, context.seed)?;
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
        let device = &context.device;
        let count = batch.rows.len();
        if !context.is_training() {
            let rewards: Vec<f64> = batch.rows.iter().filter_map(|row| row.reward).collect();
            let total: f64 = rewards.iter().sum();
            let lengths = batch.rows.iter().map(|row| row.rollout.token_ids.len());
            let sum = Tensor::from_data([-total as f32], device);
            let loss = LossSum {
                sum,
                count: rewards.len(),
            };
            let (tokens, rows) = (lengths.sum::<usize>() as f64, count as f64);
            let mut output = StepOutput::from(loss)
                .with_metric("reward", total, rewards.len() as f64)
                .with_metric("completions/mean_length", tokens, rows);
            for (name, value) in &batch.metrics {
                output = output.with_metric(name.clone(), value * rows, rows);
            }
            return Ok(output);
        }
        let sequences = tokenized(&batch.rows);
        let groups: Vec<Vec<&Tokenized>> = (sequences.chunks(self.config.num_generations))
            .map(|group| group.iter().collect())
            .collect();
        let branches = collate(model, &groups, device);
        let hidden = model.hidden_states(&branches.batch.tokens(device), None);
        let temperature = f64::from(self.config.generation.temperature);
        let (found, entropy) =
            predicted_logps_and_entropy(hidden, model.head(), &branches.completions, temperature);
        let [_, longest] = found.logps.dims();
        let matrix = |values: &dyn Fn(&ScoredRollout) -> &[f32]| {
            let mut flat = vec![0.0; count * longest];
            for (cells, row) in flat.chunks_exact_mut(longest).zip(&batch.rows) {
                let values = values(row);
                cells[..values.len()].copy_from_slice(values);
            }
            Tensor::<2>::from_data(TensorData::new(flat, [count, longest]), device)
        };
        let mask = match self.config.mask_truncated_completions {
            true => {
                let truncated: Vec<bool> =
                    batch.rows.iter().map(|row| !row.rollout.finished).collect();
                without_truncated(found.mask, &truncated)
            }
            false => found.mask,
        };
        let kept =
            |row: &&ScoredRollout| row.rollout.finished || !self.config.mask_truncated_completions;
        let lengths = batch
            .rows
            .iter()
            .filter(kept)
            .map(|row| row.rollout.token_ids.len());
        let counted: usize = lengths.sum();
        let advantages: Vec<f32> = batch.rows.iter().map(|row| row.advantage as f32).collect();
        let tokens = PolicyTokens {
            old_logps: match batch.off_policy {
                true => matrix(&|row| &row.rollout.logps),
                false => found.logps.clone().detach(),
            },
            advantages: Tensor::from_data(TensorData::new(advantages, [count, 1]), device),
            logps: found.logps,
            mask: mask.clone(),
        };
        let (loss, settings) = (self.config.loss, self.config.policy_settings());
        let ratio = loss.ratio(&tokens);
        let mut terms = loss.terms(&tokens, ratio.clone(), &settings);
        let share = self.config.top_entropy_quantile;
        let learning = match share < 1.0 {
            true => top_entropy_mask(entropy.clone().detach(), &mask, share),
            false => mask.clone(),
        };
        if share < 1.0 {
            terms = terms * learning.clone();
        }
        let mut metrics: Vec<(&str, Tensor<1>, f64)> = Vec::new();
        let total = counted as f64;
        if self.config.beta > 0.0 {
            let reference = matrix(&|row| &row.reference);
            let divergence = k3(tokens.logps.clone(), reference, Some(ratio.clone()));
            let sum = (divergence.clone().detach() * mask.clone()).sum();
            metrics.push(("kl", sum, total));
            // That of RLOO is a part of the rewards.
            if loss != PolicyLoss::Rloo {
                terms = terms + divergence * self.config.beta;
            }
        }
        let (reduction, of) = loss.reduction(count, counted, &settings);
        let mut sum = reduction.reduce(terms, &mask) * of as f64;
        if self.config.entropy_coef > 0.0 {
            let bonus = Reduction::Bnpo.reduce(entropy.clone(), &learning);
            sum = sum - bonus * (self.config.entropy_coef * of as f64);
        }
        metrics.push(("entropy", (entropy.detach() * mask.clone()).sum(), total));
        metrics.extend(clip_metrics(loss, &tokens, ratio, &settings, total));

        // A batch without a counted token has the loss 0, which is no mistake: all its completions were cut.
        let mut output = StepOutput::from(LossSum {
            sum,
            count: of.max(1),
        })
        .with_tokens(branches.batch.token_count());
        for (name, value, weight) in metrics {
            output = output.with_metric(name, value, weight);
        }
        for (name, value) in &batch.metrics {
            output = output.with_metric(name.clone(), value * count as f64, count as f64);
        }
        Ok(output)
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

/// The shares of terms whose gradient is cut off: over tokens, or over rows where a row has one ratio.
fn clip_metrics(
    loss: PolicyLoss,
    tokens: &PolicyTokens,
    ratio: Tensor<2>,
    settings: &PolicySettings,
    counted: f64,
) -> Vec<(&'static str, Tensor<1>, f64)> {
    let (advantages, mask) = (tokens.advantages.clone(), tokens.mask.clone());
    let [rows, columns] = ratio.dims();
    let sum = |cut: Tensor<2>| match columns == 1 {
        true => (cut.sum(), rows as f64),
        false => ((cut * mask.clone()).sum(), counted),
    };
    match loss {
        PolicyLoss::Sapo => Vec::new(),
        PolicyLoss::Cispo => {
            let above = ratio.detach().greater_elem(settings.cispo_cap).float();
            let (above, weight) = sum(above * advantages.greater_elem(0.0).float());
            vec![("cispo_clip_ratio", above, weight)]
        }
        _ => {
            let (low, high) = clipped_terms(ratio, advantages, settings.clip);
            let ((low, weight), (high, _)) = (sum(low), sum(high));
            vec![
                ("clip_ratio/region_mean", low.clone() + high.clone(), weight),
                ("clip_ratio/low_mean", low, weight),
                ("clip_ratio/high_mean", high, weight),
            ]
        }
    }
}
