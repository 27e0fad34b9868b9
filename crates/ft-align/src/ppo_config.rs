//! The settings of proximal policy optimization.

use std::time::Duration;

use ft_core::GenerationConfig;

use crate::loss::AdaptiveKl;
use crate::sampler::sampling_mistakes;
use crate::{Error, Result};

/// The settings of [`Ppo`](crate::Ppo).
#[derive(Clone, Debug, PartialEq)]
pub struct PpoConfig {
    /// β: the weight of the KL divergence from the reference in the rewards of tokens; 0 needs no reference.
    pub beta: f64,
    /// Changes β so that the KL divergence of a completion stays near a target: the target in nats, and after how many
    /// completions β may have changed by 20% ([`AdaptiveKl`]).
    pub adaptive_kl: Option<(f64, f64)>,
    /// γ: the discount of later rewards.
    pub gamma: f64,
    /// λ: how far advantages look ahead, from 0 (to the next value) to 1 (to the end).
    pub lambda: f64,
    /// How far ratios may leave 1.
    pub clip_range: f64,
    /// How far values may leave the old ones.
    pub value_clip_range: f64,
    /// The weight of the loss of the values.
    pub value_coef: f64,
    /// Rewards of tokens are divided by their deviation.
    pub whiten_rewards: bool,
    /// What is subtracted from the reward of a completion that was cut at the largest length.
    pub missing_eos_penalty: f64,
    /// Completions of each prompt.
    pub num_generations: usize,
    /// Prompts that are sampled together. Advantages are whitened over all their completions.
    pub prompts_per_batch: usize,
    /// Updates on each set of completions.
    pub num_iterations: usize,
    /// Parts that a set of completions is split into, each with an update of its own; a divisor of `prompts_per_batch`.
    pub minibatches: usize,
    /// How completions are sampled.
    pub generation: GenerationConfig,
    /// The largest number of completions that are sampled at the same time, or those of one prompt if they are more.
    pub max_rows: usize,
    /// How long a reward may take for a batch.
    pub reward_time_limit: Duration,
}

impl Default for PpoConfig {
    /// Four updates on each of 16 prompts with one completion. β 0.05, γ 1, λ 0.95, bounds of 0.2, and values with a weight of
    /// 0.1 are those of TRL's `PPOConfig`.
    fn default() -> Self {
        Self {
            beta: 0.05,
            adaptive_kl: None,
            gamma: 1.0,
            lambda: 0.95,
            clip_range: 0.2,
            value_clip_range: 0.2,
            value_coef: 0.1,
            whiten_rewards: false,
            missing_eos_penalty: 0.0,
            num_generations: 1,
            prompts_per_batch: 16,
            num_iterations: 4,
            minibatches: 1,
            generation: GenerationConfig {
                max_new_tokens: 256,
                temperature: 1.0,
                ..GenerationConfig::default()
            },
            max_rows: 64,
            reward_time_limit: Duration::from_secs(60),
        }
    }
}

impl PpoConfig {
    /// Checks all settings.
    ///
    /// # Errors
    ///
    /// [`Error::Settings`] with all mistakes.
    pub fn validate(&self) -> Result<()> {
        let mut mistakes = sampling_mistakes(
            &self.generation,
            self.prompts_per_batch,
            self.num_iterations,
            self.minibatches,
        );
        let mut must = |holds: bool, text: String| {
            if !holds {
                mistakes.push(text);
            }
        };
        must(
            self.num_generations > 0,
            "num_generations must be 1 or more".into(),
        );
        for (name, value) in [
            ("beta", self.beta),
            ("value_coef", self.value_coef),
            ("missing_eos_penalty", self.missing_eos_penalty),
        ] {
            must(
                value >= 0.0 && value.is_finite(),
                format!("{name} must be 0 or more, not {value}"),
            );
        }
        for (name, value) in [("gamma", self.gamma), ("lambda", self.lambda)] {
            must(
                (0.0..=1.0).contains(&value),
                format!("{name} must be from 0 to 1, not {value}"),
            );
        }
        must(
            self.clip_range > 0.0 && self.clip_range <= 1.0,
            format!(
                "clip_range must be above 0 and at most 1, not {}",
                self.clip_range
            ),
        );
        must(
            self.value_clip_range > 0.0,
            format!(
                "value_clip_range must be above 0, not {}: infinity clips nothing",
                self.value_clip_range
            ),
        );
        if let Some((target, horizon)) = self.adaptive_kl {
            let set = self.prompts_per_batch * self.num_generations;
            must(
                target > 0.0 && horizon >= set as f64 && self.beta > 0.0,
                format!(
                    "adaptive_kl needs a target above 0 (it is {target}), a horizon of at least the {set} completions of a set \
                     (it is {horizon}), and a beta above 0 to begin with (it is {})",
                    self.beta
                ),
            );
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }

    /// The controller of β, if there is one.
    pub(crate) fn controller(&self) -> Option<AdaptiveKl> {
        self.adaptive_kl.map(|(target, horizon)| AdaptiveKl {
            coefficient: self.beta,
            target,
            horizon,
        })
    }

    /// Batches for each set of completions.
    pub(crate) fn updates(&self) -> usize {
        self.num_iterations * self.minibatches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_told_at_once() {
        let config = PpoConfig {
            beta: 0.0,
            adaptive_kl: Some((6.0, 10_000.0)),
            gamma: 1.5,
            clip_range: 0.0,
            num_generations: 0,
            minibatches: 3,
            ..PpoConfig::default()
        };
        let text = config.validate().unwrap_err().to_string();
        for part in [
            "no token ends a completion",
            "minibatches must divide",
            "num_generations",
            "gamma must be from 0 to 1",
            "clip_range",
            "adaptive_kl",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
