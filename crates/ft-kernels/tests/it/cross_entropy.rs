use burn::tensor::{Tensor, TensorData};
use ft_kernels::{LogitOptions, LossOptions, cross_entropy_sum, portable};

use crate::{assert_close, device, gradient, leaf};

type Operation = fn(Tensor<2>, Tensor<2>, &[i64], LossOptions) -> Tensor<1>;

/// Every option alone, and all of them.
pub(crate) fn loss_options() -> Vec<LossOptions> {
    let mut all = Vec::new();
    for label_smoothing in [0.0, 0.15] {
        for logits in logit_options() {
            all.push(LossOptions {
                label_smoothing,
                logits,
            });
        }
    }
    all
}

pub(crate) fn logit_options() -> Vec<LogitOptions> {
    let mut all = Vec::new();
    for scale in [1.0, 0.3] {
        for softcap in [None, Some(2.5)] {
            all.push(LogitOptions { scale, softcap });
        }
    }
    all
}

/// Numbers of a formula, between −2 and 2, which no other test can change.
pub(crate) fn fixed(rows: usize, columns: usize, step: f64) -> Tensor<2> {
    let numbers: Vec<f32> = (0..rows * columns)
        .map(|i| (2.0 * (step * (i + 1) as f64).sin()) as f32)
        .collect();
    Tensor::from_data(TensorData::new(numbers, [rows, columns]), &device())
}

fn run(
    f: Operation,
    hidden: &Tensor<2>,
    weight: &Tensor<2>,
    targets: &[i64],
    options: LossOptions,
) -> [TensorData; 3] {
    let loss = f(hidden.clone(), weight.clone(), targets, options);
    // A factor after the loss must reach the gradients, which were computed before it.
    let grads = (loss.clone() * 1.5).backward();
    [
        loss.into_data(),
        gradient(hidden, &grads),
        gradient(weight, &grads),
    ]
}

#[test]
fn loss_and_both_gradients() {
    for (rows, width, vocab) in [(1, 1, 1), (1, 3, 2), (5, 4, 7), (67, 33, 1009)] {
        let hidden = fixed(rows, width, 1.3).require_grad();
        let weight = fixed(vocab, width, 0.754_877_666_2).require_grad();
        let targets: Vec<i64> = (0..rows).map(|i| (i * 5 % vocab) as i64).collect();
        for options in loss_options() {
            let found = run(cross_entropy_sum, &hidden, &weight, &targets, options);
            let expected = run(
                portable::cross_entropy_sum,
                &hidden,
                &weight,
                &targets,
                options,
            );
            for (f, e) in found.into_iter().zip(expected) {
                assert_close(&format!("{options:?}"), f, e, 1e-5);
            }
        }
    }
}

/// Central differences; the loss in `f32` limits them to about three digits.
#[test]
fn finite_differences_agree() {
    let (rows, width, vocab) = (3, 5, 11);
    let (hidden, weight) = (fixed(rows, width, 1.3), fixed(vocab, width, 0.7));
    let targets = [4, 0, 10];
    for options in loss_options() {
        let loss = |hidden: Tensor<2>, weight: Tensor<2>| {
            cross_entropy_sum(hidden, weight, &targets, options)
        };
        let (h, w) = (hidden.clone().require_grad(), weight.clone().require_grad());
        let grads = loss(h.clone(), w.clone()).backward();
        let (of_hidden, of_weight) = (gradient(&h, &grads), gradient(&w, &grads));
        let value = |h: Tensor<2>, w: Tensor<2>| f64::from(loss(h, w).into_scalar::<f32>());
        let step = 1e-2;
        for place in [0, 7, 14] {
            let slope = (value(nudged(&hidden, place, step), weight.clone())
                - value(nudged(&hidden, place, -step), weight.clone()))
                / (2.0 * step);
            assert_slope("hidden", &of_hidden, place, slope);
        }
        for place in [0, 22, 54] {
            let slope = (value(hidden.clone(), nudged(&weight, place, step))
                - value(hidden.clone(), nudged(&weight, place, -step)))
                / (2.0 * step);
            assert_slope("weight", &of_weight, place, slope);
        }
    }
}

/// `x` with one number moved.
pub(crate) fn nudged(x: &Tensor<2>, place: usize, step: f64) -> Tensor<2> {
    let mut numbers = x.to_data().try_to_vec::<f32>().expect("f32");
    numbers[place] += step as f32;
    Tensor::from_data(TensorData::new(numbers, x.dims()), &x.device())
}

pub(crate) fn assert_slope(what: &str, gradient: &TensorData, place: usize, expected: f64) {
    let found = f64::from(gradient.as_slice::<f32>().expect("f32")[place]);
    assert!(
        (found - expected).abs() < 2e-3 * expected.abs().max(1.0),
        "{what}: {found} at {place}, differences give {expected}"
    );
}

#[test]
fn strided_hidden_states_and_weights() {
    let (rows, width, vocab) = (7, 6, 13);
    let hidden = fixed(width, 2 * rows, 1.3).require_grad();
    let weight = fixed(width, vocab, 0.7).require_grad();
    let targets: Vec<i64> = (0..rows as i64).collect();
    let options = loss_options().pop().expect("some");
    let run = |f: Operation| {
        let part = hidden.clone().transpose().narrow(0, 3, rows);
        let loss = f(part, weight.clone().transpose(), &targets, options);
        let grads = loss.backward();
        [
            loss.into_data(),
            gradient(&hidden, &grads),
            gradient(&weight, &grads),
        ]
    };
    let expected = run(portable::cross_entropy_sum);
    for (f, e) in run(cross_entropy_sum).into_iter().zip(expected) {
        assert_close("strided", f, e, 1e-5);
    }
}

/// Neither the loss nor its gradients depend on how many threads there are.
#[test]
fn threads_change_nothing() {
    let (rows, width, vocab) = (67, 33, 1009);
    let hidden = fixed(rows, width, 1.3).require_grad();
    let weight = fixed(vocab, width, 0.754_877_666_2).require_grad();
    let targets: Vec<i64> = (0..rows as i64).collect();
    let options = loss_options().pop().expect("some");
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool")
            .install(|| run(cross_entropy_sum, &hidden, &weight, &targets, options))
    };
    for (one, three) in on(1).into_iter().zip(on(3)) {
        assert_close("one thread and three", three, one, 1e-6);
    }
}

#[test]
fn gradients_go_where_they_are_wanted() {
    let (hidden, weight) = (fixed(3, 2, 1.3), fixed(5, 2, 0.7));
    for [by_hidden, by_weight] in [[true, true], [true, false], [false, true]] {
        for f in [cross_entropy_sum, portable::cross_entropy_sum] {
            let hidden = hidden.clone().set_require_grad(by_hidden);
            let weight = weight.clone().set_require_grad(by_weight);
            let loss = f(
                hidden.clone(),
                weight.clone(),
                &[0, 4, 2],
                LossOptions::default(),
            );
            let grads = loss.backward();
            assert_eq!(hidden.grad(&grads).is_some(), by_hidden);
            assert_eq!(weight.grad(&grads).is_some(), by_weight);
        }
    }
}

#[test]
fn logits_in_the_hundreds_do_not_overflow() {
    let device = device();
    let hidden = Tensor::<2>::from_data([[300.0], [-300.0]], &device).require_grad();
    let weight = Tensor::<2>::from_data([[1.0], [-1.0], [0.5]], &device);
    let loss = cross_entropy_sum(hidden.clone(), weight, &[0, 0], LossOptions::default());
    // 300 − 300 and 300 − (−300)
    assert_eq!(loss.to_data().try_to_vec::<f32>().expect("f32"), [600.0]);
    let slopes = gradient(&hidden, &loss.backward());
    assert_eq!(slopes.try_to_vec::<f32>().expect("f32"), [0.0, -2.0]);
}

/// Logits of ±10⁴ and 0. The first row's target is the largest, and the mean of all is 10⁴ below it; the
/// second's lies 2·10⁴ below. With ε = 0.3: 0.3·10⁴, and 0.7·2·10⁴ + 0.3·10⁴. Through a cap of 10 far
/// from where it is steep, 0.3·10, and 0.7·20 + 0.3·10, with slopes of 0.
#[test]
fn extreme_logits_stay_finite_with_every_option() {
    let device = device();
    for (softcap, expected) in [(None, 20_000.0), (Some(10.0), 20.0)] {
        for f in [cross_entropy_sum, portable::cross_entropy_sum] {
            let hidden = Tensor::<2>::from_data([[1e4], [-1e4]], &device).require_grad();
            let weight = Tensor::<2>::from_data([[1.0], [-1.0], [0.0]], &device).require_grad();
            let options = LossOptions {
                label_smoothing: 0.3,
                logits: LogitOptions {
                    scale: 1.0,
                    softcap,
                },
            };
            let [loss, of_hidden, of_weight] = run(f, &hidden, &weight, &[0, 0], options);
            let expected = TensorData::from([expected as f32]);
            // e⁻¹⁰ is what the other classes add to the sum under the cap.
            assert_close("loss", loss, expected, 1e-5);
            for gradient in [of_hidden, of_weight] {
                let numbers = gradient.try_to_vec::<f32>().expect("f32");
                assert!(numbers.iter().all(|x| x.is_finite()), "{numbers:?}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "label 7 is not in the vocabulary of 7 tokens")]
fn a_label_outside_the_vocabulary() {
    let device = device();
    let (hidden, weight) = (leaf([1, 2], &device), leaf([7, 2], &device));
    cross_entropy_sum(hidden, weight, &[7], LossOptions::default());
}

#[test]
#[should_panic(expected = "a loss of no rows")]
fn no_rows() {
    let device = device();
    let (hidden, weight) = (leaf([0, 2], &device), leaf([7, 2], &device));
    cross_entropy_sum(hidden, weight, &[], LossOptions::default());
}

#[test]
#[should_panic(expected = "a label smoothing of 1.5, not from 0 to 1")]
fn too_much_smoothing() {
    let options = LossOptions {
        label_smoothing: 1.5,
        ..Default::default()
    };
    cross_entropy_sum(fixed(1, 2, 1.3), fixed(7, 2, 0.7), &[1], options);
}

#[test]
#[should_panic(expected = "a softcap of 0")]
fn a_cap_at_zero() {
    let mut options = LossOptions::default();
    options.logits.softcap = Some(0.0);
    cross_entropy_sum(fixed(1, 2, 1.3), fixed(7, 2, 0.7), &[1], options);
}
