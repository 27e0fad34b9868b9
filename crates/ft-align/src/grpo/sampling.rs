//! Sets of completions: sampled from the policy, scored, compared with each other and with the reference.

use ft_core::{CausalLm, mix_seed};
use ft_data::PromptExample;
use ft_train::{BoxError, StepContext};

use super::Grpo;
use crate::loss::{PolicyLoss, Scaling, all_alike, leave_one_out};
use crate::scored_rollout::{Group, PolicyBatch, ScoredRollout, group_metrics};

impl<M: CausalLm> Grpo<M> {
    /// Samples and scores the completions of these prompts.
    pub(super) fn make(
        &mut self,
        model: &M,
        prompts: Vec<PromptExample>,
        context: &StepContext,
    ) -> Result<PolicyBatch, BoxError> {
        let mut groups = self.complete(model, &prompts, context.seed)?;
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
            let all = self.splits.training();
            let others = places.iter().map(|&place| {
                let drawn = mix_seed(seed, place as u64) % all.len() as u64;
                all[drawn as usize].clone()
            });
            let others: Vec<PromptExample> = others.collect();
            for (place, group) in places.into_iter().zip(self.complete(model, &others, seed)?) {
                if !alike(&group.rows) {
                    groups[place] = group;
                }
            }
        }
        let mut batch = PolicyBatch {
            off_policy: self.config.updates() > 1,
            metrics: group_metrics(&groups),
            ..PolicyBatch::default()
        };
        batch.rows = groups.into_iter().flat_map(|group| group.rows).collect();
        self.scale_by_batch(&mut batch.rows);
        let reference = self.reference.as_ref();
        (self.sampler).add_reference(reference, model, batch.off_policy, &mut batch.rows);
        self.reward_nearness(&mut batch.rows);
        Ok(batch)
    }

    /// The scored completions of each prompt, with their advantages.
    fn complete(
        &mut self,
        model: &M,
        prompts: &[PromptExample],
        seed: u64,
    ) -> Result<Vec<Group>, BoxError> {
        let mut groups = self.sampler.complete(model, prompts, seed)?;
        let scaling = match self.config.scaling {
            Scaling::Batch => Scaling::None,
            other => other,
        };
        for group in &mut groups {
            let rewards: Vec<Option<f64>> = group.rows.iter().map(|row| row.reward).collect();
            let found = (self.config.loss).advantages(&rewards, rewards.len(), scaling);
            for (row, advantage) in group.rows.iter_mut().zip(found) {
                row.advantage = advantage;
            }
        }
        Ok(groups)
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
}
