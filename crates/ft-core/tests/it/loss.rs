//! The chunked loss against PyTorch (`golden/loss.py`), and its laws.

use burn::module::Param;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use ft_core::safetensors_folder::read_tensors;
use ft_core::{Head, IGNORE_INDEX, Layout, Linear, causal_lm_loss, linear_cross_entropy};

use crate::models::{assert_close, golden, ints};

#[test]
fn sum_and_gradients_agree_with_pytorch() {
    let device = Device::default().autodiff();
    let expected = read_tensors(&golden("loss.safetensors")).expect("golden");
    let hidden = Tensor::<3>::from_data(expected["hidden"].clone(), &device).require_grad();
    let weight = Param::from_tensor(Tensor::<2>::from_data(expected["weight"].clone(), &device));
    let labels = ints(&expected["labels"], &device);

    let loss = causal_lm_loss(hidden.clone(), Head::Tied(&weight), labels);
    assert_close("sum", loss.sum.to_data(), &expected["sum"], 1e-6);
    let grads = loss.sum.backward();
    let of_hidden = hidden.grad(&grads).expect("gradient");
    assert_close(
        "hidden",
        of_hidden.into_data(),
        &expected["grad_hidden"],
        1e-5,
    );
    let of_weight = weight.val().grad(&grads).expect("gradient");
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
    let weight = Param::from_tensor(weight).set_require_grad(false);
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

    let labels = Tensor::<1, Int>::from_data(labels.as_slice(), &device);
    let chunked = linear_cross_entropy(hidden.clone(), Head::Tied(&weight), labels);
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
    let weight = Param::from_tensor(Tensor::<2>::random([7, 3], Distribution::Default, &device));
    let hidden = Tensor::<2>::random([4, 3], Distribution::Default, &device).require_grad();
    let labels = Tensor::<1, Int>::from_data([0, 6, 2, IGNORE_INDEX], &device);
    let loss = || linear_cross_entropy(hidden.clone(), Head::Tied(&weight), labels.clone()).sum;
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
    let labels = Tensor::<1, Int>::from_data([0, 6, IGNORE_INDEX, 1], &device);
    let a = linear_cross_entropy(hidden.clone(), Head::Linear(&plain), labels.clone()).sum;
    let b = linear_cross_entropy(hidden.clone(), Head::Linear(&biased), labels).sum;
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
    let weight = Param::from_tensor(Tensor::<2>::ones([7, 3], &device));
    let hidden = Tensor::<2>::ones([2, 3], &device);
    let labels = Tensor::<1, Int>::from_data([IGNORE_INDEX, IGNORE_INDEX], &device);
    let loss = linear_cross_entropy(hidden, Head::Tied(&weight), labels);
    assert_eq!((loss.count, loss.sum.into_scalar::<f32>()), (0, 0.0));
}
