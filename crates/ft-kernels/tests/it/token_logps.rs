use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use ft_kernels::{
    LogitOptions, LossOptions, cross_entropy_sum, portable, score_tokens, token_logps,
    token_logps_and_entropy,
};

use crate::cross_entropy::{assert_slope, fixed, logit_options, nudged};
use crate::{assert_close, device, gradient, weighted_sum};

type Operation = fn(Tensor<2>, Tensor<2>, &[i64], LogitOptions) -> [Tensor<1>; 2];

/// A scalar in which every output of every row has a weight of its own.
fn scalar(outputs: [Tensor<1>; 2]) -> Tensor<1> {
    weighted_sum(Tensor::stack::<2>(outputs.to_vec(), 0))
}

fn run(
    f: Operation,
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &[i64],
    options: LogitOptions,
) -> [TensorData; 4] {
    let [logps, entropy] = f(hidden.clone(), weight.clone(), targets, options);
    let grads = scalar([logps.clone(), entropy.clone()]).backward();
    [
        logps.into_data(),
        entropy.into_data(),
        gradient(hidden, &grads),
        gradient(weight, &grads),
    ]
}

fn assert_all_close(what: &str, found: [TensorData; 4], expected: [TensorData; 4], tolerance: f32) {
    let names = ["logps", "entropy", "by hidden", "by weight"];
    for (name, (f, e)) in names.iter().zip(found.into_iter().zip(expected)) {
        assert_close(&format!("{what}: {name}"), f, e, tolerance);
    }
}

#[test]
fn values_and_gradients() {
    for (rows, width, vocab) in [(1, 1, 1), (1, 3, 2), (5, 4, 7), (67, 33, 1009)] {
        let hidden = fixed(rows, width, 1.3).require_grad();
        let weight = fixed(vocab, width, 0.754_877_666_2).require_grad();
        let targets: Vec<i64> = (0..rows).map(|i| (i * 5 % vocab) as i64).collect();
        for options in logit_options() {
            let [found, expected] = [token_logps_and_entropy, portable::token_logps_and_entropy]
                .map(|f| run(f, &hidden, &weight, &targets, options));
            assert_all_close(&format!("{options:?}"), found, expected, 2e-5);
        }
    }
}

/// What is asked for besides changes nothing.
#[test]
fn without_entropy_the_log_probabilities_are_the_same() {
    let (hidden, weight) = (fixed(5, 4, 1.3).require_grad(), fixed(7, 4, 0.7));
    for options in logit_options() {
        let targets = [6, 0, 3, 3, 1];
        let alone = token_logps(hidden.clone(), weight.clone(), &targets, options);
        let [logps, _] = token_logps_and_entropy(hidden.clone(), weight.clone(), &targets, options);
        assert_close("logps", alone.to_data(), logps.to_data(), 0.0);
        let [alone, both] = [alone, logps].map(|y| gradient(&hidden, &weighted_sum(y).backward()));
        assert_close("gradient", alone, both, 0.0);
    }
}

#[test]
fn their_sum_is_the_loss() {
    let targets = [6, 0, 3, 3, 1];
    for logits in logit_options() {
        let hidden = fixed(5, 4, 1.3).require_grad();
        let weight = fixed(7, 4, 0.7).require_grad();
        let options = LossOptions {
            logits,
            ..Default::default()
        };
        let loss = cross_entropy_sum(hidden.clone(), weight.clone(), &targets, options);
        let logps = token_logps(hidden.clone(), weight.clone(), &targets, logits);
        let [loss, logps] = [loss, -logps.sum()].map(|sum| {
            let grads = sum.backward();
            [
                sum.into_data(),
                gradient(&hidden, &grads),
                gradient(&weight, &grads),
            ]
        });
        for (found, expected) in logps.into_iter().zip(loss) {
            assert_close("sum", found, expected, 1e-5);
        }
    }
}

/// Central differences; numbers in `f32` limit them to about three digits.
#[test]
fn finite_differences_agree() {
    let (hidden, weight) = (fixed(3, 5, 1.3), fixed(11, 5, 0.7));
    let targets = [4, 0, 10];
    for options in logit_options() {
        let value = |hidden: Tensor<2>, weight: Tensor<2>| {
            let outputs = token_logps_and_entropy(hidden, weight, &targets, options);
            f64::from(scalar(outputs).into_scalar::<f32>())
        };
        let [h, w] = [&hidden, &weight].map(|x| x.clone().require_grad());
        let [_, _, by_hidden, by_weight] = run(token_logps_and_entropy, &h, &w, &targets, options);
        let step = 1e-2;
        for place in [0, 7, 14] {
            let [up, down] =
                [step, -step].map(|step| value(nudged(&hidden, place, step), weight.clone()));
            assert_slope("hidden", &by_hidden, place, (up - down) / (2.0 * step));
        }
        for place in [0, 22, 54] {
            let [up, down] =
                [step, -step].map(|step| value(hidden.clone(), nudged(&weight, place, step)));
            assert_slope("weight", &by_weight, place, (up - down) / (2.0 * step));
        }
    }
}

#[test]
fn strided_hidden_states_and_weights() {
    let (rows, width, vocab) = (7, 6, 13);
    let hidden = fixed(width, 2 * rows, 1.3).require_grad();
    let weight = fixed(width, vocab, 0.7).require_grad();
    let targets: Vec<i64> = (0..rows as i64).collect();
    let options = logit_options().pop().expect("some");
    let run = |f: Operation| {
        let part = hidden.clone().transpose().narrow(0, 3, rows);
        let [logps, entropy] = f(part, weight.clone().transpose(), &targets, options);
        let grads = scalar([logps.clone(), entropy.clone()]).backward();
        [
            logps.into_data(),
            entropy.into_data(),
            gradient(&hidden, &grads),
            gradient(&weight, &grads),
        ]
    };
    let expected = run(portable::token_logps_and_entropy);
    assert_all_close("strided", run(token_logps_and_entropy), expected, 1e-5);
}

#[test]
fn threads_change_nothing() {
    let (rows, width, vocab) = (67, 33, 1009);
    let hidden = fixed(rows, width, 1.3).require_grad();
    let weight = fixed(vocab, width, 0.754_877_666_2).require_grad();
    let targets: Vec<i64> = (0..rows as i64).collect();
    let options = logit_options().pop().expect("some");
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool")
            .install(|| run(token_logps_and_entropy, &hidden, &weight, &targets, options))
    };
    assert_all_close("one thread and three", on(3), on(1), 1e-6);
}

#[test]
fn gradients_go_where_they_are_wanted() {
    let (hidden, weight) = (fixed(3, 2, 1.3), fixed(5, 2, 0.7));
    for [by_hidden, by_weight] in [[true, true], [true, false], [false, true]] {
        for f in [token_logps, portable::token_logps] {
            let hidden = hidden.clone().set_require_grad(by_hidden);
            let weight = weight.clone().set_require_grad(by_weight);
            let options = LogitOptions::default();
            let logps = f(hidden.clone(), weight.clone(), &[0, 4, 2], options);
            let grads = weighted_sum(logps).backward();
            assert_eq!(hidden.grad(&grads).is_some(), by_hidden);
            assert_eq!(weight.grad(&grads).is_some(), by_weight);
        }
    }
}

/// A tied head: the hidden states come from rows of the weight, which then has two gradients.
#[test]
fn a_weight_that_is_also_the_input_gets_the_sum_of_both_gradients() {
    let device = device();
    let embedding = fixed(7, 4, 0.7).require_grad();
    let ids = Tensor::<1, Int>::from_data([2, 5, 2], &device);
    let [found, expected] = [token_logps, portable::token_logps].map(|f| {
        let hidden = embedding.clone().select(0, ids.clone()).tanh();
        let logps = f(
            hidden,
            embedding.clone(),
            &[5, 2, 0],
            LogitOptions::default(),
        );
        gradient(&embedding, &weighted_sum(logps).backward())
    });
    assert_close("embedding", found, expected, 1e-5);
}

/// As a reference model is run.
#[test]
fn without_a_graph_the_values_are_the_same() {
    let device = Device::default();
    let targets = [6, 0, 3];
    let (hidden, weight) = (fixed(3, 4, 1.3), fixed(7, 4, 0.7));
    for f in [token_logps_and_entropy, portable::token_logps_and_entropy] {
        let plain = |x: &Tensor<2>| Tensor::<2>::from_data(x.to_data(), &device);
        let options = LogitOptions::default();
        let values = f(plain(&hidden), plain(&weight), &targets, options);
        let expected = f(
            hidden.clone().require_grad(),
            weight.clone(),
            &targets,
            options,
        );
        for (found, expected) in values.into_iter().zip(expected) {
            assert_close("values", found.into_data(), expected.into_data(), 0.0);
        }
    }
}

/// A gradient from above that is zero for a row leaves nothing of that row.
#[test]
fn rows_that_do_not_matter_get_zeros() {
    let device = device();
    let hidden = fixed(3, 4, 1.3).require_grad();
    let weight = fixed(7, 4, 0.7);
    let logps = token_logps(hidden.clone(), weight, &[6, 0, 3], LogitOptions::default());
    let only_last = Tensor::<1>::zeros([3], &device).select_assign(
        0,
        Tensor::<1, Int>::from_data([2], &device),
        Tensor::ones([1], &device),
        IndexingUpdateOp::Add,
    );
    let found = gradient(&hidden, &(logps * only_last).sum().backward());
    let numbers = found.as_slice::<f32>().expect("f32");
    assert!(numbers[..8].iter().all(|x| *x == 0.0), "{numbers:?}");
    assert!(numbers[8..].iter().all(|x| *x != 0.0), "{numbers:?}");
}

/// Logits of ±10⁴ and 0: the first row is certain of its target, the second of another token.
#[test]
fn extreme_logits_stay_finite() {
    let device = device();
    for f in [token_logps_and_entropy, portable::token_logps_and_entropy] {
        for (softcap, second) in [(None, -20_000.0), (Some(20.0), -40.0)] {
            let hidden = Tensor::<2>::from_data([[1e4], [-1e4]], &device).require_grad();
            let weight = Tensor::<2>::from_data([[1.0], [-1.0], [0.0]], &device).require_grad();
            let options = LogitOptions {
                scale: 1.0,
                softcap,
            };
            let [logps, entropy, by_hidden, by_weight] = run(f, &hidden, &weight, &[0, 0], options);
            assert_close("logps", logps, TensorData::from([0.0, second as f32]), 1e-6);
            assert_close("entropy", entropy, TensorData::from([0.0f32, 0.0]), 1e-6);
            for gradient in [by_hidden, by_weight] {
                let numbers = gradient.try_to_vec::<f32>().expect("f32");
                assert!(numbers.iter().all(|x| x.is_finite()), "{numbers:?}");
            }
        }
    }
}

/// Logits of 10000 and 10000 + 625/1024, both exact: the probabilities are those of the difference, of
/// which a sum of exponentials of size e¹⁰⁰⁰⁰ would keep three digits.
#[test]
fn large_logits_that_are_close_keep_their_difference() {
    let device = device();
    let difference = 625.0 / 1024.0;
    let p = 1.0 / (1.0 + f64::exp(difference));
    for f in [token_logps_and_entropy, portable::token_logps_and_entropy] {
        let hidden = Tensor::<2>::from_data([[1e4]], &device);
        let weight = Tensor::<2>::from_data([[1.0], [1.0 + 1.0 / 16384.0]], &device);
        let weight = weight.require_grad();
        let [logps, entropy] = f(hidden, weight.clone(), &[0], LogitOptions::default());
        let expected = -(p * p.ln() + (1.0 - p) * (1.0 - p).ln());
        let expected = TensorData::from([expected as f32]);
        assert_close("entropy", entropy.into_data(), expected, 1e-6);
        let slopes = gradient(&weight, &logps.backward());
        let slope = (1e4 * (1.0 - p)) as f32;
        assert_close(
            "slopes",
            slopes,
            TensorData::from([[slope], [-slope]]),
            1e-6,
        );
    }
}

/// Four equal logits: `ln p = −ln 4`, and the entropy is its greatest, `ln 4`, with slope 0.
#[test]
fn of_equal_logits_the_entropy_is_the_logarithm_of_their_number() {
    let device = device();
    let hidden = Tensor::<2>::from_data([[0.0, 0.0]], &device).require_grad();
    let [logps, entropy] = token_logps_and_entropy(
        hidden.clone(),
        fixed(4, 2, 0.7),
        &[2],
        LogitOptions::default(),
    );
    let ln4 = 4f32.ln();
    assert_close("logp", logps.into_data(), TensorData::from([-ln4]), 1e-6);
    assert_close("entropy", entropy.to_data(), TensorData::from([ln4]), 1e-6);
    let slope = gradient(&hidden, &entropy.backward());
    assert_close("slope", slope, TensorData::from([[0.0f32, 0.0]]), 1e-6);
}

#[test]
#[should_panic(expected = "label -1 is not in the vocabulary of 7 tokens")]
fn a_target_outside_the_vocabulary() {
    let (hidden, weight) = (fixed(1, 2, 1.3), fixed(7, 2, 0.7));
    token_logps(hidden, weight, &[-1], LogitOptions::default());
}

#[test]
#[should_panic(expected = "a loss of no rows")]
fn no_rows() {
    let hidden = Tensor::zeros([0, 2], &device());
    token_logps(hidden, fixed(7, 2, 0.7), &[], LogitOptions::default());
}

#[test]
fn scores_are_the_log_probabilities_and_mark_the_most_likely_token() {
    for (rows, width, vocab) in [(1, 1, 1), (5, 4, 7), (67, 33, 1009)] {
        let hidden = fixed(rows, width, 1.3);
        let weight = fixed(vocab, width, 0.754_877_666_2);
        for options in logit_options() {
            let logits = options.apply(hidden.clone().matmul(weight.clone().transpose()));
            let best = logits.argmax(1).into_data().convert::<i64>();
            let best = best.try_to_vec::<i64>().expect("i64");
            // Every second target is the first choice.
            let targets: Vec<i64> = (best.iter().enumerate())
                .map(|(i, best)| {
                    if i % 2 == 0 {
                        *best
                    } else {
                        (best + 1) % vocab as i64
                    }
                })
                .collect();
            let logps = token_logps(hidden.clone(), weight.clone(), &targets, options);
            let logps = logps.into_data().try_to_vec::<f32>().expect("f32");
            for f in [score_tokens, portable::score_tokens] {
                let scores = f(hidden.clone(), weight.clone(), &targets, options);
                assert_eq!(scores.len(), rows);
                for (i, score) in scores.iter().enumerate() {
                    assert!(
                        (score.logp - logps[i]).abs() <= 2e-5 * logps[i].abs().max(1.0),
                        "{i}"
                    );
                    assert_eq!(score.is_greedy, best[i] == targets[i], "{i}");
                }
            }
        }
    }
}
