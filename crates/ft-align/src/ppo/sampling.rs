//! Sets of completions: sampled, scored, and what their tokens earned beyond what was expected.

use burn::module::ModuleDisplay;
use burn::tensor::{Tensor, TensorData};
use ft_core::CausalLm;
use ft_data::{PromptExample, Tokenized};
use ft_train::{BoxError, StepContext};

use super::{Ppo, PpoRow, Set};
use crate::ActorCritic;
use crate::loss::{gae, token_rewards, whiten};
use crate::scored_rollout::{ScoredRollout, group_metrics, mean, tokenized};
use crate::sequences::{collate, device_of, numbers};

impl<M: CausalLm + ModuleDisplay> Ppo<M> {
    /// Samples and scores the completions of these prompts.
    pub(super) fn make(
        &mut self,
        model: &ActorCritic<M>,
        prompts: &[PromptExample],
        context: &StepContext,
    ) -> Result<Set, BoxError> {
        let policy = &model.policy;
        let groups = self.sampler.complete(policy, prompts, context.seed)?;
        let mut metrics = group_metrics(&groups);
        if self.config.num_generations == 1 {
            // No completion has another to be compared with.
            metrics.remove("frac_reward_zero_std");
        }
        let mut rows: Vec<ScoredRollout> =
            groups.into_iter().flat_map(|group| group.rows).collect();
        let reference = self.reference.as_ref();
        let off_policy = self.config.updates() > 1;
        self.sampler
            .add_reference(reference, policy, off_policy, &mut rows);
        if context.step == 1
            && let Some(reference) = &self.reference
        {
            reference.check_start_of(policy, &rows)?;
        }
        let scores: Vec<f32> = rows.iter().map(|row| self.score(row)).collect();
        let divergences: Vec<f64> = (rows.iter().filter(|row| row.reward.is_some()))
            .map(|row| f64::from(row.log_ratio()))
            .collect();
        let (kl, beta) = (mean(&divergences), self.beta());
        let scored = rows.iter().zip(&scores);
        let scored: Vec<f64> = scored
            .filter(|(row, _)| row.reward.is_some())
            .map(|(_, &score)| f64::from(score))
            .collect();
        let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
        put("beta", beta);
        if !scored.is_empty() {
            put("objective/scores", mean(&scored));
            put("objective/rlhf_reward", mean(&scored) - beta * kl);
            if self.reference.is_some() {
                put("objective/kl", kl);
                put("objective/non_score_reward", -beta * kl);
            }
        }
        let rows = self.advantages(model, rows, scores, beta);
        self.control(kl, divergences.len());
        Ok(Set { rows, metrics })
    }

    /// The score of a completion; 0 where there is none, which has no effect.
    fn score(&self, row: &ScoredRollout) -> f32 {
        let penalty = match row.rollout.finished {
            true => 0.0,
            false => self.config.missing_eos_penalty,
        };
        row.reward.map_or(0.0, |reward| (reward - penalty) as f32)
    }

    /// Values, advantages and returns of all tokens.
    fn advantages(
        &self,
        model: &ActorCritic<M>,
        rows: Vec<ScoredRollout>,
        scores: Vec<f32>,
        beta: f64,
    ) -> Vec<PpoRow> {
        let device = device_of(model);
        let sequences = tokenized(&rows);
        let groups: Vec<Vec<&Tokenized>> = (sequences.chunks(self.config.num_generations))
            .map(|group| group.iter().collect())
            .collect();
        let branches = collate(model.reach(), &groups, &device);
        let values = model.values(&branches, &device);
        let [count, longest] = values.dims();
        let matrix = |of: &dyn Fn(&ScoredRollout, usize) -> f32| {
            let cells = rows
                .iter()
                .flat_map(|row| (0..longest).map(move |token| of(row, token)));
            let cells: Vec<f32> = cells.collect();
            Tensor::<2>::from_data(TensorData::new(cells, [count, longest]), &device)
        };
        let mask = matrix(&|row, token| {
            f32::from(row.reward.is_some() && token < row.rollout.token_ids.len())
        });
        let divergence = matrix(&|row, token| {
            let (own, reference) = (row.rollout.logps.get(token), row.reference.get(token));
            own.zip(reference)
                .map_or(0.0, |(own, reference)| own - reference)
        });
        let scores = Tensor::from_data(TensorData::new(scores, [count]), &device);
        let mut rewards = token_rewards(scores, divergence, &mask, beta);
        if self.config.whiten_rewards {
            rewards = whiten(rewards, &mask, true);
        }
        let (gamma, lambda) = (self.config.gamma, self.config.lambda);
        let (advantages, returns) = gae(rewards, values.clone(), &mask, gamma, lambda);
        let advantages = whiten(advantages, &mask, false);
        let [values, advantages, returns] = [values, advantages, returns].map(numbers);
        let cells = |all: &[f32], row: usize, length: usize| {
            all[row * longest..row * longest + length].to_vec()
        };
        let rows = rows.into_iter().enumerate().map(|(row, scored)| {
            let length = scored.rollout.token_ids.len();
            PpoRow {
                values: cells(&values, row, length),
                advantages: cells(&advantages, row, length),
                returns: cells(&returns, row, length),
                scored,
            }
        });
        rows.collect()
    }
}
