//! Unpaired feedback: single answers, each desirable or not.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ft_core::{CausalLm, Dims, LossSum, mix_seed};
use ft_data::{Branches, Tokenized, UnpairedDataset, UnpairedExample};
use ft_train::{BoxError, Method, ModelView, StepContext, StepOutput, StepResult};

use crate::loss::{KtoWeights, RewardShift, bco, kto, kto_kl, sum_logps};
use crate::sequences::{
    check_lengths, collate, completion_logps, device_of, numbers, reach, shorter, tensor,
};
use crate::splits::Splits;
use crate::{Error, Reference, Result};

/// A loss of unpaired feedback, spelled as TRL's `loss_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnpairedLoss {
    /// [`kto`].
    Kto,
    /// [`apo_zero_unpaired`](crate::loss::apo_zero_unpaired) with weights: without an estimate of the KL divergence.
    ApoZeroUnpaired,
    /// [`bco`]: against the mean reward so far.
    Bco,
}

impl UnpairedLoss {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kto, Self::ApoZeroUnpaired, Self::Bco];

    /// TRL's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kto => "kto",
            Self::ApoZeroUnpaired => "apo_zero_unpaired",
            Self::Bco => "bco",
        }
    }
}

impl fmt::Display for UnpairedLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for UnpairedLoss {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|loss| loss.name() == name);
        found.ok_or_else(|| Error::UnknownName {
            kind: "loss of unpaired feedback",
            name: name.into(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// The settings of [`Kto`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KtoConfig {
    /// The loss.
    pub loss: UnpairedLoss,
    /// β: how strongly the policy is kept near the reference.
    pub beta: f64,
    /// How much both kinds of answers count; none for weights that make up for their numbers
    /// ([`KtoWeights::balanced`]). `bco` has none; there they only say that answers of one kind are meant.
    pub weights: Option<KtoWeights>,
}

impl Default for KtoConfig {
    /// KTO with β 0.1 and weights that make up for the numbers of both kinds.
    fn default() -> Self {
        Self {
            loss: UnpairedLoss::Kto,
            beta: 0.1,
            weights: None,
        }
    }
}

/// Answers that a step is taken on.
#[derive(Clone, Debug)]
pub struct UnpairedSequences {
    /// Prompts with their answers.
    pub sequences: Branches,
    /// Whether each answer is desirable.
    pub desirable: Vec<bool>,
    /// Log-probabilities of the answers under the reference.
    pub reference: Vec<f32>,
    /// Log-probabilities of answers to other prompts under policy and reference, for the KL divergence.
    pub mismatched: Option<[Vec<f32>; 2]>,
}

/// Trains a policy on single answers against a reference (Ethayarajh et al., 2024, arXiv:2402.01306).
///
/// The loss of a step is the mean over its answers. Metrics have TRL's names: `rewards/chosen` and `rewards/rejected` are
/// means over the desirable and the undesirable answers, `logps/chosen` and `logps/rejected` likewise; `kl` is the estimate
/// of the divergence that KTO uses, and `delta` the shift of BCO.
///
/// The divergence is estimated with each prompt and the nearest answer before it in the batch that is one to another prompt. If
/// the batch has none, as the last one of an epoch that has a single row, the answer is drawn from all training rows.
///
/// The policy has the dropout of its adapter while it trains, the reference has none: TRL switches dropout off.
#[derive(Debug)]
pub struct Kto<M> {
    config: KtoConfig,
    weights: KtoWeights,
    reference: Reference<M>,
    dims: Dims,
    splits: Splits<UnpairedExample>,
    shift: RewardShift,
    /// The length that prompts with other answers are cut to: that of the longest row.
    longest: usize,
}

impl<M: CausalLm> Kto<M> {
    /// A method for `policy`, the model that will be trained. The order of the answers is shuffled in every epoch if a seed
    /// is given; without one, a file with all desirable answers first would give batches of one kind.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, the reference does not fit the policy, an answer is longer than the model allows, there are
    /// no answers, answers of one kind only although no weights are given, or for `kto` answers to one prompt only.
    ///
    /// Weights that do not make up for the numbers of both kinds (equation 8 of the paper) are a warning of `tracing`.
    pub fn new(
        config: KtoConfig,
        reference: Reference<M>,
        policy: &M,
        train: UnpairedDataset,
        batch_size: usize,
        shuffle_seed: Option<u64>,
    ) -> Result<Self> {
        let (desirable, undesirable) = train.counts();
        let weights = (config.weights).unwrap_or(KtoWeights::balanced(desirable, undesirable));
        config.check(weights, batch_size)?;
        if config.weights.is_none() && (desirable == 0) != (undesirable == 0) {
            let [there, missing] = match undesirable {
                0 => ["desirable", "undesirable"],
                _ => ["undesirable", "desirable"],
            };
            return Err(Error::Settings(vec![format!(
                "all {} answers are {there}: preferences are learned from answers of both kinds. Add {missing} ones, give weights \
                 (KtoConfig::weights) if this is meant, or train on desirable answers alone with the example `sft`",
                train.len()
            )]));
        }
        let mut rows = train.examples.iter();
        if config.loss == UnpairedLoss::Kto
            && let Some(first) = rows.next()
            && rows.all(|row| row.prompt() == first.prompt())
        {
            return Err(Error::Settings(vec![
                "all answers are to one prompt, and KTO's divergence is estimated with answers to other prompts: add some, or \
                 use the loss apo_zero_unpaired or bco"
                    .into(),
            ]));
        }
        if matches!(reference, Reference::Precomputed) {
            return Err(Error::Reference(
                "unpaired feedback has no precomputed log-probabilities, since the pairs of prompts and other answers \
                 change with the batches: use the model with its adapters switched off, or another model"
                    .into(),
            ));
        }
        reference.check(policy)?;
        check_lengths(policy.dims(), train.examples.iter().map(|row| &row.tokens))?;
        let longest = train
            .examples
            .iter()
            .map(|row| row.tokens.len())
            .max()
            .unwrap_or(0);
        if config.weights.is_some() && !weights.are_balanced(desirable, undesirable) {
            tracing::warn!(
                "{desirable} answers are desirable and {undesirable} are not, and the weights {} and {} do not make up \
                 for that: leave them out, or use {:?}",
                weights.desirable,
                weights.undesirable,
                KtoWeights::balanced(desirable, undesirable)
            );
        }
        Ok(Self {
            dims: policy.dims(),
            config,
            weights,
            reference,
            splits: Splits::new(train.examples, batch_size, shuffle_seed)?,
            shift: RewardShift::default(),
            longest,
        })
    }

    /// Evaluates on these answers too. Without answers there is no evaluation.
    ///
    /// # Errors
    ///
    /// If an answer is longer than the model allows.
    pub fn with_evaluation(self, held_out: UnpairedDataset) -> Result<Self> {
        check_lengths(self.dims, held_out.examples.iter().map(|row| &row.tokens))?;
        Ok(Self {
            splits: self.splits.with_evaluation(held_out.examples)?,
            ..self
        })
    }

    /// The weights of both kinds of answers.
    pub fn weights(&self) -> KtoWeights {
        self.weights
    }
}

/// The nearest row before `row` in the batch whose prompt is another one, going around; if there is none, the first such row of all
/// from `drawn` on, going around.
fn partner<'a>(
    batch: &'a [UnpairedExample],
    row: usize,
    all: &'a [UnpairedExample],
    drawn: usize,
) -> &'a UnpairedExample {
    let before = batch[..row].iter().rev().chain(batch[row..].iter().rev());
    let (after, wrapped) = (&all[drawn..], &all[..drawn]);
    let mut others = before.chain(after).chain(wrapped);
    let found = others.find(|other| other.prompt() != batch[row].prompt());
    found.unwrap_or(&batch[row])
}

impl KtoConfig {
    fn check(&self, weights: KtoWeights, batch_size: usize) -> Result<()> {
        let mut mistakes = Vec::new();
        if !(self.beta > 0.0 && self.beta.is_finite()) {
            mistakes.push(format!(
                "beta must be a positive number, not {}: use 0.1",
                self.beta
            ));
        }
        for (kind, weight) in [
            ("desirable", weights.desirable),
            ("undesirable", weights.undesirable),
        ] {
            if !(weight >= 0.0 && weight.is_finite()) {
                mistakes.push(format!(
                    "the weight of {kind} answers must be 0 or more, not {weight}"
                ));
            }
        }
        if self.loss == UnpairedLoss::Kto && batch_size < 2 {
            mistakes.push(
                "a batch of one answer has no answer to another prompt, which KTO's divergence is estimated with: use a \
                 batch size of 2 or more, or the loss apo_zero_unpaired"
                    .into(),
            );
        }
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(Error::Settings(mistakes)),
        }
    }
}

impl<M: CausalLm> Method<M> for Kto<M> {
    type Batch = UnpairedSequences;

    fn len(&self, epoch: usize) -> usize {
        self.splits.len(epoch)
    }

    fn evaluation_len(&self) -> Option<usize> {
        self.splits.evaluation_len()
    }

    fn batch(
        &mut self,
        model: &ModelView<'_, M>,
        epoch: usize,
        index: usize,
        context: &StepContext,
    ) -> Result<UnpairedSequences, BoxError> {
        let rows = self.splits.batch(epoch, index, context);
        let (policy, device) = (&**model, device_of(&**model));
        let reference = self
            .reference
            .model(policy)
            .ok_or_else(|| Error::Reference("the reference has no model".into()))?;
        let sums = |model: &M, sequences: &Branches| {
            let tokens = completion_logps(model, sequences, 1.0, &device);
            numbers(sum_logps(tokens.logps, &tokens.mask))
        };
        let alone: Vec<Vec<&Tokenized>> = rows.iter().map(|row| vec![&row.tokens]).collect();
        let reach = shorter(reach(policy), reach(&reference));
        let sequences = collate(reach, &alone, &device);
        let mismatched = (self.config.loss == UnpairedLoss::Kto).then(|| {
            let all = self.splits.training();
            let mismatched: Vec<Tokenized> = (0..rows.len())
                .map(|row| {
                    let drawn = mix_seed(context.seed, row as u64) % all.len() as u64;
                    let partner = partner(&rows, row, all, drawn as usize);
                    let mut mismatched = rows[row].mismatched(partner);
                    mismatched.truncate(self.longest);
                    mismatched
                })
                .collect();
            let alone: Vec<Vec<&Tokenized>> = mismatched.iter().map(|row| vec![row]).collect();
            let sequences = collate(reach, &alone, &device);
            [sums(policy, &sequences), sums(&reference, &sequences)]
        });
        Ok(UnpairedSequences {
            reference: sums(&reference, &sequences),
            desirable: rows.iter().map(|row| row.desirable).collect(),
            sequences,
            mismatched,
        })
    }

    fn step(&mut self, model: &M, batch: &UnpairedSequences, context: &StepContext) -> StepResult {
        let (sequences, device) = (&batch.sequences, &context.device);
        let tokens = completion_logps(model, sequences, 1.0, device);
        let policy = sum_logps(tokens.logps, &tokens.mask);
        let ratios = policy.clone() - tensor(batch.reference.clone(), device);
        let (beta, desirable) = (self.config.beta, &batch.desirable[..]);
        let rewards = numbers(ratios.clone().detach() * beta);
        if context.is_training() && context.step == 1 && context.micro_batch == 0 {
            let ratios = numbers(ratios.clone().detach());
            self.reference
                .check_start(model, &ratios, &batch.reference)?;
        }

        let mut own_metrics = Vec::new();
        let losses = match self.config.loss {
            UnpairedLoss::Kto => {
                let [policy, reference] = batch.mismatched.clone().unwrap_or_default();
                let z = kto_kl(tensor(policy, device), tensor(reference, device));
                own_metrics.push(("kl", f64::from(numbers(z.clone())[0])));
                kto(ratios, desirable, z, beta, self.weights)
            }
            UnpairedLoss::ApoZeroUnpaired => kto(
                ratios,
                desirable,
                tensor(vec![0.0], device),
                beta,
                self.weights,
            ),
            UnpairedLoss::Bco => {
                let delta = match context.is_training() {
                    true => self.shift.update(&rewards),
                    false => self.shift.mean,
                };
                own_metrics.push(("delta", delta));
                bco(ratios, desirable, delta, beta)
            }
        };
        let count = desirable.len();
        let mut output = StepOutput::from(LossSum {
            sum: losses.sum(),
            count,
        })
        .with_tokens(sequences.batch.token_count());
        for (name, value) in own_metrics {
            output = output.with_metric(name, value * count as f64, count as f64);
        }
        let logps = numbers(policy.detach());
        for (kind, name) in [(true, "chosen"), (false, "rejected")] {
            let of_kind = |values: &[f32]| {
                let of_kind = values.iter().zip(desirable).filter(|(_, is)| **is == kind);
                of_kind.map(|(&value, _)| f64::from(value)).sum::<f64>()
            };
            let weight = desirable.iter().filter(|&&is| is == kind).count() as f64;
            output = output
                .with_metric(format!("rewards/{name}"), of_kind(&rewards), weight)
                .with_metric(format!("logps/{name}"), of_kind(&logps), weight);
        }
        Ok(output)
    }

    fn save(&self, folder: &Path) -> Result<(), BoxError> {
        let shift = serde_json::to_vec(&self.shift)?;
        Ok(std::fs::write(folder.join("reward_shift.json"), shift)?)
    }

    fn restore(&mut self, folder: &Path) -> Result<(), BoxError> {
        let shift = std::fs::read(folder.join("reward_shift.json"))?;
        self.shift = serde_json::from_slice(&shift)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ft_core::IGNORE_INDEX;

    use super::*;

    fn answer(prompt: u32, token: u32) -> UnpairedExample {
        UnpairedExample {
            tokens: Tokenized {
                input_ids: vec![prompt, token],
                labels: vec![IGNORE_INDEX, i64::from(token)],
            },
            desirable: true,
        }
    }

    #[test]
    fn a_partner_answers_another_prompt() {
        let all = [answer(1, 10), answer(1, 11), answer(2, 12), answer(3, 13)];
        let token = |batch: &[UnpairedExample], row, drawn| {
            partner(batch, row, &all, drawn).tokens.input_ids[1]
        };
        // Neighbours with the same prompt are left out.
        assert_eq!(
            [0, 1, 2, 3].map(|row| token(&all, row, 0)),
            [13, 13, 11, 12]
        );
        // A batch of one prompt takes a row of all, never one of its own.
        assert_eq!(
            [0, 1, 2, 3].map(|drawn| token(&all[..2], 1, drawn)),
            [12, 12, 12, 13]
        );
        assert_eq!(token(&all[3..], 0, 3), 10);
    }
}
