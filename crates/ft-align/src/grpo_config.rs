//! The settings of policy methods.

use std::time::Duration;

use ft_core::GenerationConfig;

use crate::loss::{Clip, PolicyLoss, PolicySettings, Scaling};
use crate::sampler::sampling_mistakes;
use crate::{Error, Result};

/// The settings of [`Grpo`](crate::Grpo).
#[derive(Clone, Debug, PartialEq)]
pub struct GrpoConfig {
    /// The loss.
    pub loss: PolicyLoss,
    /// Its numbers. The largest length of a completion is taken from `generation`.
    pub settings: PolicySettings,
    /// What advantages are divided by. Not used by `rloo`.
    pub scaling: Scaling,
    /// β: the weight of the KL divergence from the reference, in the loss, or in the rewards of `rloo`; 0 needs no
    /// reference.
    pub beta: f64,
    /// Completions of each prompt.
    pub num_generations: usize,
    /// Prompts that are sampled together.
    pub prompts_per_batch: usize,
    /// Updates on each set of completions.
    pub num_iterations: usize,
    /// Parts that a set of completions is split into, each with an update of its own; a divisor of `prompts_per_batch`.
    pub minibatches: usize,
    /// How completions are sampled.
    pub generation: GenerationConfig,
    /// The largest number of completions that are sampled at the same time, or those of one prompt if they are more.
    pub max_rows: usize,
    /// Completions that were cut at the largest length have no loss.
    pub mask_truncated_completions: bool,
    /// How often groups whose rewards are all alike are replaced by those of other prompts (DAPO's dynamic sampling); 0 keeps
    /// them. Replacements are drawn from all prompts, and metrics are those after the replacement.
    pub dynamic_sampling: usize,
    /// The weight of the entropy, which is made larger.
    pub entropy_coef: f64,
    /// The share of the tokens with the highest entropies that learn; 1 for all.
    pub top_entropy_quantile: f64,
    /// How long a reward may take for a batch.
    pub reward_time_limit: Duration,
}

impl Default for GrpoConfig {
    /// 8 completions of each of 4 prompts, one update on each set, the loss `dapo` without a reference.
    fn default() -> Self {
        Self {
            loss: PolicyLoss::Dapo,
            settings: PolicySettings::default(),
            scaling: Scaling::Group,
            beta: 0.0,
            num_generations: 8,
            prompts_per_batch: 4,
            num_iterations: 1,
            minibatches: 1,
            generation: GenerationConfig {
                max_new_tokens: 256,
                temperature: 1.0,
                ..GenerationConfig::default()
            },
            max_rows: 64,
            mask_truncated_completions: false,
            dynamic_sampling: 0,
            entropy_coef: 0.0,
            top_entropy_quantile: 1.0,
            reward_time_limit: Duration::from_secs(60),
        }
    }
}

impl GrpoConfig {
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
            self.num_generations >= 2,
            format!(
                "num_generations must be 2 or more, not {}: a completion is compared with the others of its prompt",
                self.num_generations
            ),
        );
        for (name, value) in [("beta", self.beta), ("entropy_coef", self.entropy_coef)] {
            must(
                value >= 0.0 && value.is_finite(),
                format!("{name} must be 0 or more, not {value}"),
            );
        }
        must(
            self.top_entropy_quantile > 0.0 && self.top_entropy_quantile <= 1.0,
            format!(
                "top_entropy_quantile must be above 0 and at most 1, not {}",
                self.top_entropy_quantile
            ),
        );
        let PolicySettings {
            clip,
            cispo_cap,
            sapo_tau,
            ..
        } = self.settings;
        must(
            clip.low >= 0.0 && clip.low <= 1.0 && clip.high >= 0.0,
            format!(
                "the bounds of ratios must be from 0 to 1 below and 0 or more above, not {} and {}",
                clip.low, clip.high
            ),
        );
        must(
            clip.two_sided.is_none_or(|delta| delta > 1.0 + clip.high),
            format!(
                "the bound of two-sided clipping must be above 1 + {}, or no ratio of a negative advantage is free",
                clip.high
            ),
        );
        must(
            self.loss.clips() || clip == Clip::default(),
            format!(
                "the bounds of ratios (clip) have no effect on {}: leave them out{}",
                self.loss,
                match self.loss {
                    PolicyLoss::Cispo => ", or set its cap",
                    _ => "",
                }
            ),
        );
        must(
            cispo_cap > 0.0 && sapo_tau.iter().all(|tau| *tau > 0.0),
            format!("cispo_cap and sapo_tau must be above 0, not {cispo_cap} and {sapo_tau:?}"),
        );
        let plain = PolicySettings::default();
        must(
            self.loss == PolicyLoss::Cispo || cispo_cap == plain.cispo_cap,
            format!(
                "cispo_cap has no effect on {}: leave it out, or use cispo",
                self.loss
            ),
        );
        must(
            self.loss == PolicyLoss::Sapo || sapo_tau == plain.sapo_tau,
            format!(
                "sapo_tau has no effect on {}: leave it out, or use sapo",
                self.loss
            ),
        );
        must(
            self.loss != PolicyLoss::Rloo || self.scaling == Scaling::Group,
            "scaling has no effect on rloo, whose advantages are not scaled: leave it out".into(),
        );
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }

    /// Batches for each set of completions.
    pub(crate) fn updates(&self) -> usize {
        self.num_iterations * self.minibatches
    }

    pub(crate) fn policy_settings(&self) -> PolicySettings {
        PolicySettings {
            max_completion_length: self.generation.max_new_tokens,
            ..self.settings
        }
    }
}
