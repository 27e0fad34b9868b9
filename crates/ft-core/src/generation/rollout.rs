//! Many completions of many prompts.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::{
    CausalLm, Decoder, Error, FinishReason, GenerationConfig, Result, RowId, Tokenizer, mix_seed,
};

/// How completions are sampled.
#[derive(Clone, Debug, PartialEq)]
pub struct RolloutConfig {
    /// Completions of each prompt.
    pub num_generations: usize,
    /// Length, temperature, end tokens and the rest. Its seed is not used.
    pub generation: GenerationConfig,
    /// The largest number of completions that are sampled at the same time. The others follow as soon as there is room.
    pub max_rows: usize,
}

/// A sampled completion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The sampled tokens, an end token included.
    pub token_ids: Vec<u32>,
    /// Their log-probabilities at the temperature of the sampling.
    pub logps: Vec<f32>,
    /// The text without special tokens and without a stop string.
    pub text: String,
    /// Whether the model ended the completion: false if it was cut at the largest length.
    pub finished: bool,
}

/// Samples the completions of each prompt, which is read once for all of them.
///
/// Rows leave when they end, and those of further prompts join, so that the model's weights are read for many rows at a
/// time. The same seed gives the same completions, except for rounding.
///
/// # Errors
///
/// If a setting makes no sense, such as several completions at temperature 0, or a prompt is empty or leaves no room in the model's
/// longest sequence.
pub fn sample_rollouts<M: CausalLm>(
    model: &M,
    tokenizer: &Tokenizer,
    prompts: &[&[u32]],
    config: &RolloutConfig,
    seed: u64,
) -> Result<Vec<Vec<Rollout>>> {
    if config.num_generations > 1 && config.generation.temperature == 0.0 {
        return Err(Error::Settings(format!(
            "{} completions of a prompt at temperature 0 are all alike: set a temperature above 0, or num_generations to 1",
            config.num_generations
        )));
    }
    let device = model.devices().first().cloned().unwrap_or_default();
    let mut decoder = Decoder::new(model, Some(tokenizer), &device).with_logps();
    let mut groups: Vec<Vec<Rollout>> =
        vec![vec![Rollout::default(); config.num_generations]; prompts.len()];
    let mut rows: HashMap<RowId, (usize, usize)> = HashMap::new();
    let mut waiting = 0..prompts.len();
    loop {
        let has_room = |decoder: &Decoder<'_, M>| {
            decoder.is_empty() || decoder.len() + config.num_generations <= config.max_rows
        };
        while has_room(&decoder) {
            let Some(prompt) = waiting.next() else {
                break;
            };
            let generation = GenerationConfig {
                seed: mix_seed(seed, prompt as u64),
                ..config.generation.clone()
            };
            let ids = decoder.join_many(prompts[prompt], config.num_generations, &generation)?;
            let places = ids.into_iter().enumerate();
            rows.extend(places.map(|(member, id)| (id, (prompt, member))));
        }
        if decoder.is_empty() {
            return Ok(groups);
        }
        for next in decoder.step()? {
            let Some(&(prompt, member)) = rows.get(&next.row) else {
                continue;
            };
            let rollout = &mut groups[prompt][member];
            rollout.token_ids.push(next.token_id);
            rollout.logps.extend(next.logps.map(|logps| logps.sampling));
            rollout.text.push_str(&next.text);
            rollout.finished = matches!(
                next.finish_reason,
                Some(FinishReason::EndToken | FinishReason::StopString)
            );
        }
    }
}
