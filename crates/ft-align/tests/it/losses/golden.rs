//! Every loss and its gradient equal TRL's, or those of the formula in PyTorch where TRL has none.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use ft_align::loss::*;
use ft_core::TokenLogps;
use ft_core::safetensors_folder::read_tensors;

use super::{device, numbers, value_and_gradient};

const TOLERANCE: f32 = 1e-5;

struct Golden(BTreeMap<String, TensorData>);

impl Golden {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/losses.safetensors");
        Self(read_tensors(&path).expect("golden").into_iter().collect())
    }

    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.0[name].clone(), &device())
    }

    fn numbers(&self, name: &str) -> Vec<f32> {
        self.0[name].clone().try_to_vec().unwrap()
    }

    /// The settings of all cases of a kind: `KIND/a/b/c.loss` gives `[a, b, c]`.
    fn cases(&self, kind: &str) -> Vec<(String, Vec<String>)> {
        let cases: Vec<_> = self
            .0
            .keys()
            .filter_map(|key| {
                let name = key.strip_suffix(".loss")?;
                let settings = name.strip_prefix(kind)?.strip_prefix('/')?;
                let settings = settings.split('/').map(str::to_string).collect();
                Some((name.to_string(), settings))
            })
            .collect();
        assert!(!cases.is_empty(), "{kind}");
        cases
    }

    /// Compares the value and gradient of `f` at `x` with a case; rows of the gradient each on their own scale.
    fn check<const D: usize>(&self, name: &str, x: &Tensor<D>, f: impl Fn(Tensor<D>) -> Tensor<1>) {
        let (loss, gradient) = value_and_gradient(x.clone(), f);
        close(
            name,
            &loss,
            &self.numbers(&format!("{name}.loss")),
            loss.len(),
        );
        let width = if D == 1 {
            1
        } else {
            x.dims()[1..].iter().product()
        };
        let expected = self.numbers(&format!("{name}.grad"));
        close(&format!("{name}: gradient"), &gradient, &expected, width);
    }
}

/// Compares numbers relative to the largest of their row.
fn close(what: &str, found: &[f32], expected: &[f32], width: usize) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.chunks(width).zip(expected.chunks(width)) {
        let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (f, e) in found.iter().zip(expected) {
            assert!(
                (f - e).abs() <= TOLERANCE * scale + 1e-8,
                "{what}: {found:?}, not {expected:?}"
            );
        }
    }
}

fn number(text: &str) -> f64 {
    text.parse().unwrap()
}

#[test]
fn losses_of_pairs_equal_trl() {
    let golden = Golden::read();
    let tokens: Tensor<2> = golden.tensor("pair.logps");
    let mask: Tensor<2> = golden.tensor("pair.mask");
    let at = |logps| TokenLogps {
        logps,
        mask: mask.clone(),
    };
    let reference = at(golden.tensor("pair.ref_logps"));
    let pairs = |logps, ld_alpha, weighted| {
        let mut pairs = PairLogps::new(&at(logps), pair_logps(&reference, ld_alpha), ld_alpha);
        if weighted {
            let squares = golden.tensor("pair.log_sum_squares");
            let weights = wpo_weights(tokens.clone(), squares, &mask);
            pairs.weights = Some(weights.clone().narrow(0, 0, 4) * weights.narrow(0, 4, 4));
        }
        pairs
    };
    for (name, settings) in golden.cases("pair") {
        let [losses, beta, smoothing, divergence, ld_alpha, weighted] = &settings[..] else {
            panic!("{name}");
        };
        let losses: PairLosses = losses.parse().unwrap();
        let settings = PairSettings {
            beta: number(beta),
            label_smoothing: number(smoothing),
            f_divergence: divergence.parse().unwrap(),
            ..PairSettings::default()
        };
        let (ld_alpha, weighted) = (number(ld_alpha), weighted == "true");
        losses.check(&settings, weighted).unwrap();
        golden.check(&name, &tokens, |logps| {
            losses
                .compute(&pairs(logps, ld_alpha, weighted), &settings)
                .mean()
        });
    }
    for (name, values) in PairMetrics::new(&pairs(tokens.clone(), 1.0, false), 0.3).named() {
        let expected = golden.numbers(&format!("metric/{name}"));
        close(name, &numbers(values.mean()), &expected, 1);
    }
}

#[test]
fn losses_without_a_reference_equal_trl() {
    let golden = Golden::read();
    let means: Tensor<1> = golden.tensor("means.logps");
    let halves = |t: Tensor<1>| (t.clone().narrow(0, 0, 4), t.narrow(0, 4, 4));
    for (name, settings) in golden.cases("orpo") {
        let beta = number(&settings[0]);
        golden.check(&name, &means, |both| {
            let (chosen, rejected) = halves(both);
            orpo(chosen, rejected, beta)
        });
    }
    for (name, settings) in golden.cases("cpo") {
        let [beta, gamma, alpha, smoothing] = [1, 2, 3, 4].map(|i| number(&settings[i]));
        golden.check(&name, &means, |both| {
            let (chosen, rejected) = halves(both);
            let ones = || Tensor::ones_like(&chosen);
            match settings[0].as_str() {
                "sigmoid" => cpo(chosen, rejected, beta, smoothing),
                "hinge" => hinge(chosen, rejected, beta),
                "ipo" => ipo(chosen.clone(), rejected, ones(), ones(), beta),
                "simpo" if alpha == 0.0 => simpo(chosen, rejected, beta, gamma, smoothing),
                "simpo" => alphapo(chosen, rejected, alpha, beta, gamma, smoothing),
                other => panic!("{other}"),
            }
        });
    }
}

#[test]
fn losses_of_single_completions_equal_trl() {
    let golden = Golden::read();
    let tokens: Tensor<2> = golden.tensor("kto.logps");
    let mask: Tensor<2> = golden.tensor("kto.mask");
    let sums = |name: &str| sum_logps(golden.tensor(name), &mask);
    let reference = sums("kto.ref_logps");
    let desirable: Vec<bool> = golden
        .numbers("kto.desirable")
        .iter()
        .map(|&d| d == 1.0)
        .collect();
    for (name, settings) in golden.cases("kto") {
        let [beta, desirable_weight, undesirable_weight] = [0, 1, 2].map(|i| number(&settings[i]));
        let (mut policy, mut frozen) = (sums("kto.kl_logps"), sums("kto.kl_ref_logps"));
        if settings[3] == "true" {
            std::mem::swap(&mut policy, &mut frozen);
        }
        let z = kto_kl(policy, frozen);
        close(
            &name,
            &numbers(z.clone()),
            &golden.numbers(&format!("{name}.z")),
            1,
        );
        let weights = KtoWeights {
            desirable: desirable_weight,
            undesirable: undesirable_weight,
        };
        golden.check(&name, &tokens, |logps| {
            let ratios = sum_logps(logps, &mask) - reference.clone();
            kto(ratios, &desirable, z.clone(), beta, weights).mean()
        });
    }
    for (name, settings) in golden.cases("apo_zero_unpaired") {
        golden.check(&name, &tokens, |logps| {
            let ratios = sum_logps(logps, &mask) - reference.clone();
            apo_zero_unpaired(ratios, &desirable, number(&settings[0])).mean()
        });
    }
    for (name, settings) in golden.cases("formula/bco") {
        golden.check(&name, &tokens, |logps| {
            let ratios = sum_logps(logps, &mask) - reference.clone();
            bco(
                ratios,
                &desirable,
                number(&settings[1]),
                number(&settings[0]),
            )
            .mean()
        });
    }
}

#[test]
fn losses_of_reward_models_equal_trl() {
    let golden = Golden::read();
    let scores: Tensor<1> = golden.tensor("scores.scores");
    for (name, settings) in golden.cases("bradley_terry") {
        golden.check(&name, &scores, |both| {
            let margin = (settings[0] == "true").then(|| golden.tensor("scores.margin"));
            let (chosen, rejected) = (both.clone().narrow(0, 0, 4), both.narrow(0, 4, 4));
            bradley_terry(chosen, rejected, margin, number(&settings[1])).mean()
        });
    }
    let labels: Vec<i64> = golden
        .numbers("steps.labels")
        .iter()
        .map(|&l| l as i64)
        .collect();
    golden.check(
        "formula/process_rewards",
        &golden.tensor::<3>("steps.logits"),
        |logits| {
            let (losses, mask) = process_rewards(logits, &labels);
            losses.sum() / mask.sum()
        },
    );
}

#[test]
fn losses_of_policies_equal_trl() {
    let golden = Golden::read();
    let tokens: Tensor<2> = golden.tensor("policy.logps");
    let old: Tensor<2> = golden.tensor("policy.old_logps");
    let mask: Tensor<2> = golden.tensor("policy.mask");
    let advantages = || golden.tensor::<1>("policy.advantages");
    let column = || advantages().unsqueeze_dim::<2>(1);
    for (name, settings) in golden.cases("policy") {
        let [low, high, delta, beta, top] = [2, 3, 4, 5, 7].map(|i| number(&settings[i]));
        let clip = Clip {
            low,
            high,
            two_sided: (delta > 0.0).then_some(delta),
        };
        let reduction = match settings[0].as_str() {
            "grpo" | "sapo" => Reduction::Grpo,
            "bnpo" => Reduction::Bnpo,
            "dr_grpo" => Reduction::DrGrpo {
                max_completion_length: 7,
            },
            "dapo" | "cispo" => Reduction::Dapo { tokens: 20 },
            other => panic!("{other}"),
        };
        golden.check(&name, &tokens, |logps| {
            let mut log_ratios = logps.clone() - old.clone();
            if settings[1] == "sequence" {
                log_ratios = sequence_log_ratios(log_ratios, &mask);
            }
            let ratio = importance_ratio(log_ratios);
            let mut terms = match settings[0].as_str() {
                "cispo" => cispo(logps.clone(), ratio.clone(), column(), high),
                "sapo" => sapo(ratio.clone(), column(), 1.0, 1.05),
                _ => clipped_surrogate(ratio.clone(), column(), clip),
            };
            if top < 1.0 {
                terms = terms * top_entropy_mask(golden.tensor("policy.entropy"), &mask, top);
            }
            if beta > 0.0 {
                let ratio = (settings[6] == "true").then_some(ratio);
                terms = terms + k3(logps, golden.tensor("policy.ref_logps"), ratio) * beta;
            }
            reduction.reduce(terms, &mask)
        });
    }
    for (name, settings) in golden.cases("rloo") {
        let clip = Clip {
            low: number(&settings[0]),
            high: number(&settings[1]),
            two_sided: None,
        };
        golden.check(&name, &tokens, |logps| {
            let ratio = importance_ratio(sum_logps(logps - old.clone(), &mask));
            clipped_surrogate(ratio, advantages(), clip).mean()
        });
    }
}

#[test]
fn clipped_terms_are_counted_as_by_trl() {
    let golden = Golden::read();
    let mask: Tensor<2> = golden.tensor("policy.mask");
    let log_ratios = golden.tensor::<2>("policy.logps") - golden.tensor("policy.old_logps");
    let clip = Clip {
        low: 0.1,
        high: 0.15,
        two_sided: None,
    };
    let advantages = golden.tensor::<1>("policy.advantages").unsqueeze_dim(1);
    let (low, high) = clipped_terms(importance_ratio(log_ratios), advantages, clip);
    let region = low.clone() + high.clone();
    for (name, terms) in [
        ("low_mean", low),
        ("high_mean", high),
        ("region_mean", region),
    ] {
        let expected = golden.numbers(&format!("metric/clip_ratio/{name}"));
        close(
            name,
            &numbers(Reduction::Bnpo.reduce(terms, &mask)),
            &expected,
            1,
        );
    }
}

#[test]
fn advantages_equal_trl() {
    let golden = Golden::read();
    let rewards = golden.numbers("formula/rewards");
    let rewards: Vec<Option<f64>> = rewards
        .iter()
        .enumerate()
        .map(|(i, &r)| (i != 4).then_some(f64::from(r)))
        .collect();
    let check = |name: &str, found: Vec<f64>| {
        let found: Vec<f32> = found.into_iter().map(|a| a as f32).collect();
        let expected = golden.numbers(&format!("formula/advantages/{name}"));
        close(name, &found, &expected, 1);
    };
    for scaling in [Scaling::Group, Scaling::Batch, Scaling::None] {
        check(&scaling.to_string(), group_advantages(&rewards, 4, scaling));
    }
    check("leave_one_out", leave_one_out(&rewards, 4));
}

#[test]
fn pieces_of_ppo_equal_trl() {
    let golden = Golden::read();
    let mask: Tensor<2> = golden.tensor("policy.mask");
    let kl = golden.tensor::<2>("policy.logps") - golden.tensor("policy.ref_logps");
    let compare = |name: &str, found: Tensor<2>| {
        close(
            name,
            &numbers(found),
            &golden.numbers(&format!("formula/ppo/{name}")),
            5,
        );
    };
    let rewards = token_rewards(golden.tensor("ppo.scores"), kl, &mask, 0.05);
    compare("rewards", rewards.clone());
    let values: Tensor<2> = golden.tensor("ppo.values");
    let (advantages, returns) = gae(rewards, values.clone(), &mask, 0.9, 0.95);
    compare("advantages", advantages.clone());
    compare("returns", returns.clone());
    compare("whitened", whiten(advantages, &mask, false));
    golden.check("formula/value_loss/0.2", &values, |values| {
        let terms = clipped_value_loss(
            values,
            golden.tensor("ppo.old_values"),
            returns.clone(),
            0.2,
        );
        Reduction::Bnpo.reduce(terms, &mask)
    });
}
