//! Best-of-n and rejection sampling: several completions of each prompt, of which the best are kept.

use std::time::Duration;

use ft_core::{CausalLm, RolloutConfig, Tokenizer};
use ft_data::{Prompt, PromptExample};
use serde_json::{Value, json};

use crate::reward::WeightedSum;
use crate::sampler::{Sampler, generation_mistakes};
use crate::{Error, Result, ScoredRollout};

/// Samples and scores the completions of each prompt. A completion that no reward applies to has none.
///
/// [`best`] picks the best one of a prompt (best-of-n; Stiennon et al., 2020, arXiv:2009.01325). Rejection sampling keeps
/// it only if its reward is high enough (RAFT, Dong et al., 2023, arXiv:2304.06767): [`sft_row`] makes a row of training
/// data of it, and [`preference_row`] one of the best and the worst.
///
/// ```no_run
/// # fn demo(
/// #     model: ft_core::AutoCausalLm, tokenizer: ft_core::Tokenizer, config: ft_core::RolloutConfig,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use ft_align::reward::{WeightedSum, by_name};
/// use ft_align::{best, sample_and_score, sft_row};
/// use ft_data::PromptDataset;
///
/// let prompts = PromptDataset::load("questions.jsonl", &tokenizer, 512)?.examples;
/// let rewards = WeightedSum::new([(by_name("gsm8k")?, 1.0)])?;
/// let limit = Duration::from_secs(60);
/// let sampled = sample_and_score(&model, &tokenizer, &prompts, &rewards, &config, limit, 42)?;
/// for (prompt, completions) in prompts.iter().zip(&sampled) {
///     if let Some(best) = best(completions).filter(|best| best.reward >= Some(1.0)) {
///         println!("{}", sft_row(prompt, best));
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// If a setting makes no sense, or a prompt is empty or leaves no room in the model's longest sequence.
pub fn sample_and_score<M: CausalLm>(
    model: &M,
    tokenizer: &Tokenizer,
    prompts: &[PromptExample],
    rewards: &WeightedSum,
    config: &RolloutConfig,
    reward_time_limit: Duration,
    seed: u64,
) -> Result<Vec<Vec<ScoredRollout>>> {
    let (tokenizer, rewards) = (tokenizer.clone(), Some(rewards.clone()));
    let sampler = Sampler::new(config.clone(), tokenizer, rewards, reward_time_limit);
    sampled(sampler, model, prompts, config, seed)
}

/// Samples the completions of each prompt, which have no rewards: for a judge, or a person, that compares them.
///
/// # Errors
///
/// As [`sample_and_score`].
pub fn sample_answers<M: CausalLm>(
    model: &M,
    tokenizer: &Tokenizer,
    prompts: &[PromptExample],
    config: &RolloutConfig,
    seed: u64,
) -> Result<Vec<Vec<ScoredRollout>>> {
    let sampler = Sampler::new(config.clone(), tokenizer.clone(), None, Duration::ZERO);
    sampled(sampler, model, prompts, config, seed)
}

fn sampled<M: CausalLm>(
    mut sampler: Sampler,
    model: &M,
    prompts: &[PromptExample],
    config: &RolloutConfig,
    seed: u64,
) -> Result<Vec<Vec<ScoredRollout>>> {
    let mut mistakes = generation_mistakes(&config.generation);
    if config.num_generations == 0 {
        mistakes.push("num_generations must be 1 or more".into());
    }
    if !mistakes.is_empty() {
        return Err(Error::Settings(mistakes));
    }
    sampler.check_room(prompts, model.dims().max_position_embeddings)?;
    let groups = sampler.complete(model, prompts, seed)?;
    Ok(groups.into_iter().map(|group| group.rows).collect())
}

/// The completion with the highest reward, the first of several; none if none has a reward.
pub fn best(completions: &[ScoredRollout]) -> Option<&ScoredRollout> {
    extreme(completions, |new, old| new > old)
}

/// The completions with the highest and the lowest reward; none if all rewards are equal.
pub fn best_and_worst(completions: &[ScoredRollout]) -> Option<(&ScoredRollout, &ScoredRollout)> {
    let (best, worst) = (
        best(completions)?,
        extreme(completions, |new, old| new < old)?,
    );
    (best.reward > worst.reward).then_some((best, worst))
}

fn extreme(
    completions: &[ScoredRollout],
    better: impl Fn(f64, f64) -> bool,
) -> Option<&ScoredRollout> {
    let mut found: Option<(&ScoredRollout, f64)> = None;
    for row in completions {
        if let Some(reward) = row.reward
            && found.is_none_or(|(_, old)| better(reward, old))
        {
            found = Some((row, reward));
        }
    }
    found.map(|(row, _)| row)
}

/// A row of instruction data: the prompt's messages and the completion, or `prompt` and `completion` of a plain text.
///
/// What reads such rows puts an end behind the text, so leave out completions that are not
/// [finished](ft_core::Rollout::finished).
pub fn sft_row(prompt: &PromptExample, completion: &ScoredRollout) -> Value {
    let text = &completion.rollout.text;
    let mut row = match &prompt.sample.prompt {
        Prompt::Text(prompt) => json!({"prompt": prompt, "completion": text}),
        Prompt::Messages(messages) => {
            let mut messages = json!(messages);
            if let Some(messages) = messages.as_array_mut() {
                messages.push(json!({"role": "assistant", "content": text}));
            }
            json!({ "messages": messages })
        }
    };
    if let Some(tools) = &prompt.sample.tools {
        row["tools"] = json!(tools);
    }
    row
}

/// A row of preference data: `prompt`, `chosen` and `rejected`. As in [`sft_row`], both should be finished.
pub fn preference_row(
    prompt: &PromptExample,
    chosen: &ScoredRollout,
    rejected: &ScoredRollout,
) -> Value {
    let [chosen, rejected] = [chosen, rejected].map(|row| &row.rollout.text);
    let mut row = match &prompt.sample.prompt {
        Prompt::Text(prompt) => json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}),
        Prompt::Messages(messages) => {
            let [chosen, rejected] =
                [chosen, rejected].map(|text| json!([{"role": "assistant", "content": text}]));
            json!({"prompt": messages, "chosen": chosen, "rejected": rejected})
        }
    };
    if let Some(tools) = &prompt.sample.tools {
        row["tools"] = json!(tools);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rewards: &[Option<f64>]) -> Vec<ScoredRollout> {
        let rows = rewards
            .iter()
            .enumerate()
            .map(|(number, &reward)| ScoredRollout {
                reward,
                prompt_ids: vec![number as u32],
                ..ScoredRollout::default()
            });
        rows.collect()
    }

    fn number(row: &ScoredRollout) -> u32 {
        row.prompt_ids[0]
    }

    #[test]
    fn completions_without_a_reward_are_neither_best_nor_worst() {
        let all = rows(&[None, Some(1.0), Some(-2.0), Some(1.0), None]);
        assert_eq!(best(&all).map(number), Some(1));
        let pair = best_and_worst(&all).map(|(best, worst)| (number(best), number(worst)));
        assert_eq!(pair, Some((1, 2)));
        assert!(best(&rows(&[None, None])).is_none());
    }

    #[test]
    fn equal_rewards_make_no_pair() {
        assert!(best_and_worst(&rows(&[Some(0.5), None, Some(0.5)])).is_none());
    }
}
