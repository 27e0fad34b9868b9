//! From the logits of several rows to a token for each.
//!
//! On the CPU the logits are where the selection is. From another device only the candidates are copied if they are few:
//! the highest logit for greedy rows, the `k` highest for rows with `top_k`.

use burn::tensor::{Tensor, TensorData};
use rand::rngs::StdRng;
use rayon::prelude::*;

use crate::generation::sampling::{choose, draw, log_sum_exp, next_token};
use crate::{Error, GenerationConfig, Result};

/// More candidates than this are not worth a search on the device.
const MOST_CANDIDATES: usize = 256;

/// The log-probabilities of a chosen token, natural, over the whole vocabulary: before the repetition penalty, top-k, top-p
/// and min-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChosenLogps {
    /// Under the model's distribution, `ln softmax(z)`.
    pub model: f32,
    /// At the temperature of the row, `ln softmax(z / T)`: what a policy gradient compares with. A greedy row has no
    /// temperature, so it is the same as `model`.
    pub sampling: f32,
}

/// What decides about the next token of a row.
pub(crate) struct Choice<'a> {
    /// Prompt and new tokens.
    pub seen: &'a [u32],
    pub config: &'a GenerationConfig,
    pub rng: &'a mut StdRng,
}

impl GenerationConfig {
    /// Whether tokens are drawn with the probabilities of the temperature alone.
    fn draws_from_all(&self) -> bool {
        self.temperature > 0.0
            && self.repetition_penalty == 1.0
            && self.top_k == 0
            && self.top_p >= 1.0
            && self.min_p <= 0.0
    }
}

impl Choice<'_> {
    /// How many of the highest logits decide; none if all do.
    fn candidates(&self) -> Option<usize> {
        match self.config {
            GenerationConfig {
                repetition_penalty, ..
            } if *repetition_penalty != 1.0 => None,
            GenerationConfig { temperature, .. } if *temperature == 0.0 => Some(1),
            GenerationConfig { top_k, .. } => Some(*top_k).filter(|&k| k > 0),
        }
    }

    fn temperature(&self) -> f32 {
        match self.config.temperature {
            0.0 => 1.0,
            temperature => temperature,
        }
    }
}

/// Chooses a token for every row of `logits`, `[rows, vocab]`.
pub(crate) fn choose_tokens(
    logits: Tensor<2>,
    rows: &mut [Choice<'_>],
    with_logps: bool,
) -> Result<Vec<(u32, Option<ChosenLogps>)>> {
    let most = rows
        .iter()
        .map(Choice::candidates)
        .max_by_key(|k| k.unwrap_or(usize::MAX));
    match most.flatten() {
        Some(most) if most <= MOST_CANDIDATES && !ft_kernels::is_cpu(&logits.device()) => {
            choose_on_device(logits, most, rows, with_logps)
        }
        _ => choose_on_host(logits, rows, with_logps),
    }
}

/// Rows are chosen for in parallel.
fn choose_on_host(
    logits: Tensor<2>,
    rows: &mut [Choice<'_>],
    with_logps: bool,
) -> Result<Vec<(u32, Option<ChosenLogps>)>> {
    let [_, vocab] = logits.dims();
    let mut logits = floats(logits.into_data())?;
    let chosen: Vec<_> = (logits.par_chunks_exact_mut(vocab).zip(rows))
        .map(|(logits, row)| {
            let broken = logits.iter().any(|logit| logit.is_nan());
            (!broken).then(|| choose_of_row(logits, row, with_logps))
        })
        .collect();
    check_numbers(chosen.iter().any(Option::is_none))?;
    Ok(chosen.into_iter().flatten().collect())
}

fn choose_of_row(
    logits: &mut [f32],
    row: &mut Choice<'_>,
    with_logps: bool,
) -> (u32, Option<ChosenLogps>) {
    let (config, temperature) = (row.config, row.temperature());
    let logps = |z: &[f32], token: u32, sampling: Option<f32>| {
        let logp = |t: f32| z[token as usize] / t - log_sum_exp(z, t);
        let sampling = sampling.unwrap_or_else(|| logp(temperature));
        ChosenLogps {
            model: match temperature == 1.0 {
                true => sampling,
                false => logp(1.0),
            },
            sampling,
        }
    };
    if config.draws_from_all() {
        let (token, sum) = draw(logits, temperature, row.rng);
        let sampling = logits[token as usize] / temperature - sum;
        return (
            token,
            with_logps.then(|| logps(logits, token, Some(sampling))),
        );
    }
    // The choice changes the logits.
    let before = with_logps.then(|| logits.to_vec());
    let token = next_token(logits, row.seen, config, row.rng);
    (token, before.map(|z| logps(&z, token, None)))
}

/// The same from the `most` highest logits of every row, which are all that is copied. Of equal logits at the border the
/// device decides which is a candidate.
fn choose_on_device(
    logits: Tensor<2>,
    most: usize,
    rows: &mut [Choice<'_>],
    with_logps: bool,
) -> Result<Vec<(u32, Option<ChosenLogps>)>> {
    let [count, vocab] = logits.dims();
    let most = most.min(vocab);
    let (values, ids) = match most {
        1 => logits.clone().max_dim_with_indices(1),
        most => logits.clone().topk_with_indices(most, 1),
    };
    let broken = logits.clone().contains_nan().into_data();
    check_numbers(broken.iter::<bool>().any(|broken| broken))?;
    let sums = with_logps.then(|| {
        let temperatures: Vec<f32> = rows.iter().map(Choice::temperature).collect();
        let temperatures = TensorData::new(temperatures, [count, 1]);
        let temperatures = Tensor::<2>::from_data(temperatures, &logits.device());
        let hot = log_sum_exp_on_device(logits.clone() / temperatures);
        Tensor::cat(vec![log_sum_exp_on_device(logits), hot], 1)
    });
    let sums = sums.map(|sums| floats(sums.into_data())).transpose()?;
    let values = floats(values.into_data())?;
    let ids: Vec<u32> = ids.into_data().iter::<i64>().map(|id| id as u32).collect();
    let candidates = values.chunks_exact(most).zip(ids.chunks_exact(most));
    let chosen = candidates
        .zip(rows)
        .enumerate()
        .map(|(i, ((values, ids), row))| {
            // In the order of the vocabulary, so that a row draws what it would draw from all logits.
            let mut order: Vec<usize> = (0..most).collect();
            order.sort_by_key(|&at| ids[at]);
            let mut logits: Vec<f32> = order.iter().map(|&at| values[at]).collect();
            let at = order[choose(&mut logits, row.config, row.rng) as usize];
            let logps = sums.as_ref().map(|sums| ChosenLogps {
                model: values[at] - sums[2 * i],
                sampling: values[at] / row.temperature() - sums[2 * i + 1],
            });
            (ids[at], logps)
        });
    Ok(chosen.collect())
}

/// `ln Σ eᶻ` of every row, `[rows, 1]`.
fn log_sum_exp_on_device(logits: Tensor<2>) -> Tensor<2> {
    let most = logits.clone().max_dim(1);
    (logits - most.clone()).exp().sum_dim(1).log() + most
}

fn floats(data: TensorData) -> Result<Vec<f32>> {
    let floats = data.convert::<f32>().try_into_vec::<f32>();
    floats.map_err(|e| Error::Settings(format!("logits cannot be read: {e:?}")))
}

fn check_numbers(broken: bool) -> Result<()> {
    if broken {
        return Err(Error::Settings(
            "the model's logits are not numbers (NaN): its weights or its config.json are damaged"
                .into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Distinct logits of four rows.
    fn logits(rng: &mut StdRng) -> Vec<f32> {
        (0..4 * 50).map(|_| rng.random_range(-4.0..4.0)).collect()
    }

    fn settings() -> [GenerationConfig; 4] {
        let sampled = |temperature, top_k, top_p, min_p| GenerationConfig {
            temperature,
            top_k,
            top_p,
            min_p,
            ..GenerationConfig::default()
        };
        [
            GenerationConfig::default(),
            sampled(0.7, 5, 1.0, 0.0),
            sampled(1.5, 12, 0.8, 0.0),
            sampled(1.0, 3, 1.0, 0.2),
        ]
    }

    #[test]
    fn few_candidates_give_what_all_logits_give() {
        let mut numbers = StdRng::seed_from_u64(3);
        let settings = settings();
        for case in 0..200 {
            let data = TensorData::new(logits(&mut numbers), [4, 50]);
            let z = Tensor::<2>::from_data(data, &Device::default());
            for rows in [0..4, 0..1] {
                let z = z.clone().narrow(0, 0, rows.len());
                let run = |on_device| {
                    let mut rngs: Vec<_> =
                        (0..4).map(|i| StdRng::seed_from_u64(case + i)).collect();
                    let mut rows: Vec<Choice<'_>> = (settings[rows.clone()].iter().zip(&mut rngs))
                        .map(|(config, rng)| Choice {
                            seen: &[1, 2],
                            config,
                            rng,
                        })
                        .collect();
                    let most = rows.iter().filter_map(Choice::candidates).max();
                    let chosen = match on_device {
                        true => choose_on_device(z.clone(), most.expect("few"), &mut rows, true),
                        false => choose_on_host(z.clone(), &mut rows, true),
                    };
                    chosen.expect("numbers")
                };
                for ((a, a_logps), (b, b_logps)) in run(true).into_iter().zip(run(false)) {
                    assert_eq!(a, b, "case {case}");
                    let (a, b) = (a_logps.expect("asked"), b_logps.expect("asked"));
                    assert!((a.model - b.model).abs() < 1e-5, "{a:?}, {b:?}");
                    assert!((a.sampling - b.sampling).abs() < 1e-5, "{a:?}, {b:?}");
                }
            }
        }
    }

    /// Logits 0 and ln 3: probabilities 1/4 and 3/4; at temperature 1/2 the logits are 0 and ln 9, and the probabilities 1/10
    /// and 9/10.
    #[test]
    fn log_probabilities_are_those_of_the_model_and_of_the_temperature() {
        let z = Tensor::<2>::from_data([[0.0, 3f32.ln()]], &Device::default());
        let config = GenerationConfig {
            temperature: 0.5,
            top_k: 1,
            ..GenerationConfig::default()
        };
        for choose in [choose_on_host, |z, rows: &mut [Choice<'_>], with| {
            choose_on_device(z, 1, rows, with)
        }] {
            let mut rng = StdRng::seed_from_u64(0);
            let choice = Choice {
                seen: &[],
                config: &config,
                rng: &mut rng,
            };
            let chosen = choose(z.clone(), &mut [choice], true).expect("numbers");
            let (token, logps) = chosen[0];
            let logps = logps.expect("asked");
            assert_eq!(token, 1);
            assert!((logps.model - 0.75f32.ln()).abs() < 1e-6, "{logps:?}");
            assert!((logps.sampling - 0.9f32.ln()).abs() < 1e-6, "{logps:?}");
        }
    }

    /// Draws from all logits, and from all logits as the highest 50, are the same, with the same log-probabilities.
    #[test]
    fn drawing_from_all_is_drawing_from_a_list_of_all() {
        let mut numbers = StdRng::seed_from_u64(4);
        for case in 0..100 {
            let data = TensorData::new(logits(&mut numbers), [4, 50]);
            let z = Tensor::<2>::from_data(data, &Device::default());
            let run = |min_p| {
                let configs = [0.3, 1.0, 1.7, 0.9].map(|temperature| GenerationConfig {
                    temperature,
                    min_p,
                    ..GenerationConfig::default()
                });
                let mut rngs: Vec<_> = (0..4).map(|i| StdRng::seed_from_u64(case + i)).collect();
                let mut rows: Vec<Choice<'_>> = (configs.iter().zip(&mut rngs))
                    .map(|(config, rng)| Choice {
                        seen: &[],
                        config,
                        rng,
                    })
                    .collect();
                choose_on_host(z.clone(), &mut rows, true).expect("numbers")
            };
            // A limit that forbids nothing.
            for ((a, a_logps), (b, b_logps)) in run(0.0).into_iter().zip(run(1e-30)) {
                assert_eq!(a, b, "case {case}");
                let (a, b) = (a_logps.expect("asked"), b_logps.expect("asked"));
                assert!((a.model - b.model).abs() < 1e-5, "{a:?}, {b:?}");
                assert!((a.sampling - b.sampling).abs() < 1e-5, "{a:?}, {b:?}");
            }
        }
    }

    #[test]
    fn a_penalty_or_no_limit_needs_all_logits() {
        let mut rng = StdRng::seed_from_u64(0);
        let mut candidates = |config: &GenerationConfig| {
            Choice {
                seen: &[],
                config,
                rng: &mut rng,
            }
            .candidates()
        };
        let greedy = GenerationConfig::default();
        assert_eq!(candidates(&greedy), Some(1));
        let penalty = GenerationConfig {
            repetition_penalty: 1.1,
            ..greedy.clone()
        };
        assert_eq!(candidates(&penalty), None);
        let sampled = GenerationConfig {
            temperature: 1.0,
            ..greedy
        };
        assert_eq!(candidates(&sampled), None);
        assert_eq!(
            candidates(&GenerationConfig {
                top_k: 40,
                ..sampled
            }),
            Some(40)
        );
    }
}
