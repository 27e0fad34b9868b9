//! The chunked loss against PyTorch (`golden/loss.py`), log-probabilities, and their laws.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData, activation};
use ft_core::layers::Embedding;
use ft_core::safetensors_folder::read_tensors;
use ft_core::{
    Head, IGNORE_INDEX, Layout, Linear, LogitOptions, causal_lm_loss, causal_lm_loss_with,
    linear_cross_entropy, token_logps, token_logps_and_entropy,
};

use crate::low_rank::low_rank;
use crate::models::{assert_close, golden, host};

#[test]
fn sum_and_gradients_agree_with_pytorch() {
    let device = Device::default().autodiff();
    let expected = read_tensors(&golden("loss.safetensors")).expect("golden");
    let hidden = Tensor::<3>::from_data(expected["hidden"].clone(), &device).require_grad();
    let weight =
        Embedding::from_weight(Tensor::<2>::from_data(expected["weight"].clone(), &device));
    let labels = host(&expected["labels"]);

    let loss = causal_lm_loss(hidden.clone(), Head::tied(&weight), &labels);
    assert_close("sum", loss.sum.to_data(), &expected["sum"], 1e-6);
    let grads = loss.sum.backward();
    let of_hidden = hidden.grad(&grads).expect("gradient");
    assert_close(
        "hidden",
        of_hidden.into_data(),
        &expected["grad_hidden"],
        1e-5,
    );
    let of_weight = weight.weight.val().grad(&grads).expect("gradient");
    assert_close(
        "weight",
        of_weight.into_data(),
        &expected["grad_weight"],
        1e-5,
    );
}

/// A vocabulary so large that the rows do not fit one chunk, against sums in `f64`: in `f32` the
/// three million terms of a row would lose the fifth digit.
#[test]
fn many_chunks_equal_the_whole() {
    let device = Device::default().autodiff();
    let (rows, vocab, width) = (11, 3_000_000, 2);
    // Numbers of a formula: the one random generator belongs to all tests at once.
    let numbers = |count: usize, step: f64| -> Vec<f32> {
        (0..count)
            .map(|i| (2.0 * (step * (i + 1) as f64).sin()) as f32)
            .collect()
    };
    let (h, w) = (
        numbers(rows * width, 1.3),
        numbers(vocab * width, 0.7548776662),
    );
    let weight = Tensor::<2>::from_data(TensorData::new(w.clone(), [vocab, width]), &device);
    let weight = Embedding::from_weight(weight).no_grad();
    let hidden = Tensor::<2>::from_data(TensorData::new(h.clone(), [rows, width]), &device);
    let hidden = hidden.require_grad();
    let labels: Vec<i64> = (0..rows as i64)
        .map(|row| {
            if row == 4 {
                IGNORE_INDEX
            } else {
                row * 270_001
            }
        })
        .collect();
    let (mut sum, mut gradient) = (0.0f64, Vec::new());
    for (h, &label) in h.chunks_exact(width).zip(&labels) {
        if label == IGNORE_INDEX {
            gradient.extend([0.0; 2]);
            continue;
        }
        let logit =
            |w: &[f32]| f64::from(h[0]) * f64::from(w[0]) + f64::from(h[1]) * f64::from(w[1]);
        let (mut total, mut mean) = (0.0f64, [0.0f64; 2]);
        for w in w.chunks_exact(width) {
            let e = logit(w).exp();
            total += e;
            mean[0] += e * f64::from(w[0]);
            mean[1] += e * f64::from(w[1]);
        }
        let target = &w[label as usize * width..][..width];
        sum += total.ln() - logit(target);
        gradient.extend((0..width).map(|i| (mean[i] / total) as f32 - target[i]));
    }

    let chunked = linear_cross_entropy(hidden.clone(), Head::tied(&weight), &labels);
    assert_eq!(chunked.count, rows - 1);
    let expected = TensorData::new(vec![sum as f32], [1]);
    assert_close("sum", chunked.sum.to_data(), &expected, 1e-6);
    let found = hidden.grad(&chunked.sum.backward()).expect("gradient");
    let expected = TensorData::new(gradient, [rows, width]);
    assert_close("gradient", found.into_data(), &expected, 1e-5);
}

/// Upstream factors reach the gradient, although it was computed in the forward pass.
#[test]
fn the_gradient_scales_with_what_comes_after() {
    let device = Device::default().autodiff();
    device.seed(2);
    let weight =
        Embedding::from_weight(Tensor::<2>::random([7, 3], Distribution::Default, &device));
    let hidden = Tensor::<2>::random([4, 3], Distribution::Default, &device).require_grad();
    let labels = [0, 6, 2, IGNORE_INDEX];
    let loss = || linear_cross_entropy(hidden.clone(), Head::tied(&weight), &labels).sum;
    let once = hidden.grad(&loss().backward()).expect("gradient");
    let thrice = hidden.grad(&(loss() * 3.0).backward()).expect("gradient");
    assert_close(
        "gradient",
        thrice.into_data(),
        &(once * 3.0).into_data(),
        1e-6,
    );
}

/// A head with a bias goes another way through the graph and must come to the same.
#[test]
fn a_bias_of_zero_changes_nothing() {
    let device = Device::default().autodiff();
    device.seed(3);
    let plain = Linear::new(3, 7, false, Layout::OutIn, 1.0, &device);
    let mut biased = Linear::new(3, 7, true, Layout::OutIn, 1.0, &device);
    biased.weight = plain.weight.clone();
    let hidden = Tensor::<2>::random([4, 3], Distribution::Default, &device).require_grad();
    let labels = [0, 6, IGNORE_INDEX, 1];
    let a = linear_cross_entropy(hidden.clone(), Head::linear(&plain), &labels).sum;
    let b = linear_cross_entropy(hidden.clone(), Head::linear(&biased), &labels).sum;
    assert_close("sum", a.to_data(), &b.to_data(), 1e-6);
    let (a, b) = (a.backward(), b.backward());
    for (a, b) in [
        (hidden.grad(&a), hidden.grad(&b)),
        (plain.weight.val().grad(&a), plain.weight.val().grad(&b)),
    ] {
        let (a, b) = (a.expect("gradient"), b.expect("gradient"));
        assert_close("gradient", a.into_data(), &b.into_data(), 1e-5);
    }
}

#[test]
fn a_batch_without_labels_counts_nothing() {
    let device = Device::default();
    let weight = Embedding::from_weight(Tensor::<2>::ones([7, 3], &device));
    let hidden = Tensor::<2>::ones([2, 3], &device);
    let labels = [IGNORE_INDEX, IGNORE_INDEX];
    let loss = linear_cross_entropy(hidden, Head::tied(&weight), &labels);
    assert_eq!((loss.count, loss.sum.into_scalar::<f32>()), (0, 0.0));
}

/// Numbers of a formula, between −1 and 1.
fn fixed<const D: usize>(shape: [usize; D], step: f64, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let numbers: Vec<f32> = (0..count)
        .map(|i| ((step * (i + 1) as f64).sin()) as f32)
        .collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// Labels of two rows, of which the first position predicts nothing: three count in the first row
/// and one in the second.
const LABELS: [i64; 10] = {
    let i = IGNORE_INDEX;
    [3, i, 6, 0, 2, 1, i, i, 5, i]
};

const OPTIONS: LogitOptions = LogitOptions {
    scale: 2.0,
    softcap: Some(3.0),
};

/// Five heads that are all the same map, stored and computed in different ways.
fn equal_heads(device: &Device) -> Vec<(&'static str, Linear)> {
    let weight = fixed([7, 3], 0.7, device);
    let linear = |weight: Tensor<2>, bias: bool, layout: Layout| {
        let mut linear = Linear::new(3, 7, bias, layout, 1.0, device);
        linear.weight = Param::from_tensor(weight).into();
        linear
    };
    let (a, b) = (fixed([2, 3], 0.9, device), fixed([7, 2], 1.9, device));
    let delta = b.clone().matmul(a.clone()) * 0.5;
    let mut adapted = linear(weight.clone() - delta, false, Layout::OutIn);
    adapted.adapters.push(low_rank("default", a, b, 0.5));
    let mut switched_off = linear(weight.clone(), false, Layout::OutIn);
    let (a, b) = (Tensor::ones([2, 3], device), Tensor::ones([7, 2], device));
    let mut off = low_rank("off", a, b, 1.0);
    off.active = false;
    switched_off.adapters.push(off);
    vec![
        ("plain", linear(weight.clone(), false, Layout::OutIn)),
        (
            "in-out",
            linear(weight.clone().transpose(), false, Layout::InOut),
        ),
        (
            "a bias of zeros",
            linear(weight.clone(), true, Layout::OutIn),
        ),
        ("an adapter", adapted),
        ("an adapter that is off", switched_off),
    ]
}

/// Log-probabilities and entropies of every head against the whole logits.
#[test]
fn token_logps_of_every_head_are_those_of_the_logits() {
    let device = Device::default().autodiff();
    let hidden = fixed([2, 5, 3], 1.3, &device).require_grad();
    let mask = Tensor::<2>::from_data([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]], &device);
    let upstream = fixed([2, 4], 0.4, &device);
    for (name, linear) in equal_heads(&device) {
        let logits = Head::linear(&linear)
            .with_logits(OPTIONS)
            .forward(hidden.clone());
        let log_p = activation::log_softmax(logits, 2).narrow(1, 0, 4);
        let labels = [[0i64, 6, 0, 2], [0, 0, 5, 0]];
        let labels = Tensor::<2, Int>::from_data(labels, &device).unsqueeze_dim::<3>(2);
        let logps = log_p.clone().gather(2, labels).squeeze_dim::<2>(2) * mask.clone();
        let entropy = -(log_p.clone().exp() * log_p).sum_dim(2).squeeze_dim::<2>(2) * mask.clone();

        let (found, found_entropy) = token_logps_and_entropy(
            hidden.clone(),
            Head::linear(&linear).with_logits(OPTIONS),
            &LABELS,
            1.0,
        );
        let alone = token_logps(
            hidden.clone(),
            Head::linear(&linear).with_logits(OPTIONS),
            &LABELS,
            1.0,
        );
        assert_close(name, found.mask.to_data(), &mask.to_data(), 0.0);
        assert_close(name, found.logps.to_data(), &logps.to_data(), 1e-5);
        assert_close(name, alone.logps.to_data(), &logps.to_data(), 1e-5);
        assert_close(name, found_entropy.to_data(), &entropy.to_data(), 1e-5);

        let grads = |logps: Tensor<2>, entropy: Tensor<2>| {
            let sum = (logps * upstream.clone() + entropy * (upstream.clone() + 2.0)).sum();
            let grads = sum.backward();
            [
                hidden.grad(&grads).expect("gradient"),
                linear
                    .weight
                    .val()
                    .grad(&grads)
                    .expect("gradient")
                    .unsqueeze(),
            ]
        };
        let expected = grads(logps, entropy);
        for (found, expected) in grads(found.logps, found_entropy).into_iter().zip(expected) {
            assert_close(name, found.into_data(), &expected.into_data(), 1e-5);
        }
    }
}

/// With smoothing, scale and cap, whether the head goes through the graph or not.
#[test]
fn a_loss_with_options_is_the_same_of_every_head() {
    let device = Device::default().autodiff();
    let hidden = fixed([2, 5, 3], 1.3, &device).require_grad();
    let of = |linear: &Linear| {
        let loss = causal_lm_loss_with(
            hidden.clone(),
            Head::linear(linear).with_logits(OPTIONS),
            &LABELS,
            0.2,
        );
        assert_eq!(loss.count, 4);
        let gradient = hidden.grad(&loss.sum.backward()).expect("gradient");
        [loss.sum.into_data(), gradient.into_data()]
    };
    let heads = equal_heads(&device);
    let expected = of(&heads[0].1);
    for (name, linear) in &heads[1..] {
        for (found, expected) in of(linear).into_iter().zip(&expected) {
            assert_close(name, found, expected, 1e-5);
        }
    }
    // By hand: (1 − ε)·(−ln p[label]) + ε·mean(−ln p), from the log-probabilities of all tokens.
    let logits = Head::linear(&heads[0].1)
        .with_logits(OPTIONS)
        .forward(hidden.clone());
    let log_p = activation::log_softmax(logits, 2)
        .into_data()
        .try_to_vec::<f32>()
        .expect("f32");
    let sum: f32 = [(0, 1, 6), (0, 2, 0), (0, 3, 2), (1, 2, 5)]
        .into_iter()
        .map(|(row, position, label)| {
            let log_p = &log_p[(row * 5 + position) * 7..][..7];
            -0.8 * log_p[label] - 0.2 * log_p.iter().sum::<f32>() / 7.0
        })
        .sum();
    assert_close(
        "by hand",
        expected[0].clone(),
        &TensorData::from([sum]),
        1e-5,
    );
}

/// Minus the sum of the log-probabilities is the loss, of a tied head too, row by row.
#[test]
fn token_logps_sum_to_the_loss() {
    let device = Device::default().autodiff();
    let hidden = fixed([2, 5, 3], 1.3, &device).require_grad();
    let weight = Embedding::from_weight(fixed([7, 3], 0.7, &device));
    let labels = &LABELS;
    let head = Head::tied(&weight);
    for row in 0..2 {
        let found = token_logps(hidden.clone(), head, labels, 1.0);
        let loss = causal_lm_loss(
            hidden.clone().narrow(0, row, 1),
            head,
            &labels[5 * row..][..5],
        );
        let logps = found.logps.clone().narrow(0, row, 1).sum().neg();
        let count = found
            .mask
            .clone()
            .narrow(0, row, 1)
            .sum()
            .into_scalar::<f32>();
        assert_eq!(count, loss.count as f32);
        let gradients = |sum: Tensor<1>| {
            let grads = sum.backward();
            let of_hidden = hidden.grad(&grads).expect("gradient");
            let of_weight = weight.weight.val().grad(&grads).expect("gradient");
            [of_hidden.into_data(), of_weight.into_data()]
        };
        assert_close("sum", logps.to_data(), &loss.sum.to_data(), 1e-6);
        for (f, e) in gradients(logps).into_iter().zip(gradients(loss.sum)) {
            assert_close("gradient", f, &e, 1e-5);
        }
    }
}

#[test]
fn a_batch_without_labels_has_log_probabilities_of_zero() {
    let device = Device::default();
    let weight = Embedding::from_weight(fixed([7, 3], 0.7, &device));
    let hidden = fixed([1, 3, 3], 1.3, &device);
    let labels = [5, IGNORE_INDEX, IGNORE_INDEX];
    let (found, entropy) = token_logps_and_entropy(hidden, Head::tied(&weight), &labels, 1.0);
    for zeros in [found.logps, found.mask, entropy] {
        assert_eq!(zeros.into_data(), TensorData::from([[0.0f32, 0.0]]));
    }
}
