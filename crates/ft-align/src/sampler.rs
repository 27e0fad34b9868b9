//! Completions of the current policy, with their rewards and their log-probabilities under other models.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use ft_core::{
    CausalLm, GenerationConfig, LossSum, Parts, Rollout, RolloutConfig, Tokenizer, sample_rollouts,
};
use ft_data::{Prompt, PromptExample, Tokenized};
use ft_kernels::{Precision, exact, precision};
use ft_train::StepOutput;

use crate::reward::{Completion, PromptRef, WeightedSum};
use crate::scored_rollout::{Group, PolicyBatch, Score, ScoredRollout, by_name, mean, tokenized};
use crate::sequences::{collate, completion_logps, device_of, reach};
use crate::{Error, Reference, Result};

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

/// Samples completions of a policy and scores them.
pub(crate) struct Sampler {
    config: RolloutConfig,
    tokenizer: Tokenizer,
    /// None where something else compares the completions, such as a judge.
    rewards: Option<Arc<WeightedSum>>,
    reward_time_limit: Duration,
    sampled: Sampled,
}

impl Sampler {
    pub(crate) fn new(
        config: RolloutConfig,
        tokenizer: Tokenizer,
        rewards: Option<WeightedSum>,
        reward_time_limit: Duration,
    ) -> Self {
        Self {
            config,
            tokenizer,
            rewards: rewards.map(Arc::new),
            reward_time_limit,
            sampled: Sampled::default(),
        }
    }

    /// What the sampling took so far in this process.
    pub(crate) fn sampled(&self) -> Sampled {
        self.sampled
    }

    /// Checks that every prompt leaves room for a completion of the largest length in the model's longest sequence.
    pub(crate) fn check_room(&self, prompts: &[PromptExample], room: usize) -> Result<()> {
        let lengths = prompts.iter().map(|prompt| prompt.input_ids.len());
        let longest = lengths.max().unwrap_or(0);
        let new = self.config.generation.max_new_tokens;
        if longest + new > room {
            return Err(Error::Settings(vec![format!(
                "the longest prompt has {longest} tokens and a completion up to {new}, but the model takes {room}: lower \
                 max_new_tokens, or leave out longer prompts (the maximum length of PromptDataset::load)"
            )]));
        }
        Ok(())
    }

    /// The scored completions of each prompt, without advantages.
    pub(crate) fn complete<M: CausalLm>(
        &mut self,
        model: &M,
        prompts: &[PromptExample],
        seed: u64,
    ) -> Result<Vec<Group>> {
        let began = Instant::now();
        // The log-probabilities are compared with those of the update.
        let sampled =
            exact(|| sample_rollouts(model, &self.tokenizer, &ids(prompts), &self.config, seed))?;
        let rollouts = sampled.iter().flatten();
        self.sampled.tokens += rollouts.map(|one| one.token_ids.len()).sum::<usize>();
        self.sampled.generation += began.elapsed();

        let began = Instant::now();
        let scored = self.score(prompts, &sampled);
        self.sampled.scoring += began.elapsed();
        let scores = scored.chunks(self.config.num_generations);
        let groups = prompts.iter().zip(sampled).zip(scores);
        let groups = groups.map(|((prompt, rollouts), scores)| Group {
            parts: scores.iter().map(|score| score.parts.clone()).collect(),
            rows: (rollouts.into_iter().zip(scores))
                .map(|(rollout, score)| ScoredRollout {
                    prompt_ids: prompt.input_ids.clone(),
                    rollout,
                    reward: score.total,
                    ..ScoredRollout::default()
                })
                .collect(),
        });
        Ok(groups.collect())
    }

    /// Answers held-out prompts greedily, once each.
    pub(crate) fn evaluate<M: CausalLm>(
        &mut self,
        model: &M,
        prompts: &[PromptExample],
    ) -> Result<PolicyBatch> {
        let began = Instant::now();
        let config = RolloutConfig {
            num_generations: 1,
            generation: GenerationConfig {
                temperature: 0.0,
                ..self.config.generation.clone()
            },
            max_rows: self.config.max_rows,
        };
        let sampled = sample_rollouts(model, &self.tokenizer, &ids(prompts), &config, 0)?;
        let scores = self.score(prompts, &sampled);
        let (mut metrics, mut weights) = (BTreeMap::new(), BTreeMap::new());
        for (name, values) in by_name(scores.iter().map(|score| &score.parts)) {
            metrics.insert(format!("rewards/{name}/mean"), mean(&values));
            weights.insert(format!("rewards/{name}/mean"), values.len() as f64);
        }
        let rows = sampled.into_iter().flatten().zip(scores);
        self.sampled.evaluation += began.elapsed();
        Ok(PolicyBatch {
            metrics,
            weights,
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

    /// The rewards of completions, prompt by prompt.
    fn score(&self, prompts: &[PromptExample], sampled: &[Vec<Rollout>]) -> Vec<Score> {
        let Some(rewards) = &self.rewards else {
            let rollouts = sampled.iter().flatten();
            return rollouts.map(|_| Score::default()).collect();
        };
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
        let scores = rewards.score_batch(&completions, self.reward_time_limit);
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

    /// Adds the log-probabilities under the reference, if there is one. With products in `bf16` those of the policy are computed
    /// again if they are compared with others: sampling computes with few rows, which are rounded less than those of an update.
    pub(crate) fn add_reference<M: CausalLm>(
        &self,
        reference: Option<&Reference<M>>,
        policy: &M,
        off_policy: bool,
        rows: &mut [ScoredRollout],
    ) {
        if precision() != Precision::F32 && (reference.is_some() || off_policy) {
            let logps = self.logps_of(policy, rows);
            for (row, logps) in rows.iter_mut().zip(logps) {
                row.rollout.logps = logps;
            }
        }
        let Some(reference) = reference.and_then(|reference| reference.model(policy)) else {
            return;
        };
        let logps = self.logps_of(&reference, rows);
        for (row, logps) in rows.iter_mut().zip(logps) {
            row.reference = logps;
        }
    }

    /// Log-probabilities of completions at the temperature of the sampling, without a graph.
    fn logps_of<M: CausalLm>(&self, model: &M, rows: &[ScoredRollout]) -> Vec<Vec<f32>> {
        let device = device_of(model);
        let sequences = tokenized(rows);
        let groups: Vec<Vec<&Tokenized>> = (sequences.chunks(self.config.num_generations))
            .map(|group| group.iter().collect())
            .collect();
        let branches = collate(reach(model), &groups, &device);
        let temperature = f64::from(self.config.generation.temperature);
        let found = completion_logps(model, &branches, temperature, &device);
        let [_, longest] = found.logps.dims();
        let flat: Vec<f32> = found.logps.into_data().iter::<f32>().collect();
        let rows = flat.chunks(longest.max(1)).zip(rows);
        rows.map(|(logps, row)| logps[..row.rollout.token_ids.len()].to_vec())
            .collect()
    }
}

fn ids(prompts: &[PromptExample]) -> Vec<&[u32]> {
    prompts.iter().map(|prompt| &prompt.input_ids[..]).collect()
}

/// What makes no sense in settings of sets of completions, which have several updates each.
pub(crate) fn sampling_mistakes(
    generation: &GenerationConfig,
    prompts_per_batch: usize,
    num_iterations: usize,
    minibatches: usize,
) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            mistakes.push(text);
        }
    };
    must(
        prompts_per_batch > 0,
        "prompts_per_batch must be 1 or more".into(),
    );
    must(
        num_iterations > 0,
        "num_iterations must be 1 or more".into(),
    );
    must(
        minibatches > 0 && prompts_per_batch.is_multiple_of(minibatches.max(1)),
        format!(
            "minibatches must divide prompts_per_batch ({prompts_per_batch}), and {minibatches} does not"
        ),
    );
    must(
        generation.temperature > 0.0,
        "the temperature must be above 0: completions that are all alike teach nothing".into(),
    );
    mistakes.extend(generation_mistakes(generation));
    mistakes
}

/// What makes no sense in how completions are generated.
pub(crate) fn generation_mistakes(generation: &GenerationConfig) -> Vec<String> {
    let mut mistakes = Vec::new();
    if generation.eos_token_ids.is_empty() {
        mistakes.push(
            "no token ends a completion: set eos_token_ids (GenerationConfig::from_pretrained reads them)"
                .into(),
        );
    }
    if let Err(error) = generation.validate() {
        mistakes.push(error.to_string());
    }
    mistakes
}

/// Log-probabilities are those of the temperature alone.
pub(crate) fn warn_about_sampling(generation: &GenerationConfig) {
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

/// Completions are sampled without dropout, so ratios would not begin at 1.
pub(crate) fn warn_about_dropout(policy: &impl Parts) {
    if let Some(path) = with_dropout(policy) {
        tracing::warn!(
            "the adapter of {path} has dropout, which is on in updates and off while completions are sampled: the ratios of \
             both are noise from the first update on. Use an adapter without dropout"
        );
    }
}

/// The first part whose adapter drops out while it trains.
fn with_dropout(policy: &impl Parts) -> Option<String> {
    let mut found = None;
    policy.for_each_part(&mut |path, part| {
        let adapters = part.adapters().iter();
        if adapters
            .map(|adapter| &adapter.dropout)
            .any(|dropout| dropout.prob > 0.0 && dropout.training.is_enabled())
        {
            found.get_or_insert(path.to_string());
        }
    });
    found
}

/// The output of an evaluation, whose loss is the mean reward with the sign changed.
pub(crate) fn evaluation(batch: &PolicyBatch, device: &Device) -> StepOutput {
    let count = batch.rows.len();
    let rewards: Vec<f64> = batch.rows.iter().filter_map(|row| row.reward).collect();
    let total: f64 = rewards.iter().sum();
    let lengths = batch.rows.iter().map(|row| row.rollout.token_ids.len());
    let sum = Tensor::from_data([-total as f32], device);
    if rewards.is_empty() {
        tracing::warn!(
            "no held-out completion has a score: the loss of the evaluation is 0, and it has no reward"
        );
    }
    let loss = LossSum {
        sum,
        count: rewards.len().max(1),
    };
    let (tokens, rows) = (lengths.sum::<usize>() as f64, count as f64);
    let mut output = StepOutput::from(loss)
        .with_metric("reward", total, rewards.len() as f64)
        .with_metric("completions/mean_length", tokens, rows);
    for (name, value) in &batch.metrics {
        let weight = batch.weights.get(name).copied().unwrap_or(rows);
        output = output.with_metric(name.clone(), value * weight, weight);
    }
    output
}

#[cfg(test)]
mod tests {
    use ft_core::AutoCausalLm;
    use ft_peft::LoraConfig;

    use super::*;

    #[test]
    fn dropout_of_an_adapter_that_trains_is_found() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/tiny-llama");
        let device = Device::default().autodiff();
        let base = AutoCausalLm::from_pretrained(folder.as_ref(), &device).expect("a model");
        for (lora_dropout, found) in [(0.0, false), (0.1, true)] {
            let lora = LoraConfig {
                lora_dropout,
                ..LoraConfig::default()
            };
            let policy = ft_peft::attach(base.clone(), &lora, "default", 0).expect("attaches");
            assert_eq!(with_dropout(&policy).is_some(), found);
        }
    }
}
