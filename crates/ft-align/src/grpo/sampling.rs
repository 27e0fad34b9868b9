//! Sets of completions: sampled from the policy, scored, compared with each other and with the reference.

use std::collections::BTreeMap;
use std::time::Instant;

use ft_core::{CausalLm, GenerationConfig, mix_seed};
use ft_data::{Prompt, PromptExample, Tokenized};
use ft_train::{BoxError, StepContext};

use super::Grpo;
use crate::loss::{PolicyLoss, Scaling, all_alike, leave_one_out};
use crate::reward::{Completion, PromptRef};
use crate::rollout::{Rollout, RolloutConfig, sample};
use crate::scored_rollout::{
    Group, PolicyBatch, Score, ScoredRollout, by_name, group_metrics, mean, tokenized,
};
use crate::sequences::{collate, completion_logps, device_of};

impl<M: CausalLm> Grpo<M> {
    /// Samples and scores the completions of these prompts.
    pub(super) fn make(
        &mut self,
        model: &M,
        prompts: Vec<PromptExample>,
        context: &StepContext,
    ) -> Result<PolicyBatch, BoxError> {
        let mut groups = self.complete(model, prompts, context.seed)?;
        let alike = |rows: &[ScoredRollout]| {
            all_alike(&rows.iter().map(|row| row.reward).collect::<Vec<_>>())
        };
        for round in 0..self.config.dynamic_sampling as u64 {
            let seed = mix_seed(context.seed, 1 + round);
            let places: Vec<usize> = (0..groups.len())
                .filter(|&i| alike(&groups[i].rows))
                .collect();
            if places.is_empty() {
                break;
            }
            let all = self.splits.examples(context);
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
    pub(super) fn evaluate(
        &mut self,
        model: &M,
        prompts: &[PromptExample],
    ) -> Result<PolicyBatch, BoxError> {
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
