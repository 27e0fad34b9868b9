//! Laws that losses obey: gradients are slopes, symmetries, and members of a family that coincide.

use burn::tensor::Tensor;
use ft_align::loss::*;

use super::{device, numbers, tensor, value_and_gradient};

/// Log-probabilities of four pairs with their tokens' numbers: chosen, then rejected.
const POLICY: [f32; 8] = [-7.0, -3.0, -4.5, -9.0, -6.0, -3.5, -8.0, -5.0];
const REFERENCE: [f32; 8] = [-7.5, -2.0, -5.1, -9.9, -5.0, -3.0, -6.7, -7.0];

fn pairs(policy: Tensor<1>) -> PairLogps {
    let reference = tensor(&REFERENCE);
    let half = |t: &Tensor<1>, i: usize| t.clone().narrow(0, 4 * i, 4);
    PairLogps {
        chosen: half(&policy, 0),
        rejected: half(&policy, 1),
        ref_chosen: half(&reference, 0),
        ref_rejected: half(&reference, 1),
        chosen_tokens: tensor(&[3.0, 2.0, 4.0, 5.0]),
        rejected_tokens: tensor(&[2.0, 2.0, 6.0, 1.0]),
        chosen_nll: -half(&policy, 0),
        weights: None,
    }
}

fn settings() -> PairSettings {
    PairSettings {
        beta: 0.4,
        label_smoothing: 0.1,
        ..PairSettings::default()
    }
}

/// Compares the gradient of a sum with central differences.
fn gradient_is_the_slope(name: &str, at: &[f32], f: impl Fn(Tensor<1>) -> Tensor<1>) {
    let (_, gradient) = value_and_gradient(tensor(at), &f);
    let step = 1e-2f32;
    for i in 0..at.len() {
        let sum = |by: f32| {
            let mut moved = at.to_vec();
            moved[i] += by;
            numbers(f(tensor(&moved)))
                .iter()
                .map(|&x| f64::from(x))
                .sum::<f64>()
        };
        let slope = (sum(step) - sum(-step)) / f64::from(2.0 * step);
        let difference = (slope - f64::from(gradient[i])).abs();
        assert!(
            difference <= 2e-3 * (1.0 + slope.abs()),
            "{name}, number {i}: gradient {}, slope {slope}",
            gradient[i]
        );
    }
}

#[test]
fn gradients_are_slopes() {
    for loss in PairLoss::ALL {
        gradient_is_the_slope(loss.name(), &POLICY, |policy| {
            loss.compute(&pairs(policy), &settings())
        });
    }
    for divergence in ["forward_kl", "js_divergence", "alpha_divergence:0.3"] {
        let divergence: FDivergence = divergence.parse().unwrap();
        let at = [-1.5, -0.2, 0.0, 0.7, 2.0];
        gradient_is_the_slope(&divergence.to_string(), &at, |u| divergence.scores(u));
    }
    let halves = |t: Tensor<1>| (t.clone().narrow(0, 0, 3), t.narrow(0, 3, 3));
    let means = [-0.4, -1.0, -2.0, -0.9, -0.6, -3.0];
    gradient_is_the_slope("orpo", &means, |t| {
        let (chosen, rejected) = halves(t);
        orpo(chosen, rejected, 0.5)
    });
    gradient_is_the_slope("alphapo", &means, |t| {
        let (chosen, rejected) = halves(t);
        alphapo(chosen, rejected, 0.25, 2.0, 0.5, 0.1)
    });
    let desirable = [true, false, true, false, true, false];
    gradient_is_the_slope("kto", &means, |t| {
        kto(
            t,
            &desirable,
            tensor(&[0.3]),
            0.5,
            KtoWeights::balanced(2, 3),
        )
    });
    gradient_is_the_slope("bco", &means, |t| bco(t, &desirable, 0.2, 0.5));
    gradient_is_the_slope("bradley_terry", &means, |t| {
        let (chosen, rejected) = halves(t);
        bradley_terry(chosen, rejected, Some(tensor(&[0.1, 0.0, 1.0])), 0.05)
    });
    gradient_is_the_slope("log1mexp", &[-0.5, -0.69, -0.7, -3.0], log1mexp);
    // Away from the bounds 0.8, 1.2 and 2, where the slope jumps.
    let (ratio, advantages) = (
        [0.5, 0.9, 1.1, 1.5, 2.5, 2.5],
        [1.0, -2.0, 0.5, 1.0, -1.0, 1.0],
    );
    gradient_is_the_slope("clipped_surrogate", &ratio, |r| {
        let clip = Clip {
            two_sided: Some(2.0),
            ..Clip::default()
        };
        clipped_surrogate(r, tensor(&advantages), clip)
    });
    gradient_is_the_slope("sapo", &ratio, |r| {
        let advantages = tensor(&advantages).unsqueeze_dim(1);
        sapo(r.unsqueeze_dim(1), advantages, 1.0, 1.05).squeeze_dim(1)
    });
    gradient_is_the_slope("k3", &means, |t| {
        let reference = tensor(&[-0.5, -0.5, -2.0, -1.0, -0.1, -3.3]).unsqueeze_dim(1);
        let logps: Tensor<2> = t.unsqueeze_dim(1);
        let ratio = importance_ratio(logps.clone() + 1.0);
        k3(logps, reference, Some(ratio)).squeeze_dim(1)
    });
    gradient_is_the_slope("clipped_value_loss", &means, |t| {
        let (old, returns) = (
            [-0.5, -1.5, -2.0, -0.7, 0.0, -3.0],
            [0.0, 1.0, -4.0, 2.0, -1.0, 1.0],
        );
        let column = |x: &[f32]| tensor(x).unsqueeze_dim::<2>(1);
        clipped_value_loss(t.unsqueeze_dim(1), column(&old), column(&returns), 0.2).squeeze_dim(1)
    });
}

/// What differs between chosen and rejected is all that these losses see.
#[test]
fn a_shift_of_both_log_ratios_changes_nothing() {
    let shifted: Vec<f32> = POLICY.iter().map(|x| x + 1.5).collect();
    for loss in [
        "sigmoid",
        "hinge",
        "exo_pair",
        "robust",
        "aot",
        "aot_unpaired",
        "discopop",
    ] {
        let loss: PairLoss = loss.parse().unwrap();
        let at = |policy: &[f32]| numbers(loss.compute(&pairs(tensor(policy)), &settings()));
        close(loss.name(), &at(&POLICY), &at(&shifted));
    }
    let (chosen, rejected) = (tensor(&[0.5, -1.0]), tensor(&[0.0, 2.0]));
    let shifted = (chosen.clone() + 3.0, rejected.clone() + 3.0);
    let at = |(c, r)| numbers(bradley_terry(c, r, None, 0.0));
    close("bradley_terry", &at((chosen, rejected)), &at(shifted));
}

/// Absolute rewards matter to these.
#[test]
fn a_shift_of_both_log_ratios_changes_losses_of_rewards() {
    let shifted: Vec<f32> = POLICY.iter().map(|x| x + 2.3).collect();
    for loss in [
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "apo_zero",
        "apo_down",
        "sft",
    ] {
        let loss: PairLoss = loss.parse().unwrap();
        let at = |policy: &[f32]| numbers(loss.compute(&pairs(tensor(policy)), &settings()));
        let (a, b) = (at(&POLICY), at(&shifted));
        assert!(
            a.iter().zip(&b).all(|(a, b)| (a - b).abs() > 1e-3),
            "{loss}: {a:?} {b:?}"
        );
    }
}

#[test]
fn exchanged_labels_exchange_the_smoothing() {
    let (chosen, rejected) = (tensor(&[1.0, -2.0]), tensor(&[0.5, 3.0]));
    let one = dpo(chosen.clone(), rejected.clone(), 0.7, 0.3);
    let other = dpo(rejected, chosen, 0.7, 0.7);
    close("dpo", &numbers(one), &numbers(other));
}

/// The expectation of the robust loss over labels swapped with probability ε is the loss of clean labels.
#[test]
fn the_robust_loss_is_unbiased() {
    let (chosen, rejected) = (tensor(&[1.0, -2.0]), tensor(&[0.5, 3.0]));
    let kept = robust_dpo(chosen.clone(), rejected.clone(), 0.7, 0.2);
    let swapped = robust_dpo(rejected.clone(), chosen.clone(), 0.7, 0.2);
    let clean = dpo(chosen, rejected, 0.7, 0.0);
    close(
        "robust",
        &numbers(kept * 0.8 + swapped * 0.2),
        &numbers(clean),
    );
}

#[test]
fn special_cases_of_a_family_coincide() {
    let u = || tensor(&[-2.0, -0.1, 0.0, 0.3, 4.0]);
    let score = |d: FDivergence| numbers(d.scores(u()));
    close(
        "alpha 0",
        &score(FDivergence::Alpha(0.0)),
        &score(FDivergence::ForwardKl),
    );
    close(
        "alpha 1",
        &score(FDivergence::Alpha(1.0)),
        &score(FDivergence::ReverseKl),
    );

    let (chosen, rejected) = (|| tensor(&[-0.4, -2.0]), || tensor(&[-0.9, -0.6]));
    let plain = simpo(chosen(), rejected(), 2.0, 0.5, 0.0);
    let shaped = alphapo(chosen(), rejected(), 0.0, 2.0, 0.5, 0.0);
    close("alphapo", &numbers(shaped), &numbers(plain));

    // One pair has no order to lose.
    let single = |f: fn(Tensor<1>, Tensor<1>, f64, f64) -> Tensor<1>| {
        numbers(f(tensor(&[1.5]), tensor(&[-0.5]), 0.3, 0.1))
    };
    close("aot", &single(aot), &single(dpo));

    // KTO without a reference point is APO-zero, and APO-zero of pairs is the sum over its completions.
    let labels = [true, false];
    let both = || tensor(&[1.5, -0.5]);
    let unpaired = apo_zero_unpaired(both(), &labels, 0.3);
    let kto = kto(both(), &labels, tensor(&[0.0]), 0.3, KtoWeights::default());
    close("kto", &numbers(kto), &numbers(unpaired.clone()));
    let paired = apo_zero(tensor(&[1.5]), tensor(&[-0.5]), 0.3);
    close("apo_zero", &numbers(paired), &numbers(unpaired.sum()));
    // So is BCO without a shift.
    let unpaired = bco(both(), &labels, 0.0, 0.3).sum();
    let paired = bco_pair(tensor(&[1.5]), tensor(&[-0.5]), 0.3);
    close("bco", &numbers(paired), &numbers(unpaired));
}

/// A mixture is the weighted sum, and pairs of weight 0 have no gradient.
#[test]
fn mixtures_are_sums() {
    let settings = settings();
    let losses: PairLosses = "sigmoid:0.8,bco_pair:0.2,sft".parse().unwrap();
    let alone = |name: &str| {
        name.parse::<PairLoss>()
            .unwrap()
            .compute(&pairs(tensor(&POLICY)), &settings)
    };
    let sum = alone("sigmoid") * 0.8 + alone("bco_pair") * 0.2 + alone("sft");
    let found = losses.compute(&pairs(tensor(&POLICY)), &settings);
    close("mixture", &numbers(found), &numbers(sum));
    let (_, gradient) = value_and_gradient(tensor(&POLICY), |policy| {
        let mut pairs = pairs(policy);
        pairs.weights = Some(tensor(&[1.0, 0.0, 1.0, 0.0]));
        PairLosses::from(PairLoss::Sigmoid).compute(&pairs, &settings)
    });
    assert!(
        [1, 3, 5, 7].iter().all(|&i| gradient[i] == 0.0),
        "{gradient:?}"
    );
    assert!(
        [0, 2, 4, 6].iter().all(|&i| gradient[i] != 0.0),
        "{gradient:?}"
    );
}

/// On rows of equal length all reductions are the same mean.
#[test]
fn reductions_agree_on_equal_rows() {
    let terms: Tensor<2> = Tensor::from_data([[1.0, 2.0], [5.0, -1.0], [0.5, 0.5]], &device());
    let mask = Tensor::ones_like(&terms);
    let mean = numbers(terms.clone().mean());
    for reduction in [
        Reduction::Grpo,
        Reduction::Bnpo,
        Reduction::DrGrpo {
            max_completion_length: 2,
        },
        Reduction::Dapo { tokens: 6 },
    ] {
        close(
            &reduction.to_string(),
            &numbers(reduction.reduce(terms.clone(), &mask)),
            &mean,
        );
    }
    // On unequal ones a row counts equally, or a token.
    let mask: Tensor<2> = Tensor::from_data([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]], &device());
    let reduce = |r: Reduction| numbers(r.reduce(terms.clone(), &mask))[0];
    assert!((reduce(Reduction::Grpo) - (1.5 + 5.0 + 0.5) / 3.0).abs() < 1e-6);
    assert!((reduce(Reduction::Bnpo) - 8.5 / 4.0).abs() < 1e-6);
}

/// With γ = λ = 1 the return is the sum of the rewards to come; with λ = 0 the advantage is the one-step error.
#[test]
fn gae_spans_from_one_step_to_all() {
    let row = |x: [f32; 3]| Tensor::<2>::from_data([x], &device());
    let mask = row([1.0, 1.0, 1.0]);
    let (rewards, values) = (|| row([1.0, 0.0, 2.0]), || row([0.5, -1.0, 3.0]));
    let (_, returns) = gae(rewards(), values(), &mask, 1.0, 1.0);
    close("returns", &numbers(returns), &[3.0, 2.0, 2.0]);
    let (advantages, _) = gae(rewards(), values(), &mask, 0.5, 0.0);
    close("advantages", &numbers(advantages), &[0.0, 2.5, -1.0]);
}

#[test]
fn whitened_numbers_have_mean_0_and_variance_1() {
    let values: Tensor<2> = Tensor::from_data([[1.0, 2.0, 99.0], [4.0, 9.0, 99.0]], &device());
    let mask: Tensor<2> = Tensor::from_data([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]], &device());
    let found = numbers(whiten(values.clone(), &mask, false));
    let sum: f32 = found.iter().sum();
    let squares: f32 = found.iter().map(|x| x * x).sum();
    assert!(
        sum.abs() < 1e-5 && (squares / 3.0 - 1.0).abs() < 1e-5,
        "{found:?}"
    );
    let kept = numbers(whiten(values, &mask, true));
    assert!(
        (kept.iter().sum::<f32>() / 4.0 - 4.0).abs() < 1e-5,
        "{kept:?}"
    );
}

/// The gradient of CISPO is that of the policy gradient with a bounded weight, for every token.
#[test]
fn cispo_loses_no_token() {
    let ratio: Tensor<2> = Tensor::from_data([[0.5, 1.0, 9.0]], &device());
    let advantages: Tensor<2> = Tensor::from_data([[2.0]], &device());
    let logps: Tensor<2> = Tensor::from_data([[-1.0, -2.0, -3.0]], &device());
    let (_, gradient) = value_and_gradient(logps, |logps| {
        cispo(logps, ratio.clone(), advantages.clone(), 5.0)
    });
    close("gradient", &gradient, &[-1.0, -2.0, -10.0]);
}

/// The corrected estimate has the gradient of the reverse KL on the policy's own samples: that of `lp − ref`, weighted.
#[test]
fn the_correction_gives_the_gradient_of_the_reverse_kl() {
    // Over all tokens of a vocabulary of two, weighted by the policy itself, the estimate is exact.
    let logits = tensor(&[0.3, -0.4]);
    let reference = [0.7f32, 0.3];
    let policy = |x: Tensor<1>| burn::tensor::activation::log_softmax(x, 0);
    let ref_logps = || tensor(&reference.map(f32::ln)).unsqueeze_dim::<2>(1);
    let (_, exact) = value_and_gradient(logits.clone(), |x| {
        let lp = policy(x);
        lp.clone().exp() * (lp - tensor(&reference.map(f32::ln)))
    });
    let (_, estimated) = value_and_gradient(logits, |x| {
        let lp: Tensor<2> = policy(x).unsqueeze_dim(1);
        let ratio = importance_ratio(lp.clone() - lp.clone().detach());
        k3(lp.clone(), ref_logps(), Some(ratio)) * lp.detach().exp()
    });
    close("gradient", &estimated, &exact);
}

fn close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= 1e-5 * (1.0 + e.abs()),
            "{what}: {found:?}, not {expected:?}"
        );
    }
}
