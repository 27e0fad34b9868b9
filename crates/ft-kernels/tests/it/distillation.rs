//! Divergences of two heads: against Burn's operations and autodiff on whole logits, and laws.

use burn::tensor::{DType, Int, Tensor, TensorData, activation};
use ft_kernels::{
    DistillationOptions, Distilled, Divergence, LogitOptions, Teacher, distillation_sum, portable,
};

use crate::cross_entropy::fixed;
use crate::{assert_close, device, gradient, on_the_cpu};

const DIVERGENCES: [Divergence; 4] = [
    Divergence::Forward,
    Divergence::Reverse,
    Divergence::JensenShannon(0.5),
    Divergence::JensenShannon(0.1),
];

type Operation = fn(Tensor<2>, Tensor<2>, &Teacher, &[i64], DistillationOptions) -> Distilled;

const BOTH: [Operation; 2] = [distillation_sum::<Tensor<2>>, portable::distillation_sum];

fn all_options() -> Vec<DistillationOptions> {
    let mut all = Vec::new();
    for divergence in DIVERGENCES {
        for temperature in [0.5, 1.0, 3.0] {
            for alpha in [0.0, 0.4, 1.0] {
                let logits = LogitOptions {
                    scale: 0.7,
                    softcap: (alpha == 0.4).then_some(2.5),
                };
                all.push(DistillationOptions {
                    divergence,
                    temperature,
                    alpha,
                    logits,
                });
            }
        }
    }
    all
}

/// The formula on whole logits.
fn formula(
    logits: &Tensor<2>,
    teacher: &Tensor<2>,
    targets: &[i64],
    options: DistillationOptions,
) -> [Tensor<1>; 3] {
    let t = options.temperature;
    let lq = activation::log_softmax(logits.clone() / t, 1);
    let lp = activation::log_softmax(teacher.clone() / t, 1);
    let divergence = of(options.divergence, lp, lq).sum();
    let targets = Tensor::<1, Int>::from_data(targets, &device()).unsqueeze_dim::<2>(1);
    let cross_entropy = -activation::log_softmax(logits.clone(), 1)
        .gather(1, targets)
        .sum();
    let loss = divergence.clone() * (options.alpha * t * t)
        + cross_entropy.clone() * (1.0 - options.alpha);
    [loss, divergence, cross_entropy]
}

fn of(kind: Divergence, lp: Tensor<2>, lq: Tensor<2>) -> Tensor<2> {
    let kl = |a: &Tensor<2>, b: &Tensor<2>| a.clone().exp() * (a.clone() - b.clone());
    match kind {
        Divergence::Forward => kl(&lp, &lq),
        Divergence::Reverse => kl(&lq, &lp),
        Divergence::JensenShannon(beta) => {
            let lm = (lp.clone().exp() * beta + lq.clone().exp() * (1.0 - beta)).log();
            kl(&lp, &lm) * beta + kl(&lq, &lm) * (1.0 - beta)
        }
    }
}

fn check(found: [TensorData; 5], expected: [TensorData; 5], what: &str) {
    for (found, expected) in found.into_iter().zip(expected) {
        assert_close(what, found, expected, 2e-5);
    }
}

#[test]
fn losses_and_gradients_are_those_of_the_formula() {
    let mut sizes = vec![(1, 2, 3), (7, 5, 11)];
    // All options take minutes in this size on other devices.
    if on_the_cpu("only small sizes are compared") {
        sizes.push((67, 33, 1009));
    }
    for (rows, width, vocab) in sizes {
        let hidden = fixed(rows, width, 1.3).require_grad();
        let weight = fixed(vocab, width, 0.7).require_grad();
        let (of_teacher, head) = (fixed(rows, width + 2, 0.9), fixed(vocab, width + 2, 1.7));
        let own = LogitOptions {
            scale: 0.8,
            softcap: Some(3.0),
        };
        let targets: Vec<i64> = (0..rows).map(|row| (row * 37 % vocab) as i64).collect();
        let teacher = Teacher::Head {
            hidden: of_teacher.clone(),
            weight: head.clone().into(),
            logits: own,
        };
        let logits_of_teacher = own.apply(of_teacher.matmul(head.transpose()));
        for options in all_options() {
            let logits = hidden.clone().matmul(weight.clone().transpose());
            let logits = options.logits.apply(logits);
            let [loss, divergence, cross_entropy] =
                formula(&logits, &logits_of_teacher, &targets, options);
            let grads = (loss.clone() * 1.5).backward();
            let expected = [
                loss.into_data(),
                divergence.into_data(),
                cross_entropy.into_data(),
                gradient(&hidden, &grads),
                gradient(&weight, &grads),
            ];
            let alike = (logits_of_teacher.clone().argmax(1)).equal(logits.argmax(1));
            let alike = alike.float().sum().into_data();
            for operation in BOTH {
                let found = operation(hidden.clone(), weight.clone(), &teacher, &targets, options);
                let grads = (found.loss.clone() * 1.5).backward();
                let numbers = [
                    found.loss.into_data(),
                    found.divergence.into_data(),
                    found.cross_entropy.into_data(),
                    gradient(&hidden, &grads),
                    gradient(&weight, &grads),
                ];
                check(numbers, expected.clone(), &format!("{options:?}"));
                assert_eq!(found.agreement.into_data(), alike);
            }
        }
    }
}

/// The likeliest tokens, and the rest as one outcome, against autodiff on these outcomes.
#[test]
fn the_likeliest_tokens_and_the_rest_are_the_outcomes() {
    let (rows, width, vocab, k) = (9, 6, 23, 4);
    let hidden = fixed(rows, width, 1.3).require_grad();
    let weight = fixed(vocab, width, 0.7).require_grad();
    let logits_of_teacher = fixed(rows, vocab, 0.9) * 2.0;
    let targets: Vec<i64> = (0..rows).map(|row| (row * 7 % vocab) as i64).collect();
    for options in all_options() {
        let t = options.temperature;
        let lp = activation::log_softmax(logits_of_teacher.clone() / t, 1);
        let (logps, tokens) = lp.topk_with_indices(k, 1);
        let teacher = Teacher::Top {
            k,
            tokens: tokens.to_data().iter::<i64>().collect(),
            logps: logps.to_data().iter::<f32>().collect(),
        };
        let logits = hidden.clone().matmul(weight.clone().transpose());
        let logits = options.logits.apply(logits);
        let with_rest = |listed: Tensor<2>| {
            let rest = (-listed.clone().exp().sum_dim(1) + 1.0).log();
            Tensor::cat(vec![listed, rest], 1)
        };
        let lq = activation::log_softmax(logits.clone() / t, 1).gather(1, tokens.clone());
        let divergence = of(options.divergence, with_rest(logps), with_rest(lq)).sum();
        let index =
            Tensor::<1, Int>::from_data(targets.as_slice(), &device()).unsqueeze_dim::<2>(1);
        let cross_entropy = -activation::log_softmax(logits, 1).gather(1, index).sum();
        let loss = divergence.clone() * (options.alpha * t * t)
            + cross_entropy.clone() * (1.0 - options.alpha);
        let grads = loss.backward();
        let expected = [
            loss.into_data(),
            divergence.into_data(),
            cross_entropy.into_data(),
            gradient(&hidden, &grads),
            gradient(&weight, &grads),
        ];
        for operation in BOTH {
            let found = operation(hidden.clone(), weight.clone(), &teacher, &targets, options);
            let grads = found.loss.backward();
            let numbers = [
                found.loss.into_data(),
                found.divergence.into_data(),
                found.cross_entropy.into_data(),
                gradient(&hidden, &grads),
                gradient(&weight, &grads),
            ];
            check(numbers, expected.clone(), &format!("{options:?}"));
        }
    }
}

#[test]
fn equal_heads_have_no_divergence_and_no_gradient() {
    let (hidden, weight) = (fixed(5, 4, 1.3), fixed(9, 4, 0.7));
    let teacher = Teacher::Head {
        hidden: hidden.clone(),
        weight: weight.clone().cast(DType::F16).into(),
        logits: LogitOptions::default(),
    };
    let weight = weight.cast(DType::F16).cast(DType::F32);
    let (hidden, weight) = (hidden.require_grad(), weight.require_grad());
    for divergence in DIVERGENCES {
        let options = DistillationOptions {
            divergence,
            temperature: 2.0,
            ..DistillationOptions::default()
        };
        let found = distillation_sum(hidden.clone(), weight.clone(), &teacher, &[0; 5], options);
        let grads = found.loss.backward();
        assert!(found.divergence.into_scalar::<f32>().abs() < 1e-5);
        assert_eq!(found.agreement.into_scalar::<f32>(), 5.0);
        let largest = gradient(&weight, &grads);
        assert!(largest.iter::<f32>().all(|g| g.abs() < 1e-5));
    }
}
