//! On-policy distillation: the teacher's distributions along answers that the student samples.

use std::collections::BTreeMap;

use ft_core::{
    CausalLm, GenerationConfig, IGNORE_INDEX, RolloutConfig, Tokenizer, mix_seed, sample_rollouts,
};
use ft_data::{Batch, Tokenized, collate_padded};

use crate::{Error, Result};

/// The student's own answers in place of those of the data: on-policy distillation (Agarwal et al., 2024, arXiv:2306.13649,
/// algorithm 1). Here each batch is drawn by itself, also if several make a step.
///
/// The prompt of a row is what stands before its first label. The student samples one answer to each prompt of a batch, with
/// its current weights, and is compared with the teacher at the tokens of that answer.
#[derive(Clone, Debug)]
pub struct OwnAnswers {
    /// The tokenizer of both models.
    pub tokenizer: Tokenizer,
    /// λ, from 0 to 1: the share of the batches with own answers. The others have those of the data.
    pub share: f64,
    /// Length, temperature and end tokens of the answers. Its seed is not used.
    pub generation: GenerationConfig,
    /// The largest number of answers that are sampled at the same time.
    pub max_rows: usize,
}

impl OwnAnswers {
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if !(0.0..=1.0).contains(&self.share) {
            mistakes.push(format!(
                "share must be from 0 (answers of the data alone) to 1 (own answers alone), not {}",
                self.share
            ));
        }
        if self.max_rows == 0 {
            mistakes.push("max_rows must be 1 or more".into());
        }
        if self.generation.eos_token_ids.is_empty() {
            mistakes.push(
                "no token ends an answer: set eos_token_ids (GenerationConfig::from_pretrained reads them)".into(),
            );
        }
        if let Err(error) = self.generation.validate() {
            mistakes.push(error.to_string());
        }
        mistakes
    }

    /// Whether the batch of this seed has own answers: true for `share` of all seeds.
    pub(crate) fn wants(&self, seed: u64) -> bool {
        let uniform = (mix_seed(seed, 0) >> 11) as f64 / (1u64 << 53) as f64;
        uniform < self.share
    }

    /// The prompts of a batch with answers that `student` samples. The answers alone have labels.
    ///
    /// An answer is cut where its row has `room` tokens. The same seed gives the same answers, except for rounding.
    ///
    /// # Errors
    ///
    /// If rows are packed, a row has no prompt, or a prompt leaves no room for an answer.
    pub(crate) fn sample(
        &self,
        student: &impl CausalLm,
        batch: &Batch,
        room: usize,
        seed: u64,
    ) -> Result<Batch> {
        let prompts = prompts(batch)?;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        if longest >= room {
            return Err(Error::Settings(vec![format!(
                "a prompt has {longest} tokens, and student and teacher read {room}: leave out longer prompts"
            )]));
        }
        // Prompts that leave less room than an answer may take are sampled by themselves, so that they shorten no others.
        let wanted = self.generation.max_new_tokens;
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (row, prompt) in prompts.iter().enumerate() {
            let limit = wanted.min(room - prompt.len());
            groups.entry(limit).or_default().push(row);
        }
        let mut rows = vec![Tokenized::default(); prompts.len()];
        for (limit, of_group) in groups {
            let config = RolloutConfig {
                num_generations: 1,
                generation: GenerationConfig {
                    max_new_tokens: limit,
                    ..self.generation.clone()
                },
                max_rows: self.max_rows,
            };
            let texts = of_group.iter().map(|&row| prompts[row].as_slice());
            let texts: Vec<&[u32]> = texts.collect();
            let seed = mix_seed(mix_seed(seed, 1), limit as u64);
            let answers = sample_rollouts(student, &self.tokenizer, &texts, &config, seed)?;
            for (row, answer) in of_group.into_iter().zip(answers.into_iter().flatten()) {
                let prompt = &prompts[row];
                let labels = std::iter::repeat_n(IGNORE_INDEX, prompt.len());
                let learned = answer.token_ids.iter().map(|&id| i64::from(id));
                rows[row] = Tokenized {
                    labels: labels.chain(learned).collect(),
                    input_ids: [prompt.as_slice(), &answer.token_ids].concat(),
                };
            }
        }
        let pad = self.tokenizer.pad_token_id();
        let pad = pad.or(self.tokenizer.eos_token_id()).unwrap_or(0);
        Ok(collate_padded(&rows.iter().collect::<Vec<_>>(), 1, pad))
    }
}

/// What stands before the first label of each row.
fn prompts(batch: &Batch) -> Result<Vec<Vec<u32>>> {
    if batch.segment_ids.is_some() {
        return Err(Error::Settings(vec![
            "rows are packed: own answers need a row for each example, so use Collation::Padded"
                .into(),
        ]));
    }
    let rows = batch.input_ids.chunks(batch.seq.max(1));
    let labels = batch.labels.chunks(batch.seq.max(1));
    (rows.zip(labels).zip(&batch.lengths).enumerate())
        .map(|(row, ((ids, labels), &length))| {
            let first = labels.iter().position(|&label| label != IGNORE_INDEX);
            let end = first.unwrap_or(length).min(length);
            let prompt = ids[..end].iter().filter_map(|&id| u32::try_from(id).ok());
            match end {
                0 => Err(Error::Settings(vec![format!(
                    "row {} of a batch has no prompt: own answers need rows whose first tokens have no labels",
                    row + 1
                )])),
                _ => Ok(prompt.collect()),
            }
        })
        .collect()
}
