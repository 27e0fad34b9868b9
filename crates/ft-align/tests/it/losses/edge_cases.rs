//! Losses and gradients are finite wherever the mathematics has a value.

use burn::tensor::Tensor;
use ft_align::loss::*;
use ft_core::TokenLogps;

use super::{device, numbers, tensor, value_and_gradient};

fn finite(what: &str, (value, gradient): &(Vec<f32>, Vec<f32>)) {
    assert!(
        value.iter().all(|x| x.is_finite()),
        "{what}: value {value:?}"
    );
    assert!(
        gradient.iter().all(|x| x.is_finite()),
        "{what}: gradient {gradient:?}"
    );
}

/// One pair of completions of one token, with log-ratios `w` and `l`.
fn pair(w: f32, l: f32) -> (Tensor<2>, impl Fn(Tensor<2>) -> PairLogps) {
    let logps = Tensor::<2>::from_data([[w], [l]], &device());
    let pairs = |logps: Tensor<2>| {
        let mask = Tensor::ones_like(&logps);
        PairLogps::new(&TokenLogps { logps, mask }, tensor(&[0.0, 0.0]), 1.0)
    };
    (logps, pairs)
}

fn settings(divergence: &str) -> PairSettings {
    PairSettings {
        label_smoothing: 0.1,
        f_divergence: divergence.parse().unwrap(),
        ..PairSettings::default()
    }
}

#[test]
fn huge_log_ratios_are_finite() {
    for (w, l) in [
        (-3000.0, 0.0),
        (0.0, -3000.0),
        (3000.0, -3000.0),
        (-3000.0, 3000.0),
    ] {
        for loss in PairLoss::ALL {
            let (logps, pairs) = pair(w, l);
            // βx is −300: e³⁰⁰ leaves f32, and only the exponential of DiscoPOP grows so.
            let found =
                value_and_gradient(logps, |x| loss.compute(&pairs(x), &settings("reverse_kl")));
            finite(&format!("{loss} at {w}, {l}"), &found);
        }
        for divergence in [
            "forward_kl",
            "js_divergence",
            "alpha_divergence:0.5",
            "alpha_divergence:2",
        ] {
            for loss in ["sigmoid", "hinge", "robust", "exo_pair", "discopop"] {
                let (loss, (logps, pairs)) = (loss.parse::<PairLoss>().unwrap(), pair(w, l));
                let found =
                    value_and_gradient(logps, |x| loss.compute(&pairs(x), &settings(divergence)));
                finite(&format!("{loss}, {divergence} at {w}, {l}"), &found);
            }
        }
    }
}

/// `σ(x/τ) e⁻ˣ` tends to 0 for `x → −∞`, which leaves the logistic part: −x.
#[test]
fn discopop_is_logistic_far_below() {
    let found = numbers(discopop(tensor(&[-3000.0]), tensor(&[0.0]), 0.1, 0.05));
    assert!((found[0] - 300.0).abs() < 1e-3, "{found:?}");
}

#[test]
fn an_identical_pair_has_known_losses() {
    let known = [
        ("sigmoid", 2f32.ln()),
        ("hinge", 1.0),
        ("ipo", 25.0),
        ("sigmoid_norm", 2f32.ln()),
        ("robust", 2f32.ln()),
        ("nca_pair", 2.0 * 2f32.ln()),
        ("bco_pair", 2.0 * 2f32.ln()),
        ("sppo_hard", 50.0),
        ("apo_zero", 1.0),
        ("apo_down", 1.0),
        ("aot", 2f32.ln()),
        ("aot_unpaired", 2f32.ln()),
        ("discopop", 0.5 * 2f32.ln() + 0.5),
    ];
    for (name, expected) in known {
        let (loss, (logps, pairs)) = (name.parse::<PairLoss>().unwrap(), pair(0.0, 0.0));
        let found = value_and_gradient(logps, |x| loss.compute(&pairs(x), &settings("reverse_kl")));
        assert!(
            (found.0[0] - expected).abs() < 1e-5 * (1.0 + expected),
            "{name}: {found:?}"
        );
        finite(name, &found);
    }
}

/// Both completions of the pair are cut off entirely.
#[test]
fn empty_completions_are_finite() {
    let mask = Tensor::<2>::zeros([2, 3], &device());
    // What a masked position holds does not matter.
    let logps = Tensor::<2>::full([2, 3], f32::NEG_INFINITY, &device());
    for (loss, ld_alpha) in PairLoss::ALL.into_iter().flat_map(|l| [(l, 1.0), (l, 0.5)]) {
        let found = value_and_gradient(logps.clone(), |logps| {
            let policy = TokenLogps {
                logps,
                mask: mask.clone(),
            };
            let pairs = PairLogps::new(&policy, tensor(&[0.0, 0.0]), ld_alpha);
            loss.compute(&pairs, &settings("reverse_kl"))
        });
        finite(&format!("{loss}, ld_alpha {ld_alpha}"), &found);
        assert_eq!(found.1, [0.0; 6], "{loss}");
    }
    let weights = wpo_weights(logps.clone(), logps, &mask);
    assert_eq!(numbers(weights), [1.0, 1.0]);
}

/// A completion of probability 1 has infinite odds.
#[test]
fn odds_of_certain_completions_are_finite() {
    for at in [
        [0.0, -1.0],
        [-1.0, 0.0],
        [0.0, 0.0],
        [-1e-9, -500.0],
        [-500.0, -1e-9],
    ] {
        let found = value_and_gradient(tensor(&at), |t| {
            orpo(t.clone().narrow(0, 0, 1), t.narrow(0, 1, 1), 1.0)
        });
        finite(&format!("orpo at {at:?}"), &found);
    }
    let alphapo = value_and_gradient(tensor(&[-1000.0, -1.0]), |t| {
        alphapo(
            t.clone().narrow(0, 0, 1),
            t.narrow(0, 1, 1),
            0.5,
            2.0,
            0.5,
            0.0,
        )
    });
    finite("alphapo", &alphapo);
}

/// `ln(1 − eˣ)` keeps its digits at both ends: for tiny `x` it is `ln(−x)`, far below it is `−eˣ`.
#[test]
fn log1mexp_is_exact_at_both_ends() {
    let found = numbers(log1mexp(tensor(&[
        -1e-6,
        -10.0,
        -std::f32::consts::LN_2,
        -200.0,
    ])));
    let expected = [
        1e-6f32.ln() - 5e-7,
        -4.540_096e-5,
        -std::f32::consts::LN_2,
        0.0,
    ];
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= 1e-6 * e.abs(),
            "{found:?}, not {expected:?}"
        );
    }
    let (_, gradient) = value_and_gradient(tensor(&[-1e-6, -200.0]), log1mexp);
    assert!(
        (gradient[0] / -1e6 - 1.0).abs() < 1e-5 && gradient[1] == 0.0,
        "{gradient:?}"
    );
}

#[test]
fn single_completions_far_away_are_finite() {
    for (labels, at) in [
        ([true, false], [3000.0, -3000.0]),
        ([true, false], [-3000.0, 3000.0]),
    ] {
        let z = || tensor(&[5.0]);
        finite(
            "kto",
            &value_and_gradient(tensor(&at), |u| {
                kto(u, &labels, z(), 0.5, KtoWeights::default())
            }),
        );
        finite(
            "apo",
            &value_and_gradient(tensor(&at), |u| apo_zero_unpaired(u, &labels, 0.5)),
        );
        finite(
            "bco",
            &value_and_gradient(tensor(&at), |u| bco(u, &labels, 1.0, 0.5)),
        );
    }
    // One-sided batches have a value.
    let found = numbers(kto(
        tensor(&[0.0]),
        &[true],
        tensor(&[0.0]),
        0.1,
        KtoWeights::default(),
    ));
    assert_eq!(found, [0.5]);
    assert_eq!(numbers(kto_kl(tensor(&[-3.0]), tensor(&[-1.0]))), [0.0]);
    assert_eq!(KtoWeights::balanced(0, 7), KtoWeights::default());
}

/// Policy terms at ratios beyond f32, with rows that are masked as a whole.
#[test]
fn policies_far_from_their_samples_are_finite() {
    let logps = Tensor::<2>::from_data([[0.0, -300.0], [-300.0, 0.0], [0.0, -1.0]], &device());
    let old = Tensor::<2>::from_data([[-300.0, 0.0], [0.0, -300.0], [-1.0, -1.0]], &device());
    let mask = Tensor::<2>::from_data([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], &device());
    let advantages = Tensor::<2>::from_data([[1.0], [-1.0], [1.0]], &device());
    for sequence in [false, true] {
        for reduction in [
            Reduction::Grpo,
            Reduction::Bnpo,
            Reduction::DrGrpo {
                max_completion_length: 2,
            },
            Reduction::Dapo { tokens: 4 },
        ] {
            let found = value_and_gradient(logps.clone(), |logps| {
                let mut log_ratios = logps.clone() - old.clone();
                if sequence {
                    log_ratios = sequence_log_ratios(log_ratios, &mask);
                }
                let ratio = importance_ratio(log_ratios);
                let clip = Clip {
                    two_sided: Some(4.0),
                    ..Clip::default()
                };
                let terms = clipped_surrogate(ratio.clone(), advantages.clone(), clip)
                    + sapo(ratio.clone(), advantages.clone(), 1.0, 1.05)
                    + cispo(logps.clone(), ratio, advantages.clone(), 5.0)
                    + k3(logps, old.clone(), None);
                reduction.reduce(terms, &mask)
            });
            finite(&format!("{reduction}, sequence {sequence}"), &found);
            assert_eq!(found.1[4..], [0.0, 0.0], "a masked row has a gradient");
        }
    }
}

#[test]
fn batches_without_tokens_are_zero() {
    let mask = Tensor::<2>::zeros([2, 3], &device());
    let terms = Tensor::<2>::full([2, 3], f32::NAN, &device());
    for reduction in [
        Reduction::Grpo,
        Reduction::Bnpo,
        Reduction::DrGrpo {
            max_completion_length: 3,
        },
        Reduction::Dapo { tokens: 0 },
    ] {
        assert_eq!(
            numbers(reduction.reduce(terms.clone(), &mask)),
            [0.0],
            "{reduction}"
        );
    }
    assert_eq!(
        numbers(top_entropy_mask(terms.clone(), &mask, 0.2)),
        [0.0; 6]
    );
    assert_eq!(numbers(whiten(terms.clone(), &mask, true)), [0.0; 6]);
    assert_eq!(
        numbers(token_rewards(
            tensor(&[1.0, 2.0]),
            terms.clone(),
            &mask,
            0.1
        )),
        [0.0; 6]
    );
    let (advantages, returns) = gae(terms.clone(), terms, &mask, 1.0, 0.95);
    assert_eq!(numbers(advantages), [0.0; 6]);
    assert_eq!(numbers(returns), [0.0; 6]);
}

#[test]
fn rewards_without_spread_give_no_advantage() {
    let equal = [Some(0.3); 4];
    let missing = [Some(1.0), None, None, None];
    for scaling in [Scaling::Group, Scaling::Batch, Scaling::None] {
        assert_eq!(group_advantages(&equal, 4, scaling), [0.0; 4]);
        assert_eq!(group_advantages(&missing, 2, scaling), [0.0; 4]);
        assert_eq!(group_advantages(&[Some(1.0)], 1, scaling), [0.0]);
    }
    assert_eq!(leave_one_out(&equal, 4), [0.0; 4]);
    assert_eq!(leave_one_out(&missing, 2), [0.0; 4]);
}

#[test]
#[should_panic(expected = "5 rewards are not groups of 2")]
fn rewards_are_whole_groups() {
    group_advantages(&[Some(1.0); 5], 2, Scaling::Group);
}

#[test]
#[should_panic(expected = "not finite: give None")]
fn a_reward_that_is_no_number_is_refused() {
    leave_one_out(&[Some(f64::NAN), Some(1.0)], 2);
}

#[test]
fn truncated_rows_are_masked() {
    let mask = Tensor::<2>::from_data([[1.0, 1.0], [1.0, 0.0]], &device());
    assert_eq!(
        numbers(without_truncated(mask, &[true, false])),
        [0.0, 0.0, 1.0, 0.0]
    );
}
