//! What goes wrong with a run, recognised as it happens, with the likely cause and what helps.
//!
//! Each rule is a function of the numbers so far, so a run that is resumed finds what it would have found. A rule reports when it
//! begins to hold, not at every step at which it holds.
//!
//! Losses of policies are around 0 and may be negative. A share of a loss is one of its absolute value, and a rise that is smaller than
//! a few hundredths is none.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Evaluation;

/// What a run suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Symptom {
    /// The loss rises: the mean of 20 steps is a fifth, and 0.05, above that of the first 20.
    Divergence,
    /// The loss of a step is far above those before it: six deviations, a half, and 0.05 above the median of 50 steps.
    Spike,
    /// The mean loss of 100 steps is within a thousandth of that of the 100 before.
    Plateau,
    /// The evaluation loss has risen twice in a row to 2%, and 0.005, above its best, while the training loss falls.
    Overfitting,
    /// The norm of the gradient is ten times the median of 50 steps.
    ExplodingGradients,
    /// The norm of the gradient is a thousandth of what it was in the first 20 steps.
    VanishingGradients,
    /// Parameters that train have not changed in the first 10 steps with a gradient.
    DeadParameters,
}

impl Symptom {
    /// The likely cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Divergence => "the learning rate is too high, or the warmup too short",
            Self::Spike => {
                "a batch with unusual text or few labels, or a learning rate at the edge of stability"
            }
            Self::Plateau => {
                "the learning rate is too low by now, what trains has too little capacity, or the data are learnt"
            }
            Self::Overfitting => {
                "the model learns the training rows by heart: too many passes for the amount of data"
            }
            Self::ExplodingGradients => {
                "the learning rate is too high, or a batch has unusual text"
            }
            Self::VanishingGradients => {
                "the data are learnt, labels are masked, or numbers of 16 bits underflow"
            }
            Self::DeadParameters => {
                "an adapter is not active, or its layers take no part in the loss"
            }
        }
    }

    /// Whether it is one only where the loss [is a measure](crate::Method::loss_is_a_measure) of the model.
    pub fn is_of_the_loss(self) -> bool {
        !matches!(self, Self::ExplodingGradients | Self::DeadParameters)
    }

    /// What helps.
    pub fn fix(self) -> &'static str {
        match self {
            Self::Divergence => {
                "stop; take a third of the learning rate, or a warmup_ratio of 0.03 to 0.1"
            }
            Self::Spike => {
                "nothing if the loss comes back; else clip gradients (max_grad_norm) and look at the batches of this step"
            }
            Self::Plateau => "raise the learning rate or the rank of the adapter, or stop here",
            Self::Overfitting => {
                "stop early and keep the best model, train fewer epochs, or raise dropout or weight_decay"
            }
            Self::ExplodingGradients => {
                "clip gradients (max_grad_norm = 1), lower the learning rate, lengthen the warmup"
            }
            Self::VanishingGradients => "look at the share of tokens that is learnt; train in f32",
            Self::DeadParameters => {
                "look at target_modules and at which adapter is active, or do not train them"
            }
        }
    }
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Divergence => "divergence",
            Self::Spike => "loss spike",
            Self::Plateau => "plateau",
            Self::Overfitting => "overfitting",
            Self::ExplodingGradients => "exploding gradients",
            Self::VanishingGradients => "vanishing gradients",
            Self::DeadParameters => "dead parameters",
        })
    }
}

/// A symptom at a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// After which step.
    pub step: usize,
    /// What it is.
    pub symptom: Symptom,
    /// The numbers that show it.
    pub evidence: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            symptom,
            evidence,
        } = self;
        write!(
            f,
            "{symptom} at step {step}: {evidence}. Likely cause: {}. What helps: {}.",
            symptom.cause(),
            symptom.fix()
        )
    }
}

/// The least rise of a training loss that counts.
const LEAST: f64 = 0.05;

/// The evidence for a symptom after so many steps.
type Rule<'a> = &'a dyn Fn(usize) -> Option<String>;

/// What the losses and gradient norms of the steps so far show at the last of them.
///
/// ```
/// use ft_train::{Symptom, diagnose_step};
///
/// let mut losses = vec![2.0; 60];
/// losses.push(9.0);
/// let found = diagnose_step(&losses, &[1.0; 61]);
/// assert_eq!(found[0].symptom, Symptom::Spike);
/// ```
pub fn diagnose_step(losses: &[f64], norms: &[f64]) -> Vec<Finding> {
    let step = losses.len();
    let rules: [(Symptom, Rule<'_>); 5] = [
        (Symptom::Divergence, &|end| diverges(losses.get(..end)?)),
        (Symptom::Spike, &|end| spikes(losses.get(..end)?)),
        (Symptom::Plateau, &|end| is_flat(losses.get(..end)?)),
        (Symptom::ExplodingGradients, &|end| {
            explodes(norms.get(..end)?)
        }),
        (Symptom::VanishingGradients, &|end| {
            vanishes(norms.get(..end)?)
        }),
    ];
    let begins = |(symptom, rule): (Symptom, Rule<'_>)| {
        let evidence = rule(step)?;
        let held = step > 0 && rule(step - 1).is_some();
        (!held).then_some(Finding {
            step,
            symptom,
            evidence,
        })
    };
    rules.into_iter().filter_map(begins).collect()
}

/// What the evaluations so far show at the last of them.
pub fn diagnose_evaluation(evaluations: &[Evaluation], losses: &[f64]) -> Option<Finding> {
    let (last, before) = evaluations.split_last()?;
    let evidence = overfits(evaluations, losses)?;
    overfits(before, losses).is_none().then_some(Finding {
        step: last.step,
        symptom: Symptom::Overfitting,
        evidence,
    })
}

fn overfits(evaluations: &[Evaluation], losses: &[f64]) -> Option<String> {
    let [third, before, last] = evaluations.last_chunk::<3>()?;
    let all = evaluations.iter().map(|one| one.metrics.loss);
    let best = all.fold(f64::INFINITY, f64::min);
    let [first, second, loss] = [third, before, last].map(|one| one.metrics.loss);
    let rises = loss > second && second > first && loss - best > least_rise(best, 0.02, 0.005);
    let around = |step: usize| {
        mean(&losses[step.saturating_sub(20).min(losses.len())..step.min(losses.len())])
    };
    let falls = around(last.step)? < around(before.step)?;
    (rises && falls)
        .then(|| format!("the evaluation loss rose to {loss:.4}, its best was {best:.4}"))
}

/// The rise from a loss that counts: a share of it, and a least number for losses around 0.
fn least_rise(from: f64, share: f64, least: f64) -> f64 {
    (share * from.abs()).max(least)
}

fn diverges(losses: &[f64]) -> Option<String> {
    const STEPS: usize = 20;
    let first = mean(losses.get(..STEPS)?)?;
    let last = mean(losses.get(STEPS..)?.last_chunk::<STEPS>()?)?;
    (last - first > least_rise(first, 0.2, LEAST)).then(|| {
        format!("the mean loss of {STEPS} steps is {last:.4}, that of the first was {first:.4}")
    })
}

fn spikes(losses: &[f64]) -> Option<String> {
    let (last, before) = recent(losses)?;
    let middle = median(before);
    let distances: Vec<f64> = before.iter().map(|loss| (loss - middle).abs()).collect();
    // 1.4826 times the median distance is the standard deviation of normal numbers.
    let deviation = 1.4826 * median(&distances);
    let far = last - middle > (6.0 * deviation).max(least_rise(middle, 0.5, LEAST));
    far.then(|| format!("the loss is {last:.4}, the median before it {middle:.4}"))
}

fn is_flat(losses: &[f64]) -> Option<String> {
    const STEPS: usize = 100;
    let last = mean(losses.last_chunk::<STEPS>()?)?;
    let before = mean(losses[..losses.len() - STEPS].last_chunk::<STEPS>()?)?;
    ((last - before).abs() < 1e-3 * before.abs())
        .then(|| format!("the mean loss of {STEPS} steps is {last:.4}, that of the {STEPS} before was {before:.4}"))
}

fn explodes(norms: &[f64]) -> Option<String> {
    let (last, before) = recent(norms)?;
    let middle = median(before);
    (last > 10.0 * middle && middle > 0.0).then(|| {
        format!("the norm of the gradient is {last:.3e}, the median before it {middle:.3e}")
    })
}

fn vanishes(norms: &[f64]) -> Option<String> {
    let first = median(norms.get(..20)?);
    let last = median(norms.get(20..)?.last_chunk::<5>()?);
    (last < 1e-3 * first).then(|| {
        format!("the norm of the gradient is {last:.3e}, in the first 20 steps it was {first:.3e}")
    })
}

/// The last number and up to 50 before it; none if there are fewer than 20.
fn recent(numbers: &[f64]) -> Option<(f64, &[f64])> {
    let (last, before) = numbers.split_last()?;
    let before = &before[before.len().saturating_sub(50)..];
    (before.len() >= 20).then_some((*last, before))
}

fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvalMetrics;

    /// All findings of a run, step by step.
    fn symptoms(losses: &[f64], norms: &[f64]) -> Vec<(usize, Symptom)> {
        let steps = 1..=losses.len();
        let found = steps.flat_map(|end| diagnose_step(&losses[..end], &norms[..end]));
        found
            .map(|finding| (finding.step, finding.symptom))
            .collect()
    }

    /// A loss that falls from 3 with some noise.
    fn healthy(steps: usize) -> Vec<f64> {
        let noise = |i: usize| ((i * 7919 % 101) as f64 / 101.0 - 0.5) * 0.2;
        (0..steps)
            .map(|i| 1.0 + 2.0 / (1.0 + i as f64 / 100.0) + noise(i))
            .collect()
    }

    #[test]
    fn a_healthy_run_has_no_symptoms() {
        assert_eq!(symptoms(&healthy(400), &healthy(400)), []);
    }

    /// Losses of policies, which tell nothing of how well they learn.
    #[test]
    fn losses_around_zero_are_no_divergence_and_no_spikes() {
        let noise = |i: usize| ((i * 7919 % 101) as f64 / 101.0 - 0.5) * 0.04;
        let norms = vec![1.0; 300];
        for middle in [0.0, -0.02, 0.01] {
            let losses: Vec<f64> = (0..300).map(|i| middle + noise(i)).collect();
            assert_eq!(symptoms(&losses, &norms), [], "{middle}");
        }
        // All advantages are 0, and then they are not.
        let mut losses = vec![0.0; 300];
        losses[200..].fill(0.01);
        assert_eq!(symptoms(&losses, &norms), []);

        let falling: Vec<f64> = (0..300).map(|i| -0.01 * i as f64).collect();
        assert_eq!(symptoms(&falling, &norms), []);
        let rising: Vec<f64> = (0..120).map(|i| -1.0 + 0.01 * i as f64).collect();
        let found = symptoms(&rising, &norms[..120]);
        assert!(
            matches!(found[..], [(step, Symptom::Divergence)] if step < 60),
            "{found:?}"
        );
        let mut spike = vec![-1.0; 300];
        spike[150] = 2.0;
        assert!(symptoms(&spike, &norms).contains(&(151, Symptom::Spike)));
    }

    #[test]
    fn each_symptom_is_reported_once_when_it_begins() {
        let norms = vec![1.0; 400];
        let mut losses = healthy(400);
        losses[150] = 8.0;
        assert_eq!(symptoms(&losses, &norms), [(151, Symptom::Spike)]);

        let rising: Vec<f64> = (0..120).map(|i| 2.0 * 1.01f64.powi(i)).collect();
        let found = symptoms(&rising, &norms[..120]);
        assert!(
            matches!(found[..], [(step, Symptom::Divergence)] if step < 60),
            "{found:?}"
        );

        let found = symptoms(&vec![1.5; 400], &norms);
        assert_eq!(found, [(200, Symptom::Plateau)]);

        let mut exploding = vec![1.0; 400];
        exploding[60] = 50.0;
        assert_eq!(
            symptoms(&healthy(400), &exploding),
            [(61, Symptom::ExplodingGradients)]
        );

        let vanishing: Vec<f64> = (0..400).map(|i| if i < 100 { 1.0 } else { 1e-6 }).collect();
        let found = symptoms(&healthy(400), &vanishing);
        assert_eq!(found, [(103, Symptom::VanishingGradients)]);
    }

    #[test]
    fn overfitting_is_an_evaluation_loss_that_rises_while_the_training_loss_falls() {
        let evaluation = |step: usize, loss: f64| Evaluation {
            step,
            epoch: 0.0,
            metrics: EvalMetrics {
                loss,
                perplexity: loss.exp(),
                tokens: 1,
                metrics: Default::default(),
            },
            sets: Default::default(),
        };
        let found = |evaluations: &[f64], losses: &[f64]| -> Vec<usize> {
            let all: Vec<_> = (0..)
                .map(|i| 50 * i)
                .zip(evaluations)
                .map(|(step, loss)| evaluation(step, *loss))
                .collect();
            let ends = 1..=all.len();
            ends.filter_map(|end| diagnose_evaluation(&all[..end], losses))
                .map(|finding| finding.step)
                .collect()
        };
        let falling: Vec<f64> = (0..400).map(|i| 3.0 - 0.005 * f64::from(i)).collect();
        assert_eq!(
            found(&[3.0, 2.0, 1.8, 1.85, 1.9, 2.0, 2.1], &falling),
            [200]
        );
        // The training loss begins to fall after the evaluation loss began to rise.
        let later: Vec<f64> = (0..400)
            .map(|i| {
                if i < 210 {
                    3.0
                } else {
                    2.0 - 0.001 * f64::from(i)
                }
            })
            .collect();
        assert_eq!(found(&[3.0, 2.0, 1.8, 1.85, 1.9, 2.0, 2.1], &later), [250]);
        assert_eq!(
            found(&[-3.0, -3.1, -3.102, -3.101, -3.1, -3.1], &falling),
            Vec::<usize>::new()
        );
        assert_eq!(
            found(&[3.0, 2.0, 1.8, 1.9, 1.79, 1.8, 1.7], &falling),
            Vec::<usize>::new()
        );
        assert_eq!(
            found(&[3.0, 2.0, 1.8, 1.85, 1.9, 2.0, 2.1], &[2.0; 400]),
            Vec::<usize>::new()
        );
    }
}
