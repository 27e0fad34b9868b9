//! Norms, rotary embedding and gated products.

use burn::tensor::{Tensor, TensorData};
use ft_kernels::{Activation, gated_mlp, layer_norm, rms_norm};

use crate::operations::{
    ACTIVATIONS, Twin, activation_of, gated_of, layer_norm_of, rms_norm_of, rotary_of,
    scale_features_of,
};
use crate::{assert_close, cpu, device, gradient, leaf, numbers, on_the_cpu, read, values};

/// One number, one row, one feature, primes, a batch of one, and more rows than a piece of work has.
const SHAPES: [[usize; 3]; 7] = [
    [1, 1, 1],
    [1, 1, 17],
    [2, 3, 1],
    [1, 5, 64],
    [3, 37, 33],
    [2, 61, 576],
    [13, 331, 11],
];

#[test]
fn rms_norm_and_its_gradients() {
    for shape in SHAPES {
        rms_norm_of(shape).check(1e-5);
    }
}

#[test]
fn layer_norm_and_its_gradients() {
    for shape in SHAPES {
        layer_norm_of(shape).check(2e-5);
    }
}

#[test]
fn scaled_features_and_their_gradients() {
    for shape in SHAPES {
        scale_features_of(shape).check(1e-5);
    }
}

#[test]
fn rotary_embedding_and_its_gradient() {
    rotary_of([1, 1, 1, 2], 1).check(1e-6);
    rotary_of([2, 3, 5, 8], 1).check(1e-6);
    rotary_of([3, 2, 13, 6], 3).check(1e-6);
    rotary_of([2, 9, 31, 64], 2).check(1e-6);
}

#[test]
fn gated_products_and_their_gradients() {
    for act in ACTIVATIONS {
        for shape in [[1, 1], [1, 7], [3, 17], [101, 331]] {
            gated_of(shape, act).check(1e-5);
            activation_of(shape, act).check(1e-5);
        }
    }
}

/// Numbers of mean 30 000 and deviation 1, whose neighbours in `f32` are 0.002 apart: what comes out is exact to the
/// numbers that went in, since the mean, too, is more exact than `f32`.
#[test]
fn layer_norm_far_from_zero() {
    if !on_the_cpu("its layer norm takes the mean in one part") {
        return;
    }
    let x: Vec<f32> = values(&numbers([3 * 97]))
        .iter()
        .map(|x| x + 30_000.0)
        .collect();
    let expected: Vec<f32> = (x.chunks(97))
        .flat_map(|row| {
            let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
            let mean = row.iter().sum::<f64>() / 97.0;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 97.0;
            row.into_iter()
                .map(move |x| ((x - mean) / (variance + 1e-12).sqrt()) as f32)
        })
        .collect();
    let device = cpu();
    let x = Tensor::<2>::from_data(TensorData::new(x, [3, 97]), &device);
    let found = layer_norm(
        x,
        Tensor::ones([97], &device),
        Tensor::zeros([97], &device),
        1e-12,
    );
    let expected = TensorData::new(expected, [3, 97]);
    assert_close("layer norm", found.into_data(), expected, 1e-6);
}

/// Rows of the same number have no deviation: the bias is all that comes out, and no NaN, not even in the gradient.
#[test]
fn layer_norm_of_equal_numbers() {
    let device = device();
    let x = Tensor::<2>::full([2, 7], 1.1e6, &device).require_grad();
    let [weight, bias] = [leaf([7], &device), leaf([7], &device)];
    let y = layer_norm(x.clone(), weight, bias.clone(), 1e-5);
    let expected = bias.clone().inner().unsqueeze::<2>().repeat_dim(0, 2);
    assert_close("y", read(y.clone()), expected.into_data(), 1e-6);
    let slopes = gradient(&x, &y.sum().backward());
    let slopes = values(&slopes);
    assert!(slopes.iter().all(|slope| slope.is_finite()), "{slopes:?}");
}

#[test]
fn views_give_what_their_copies_give() {
    let device = device();
    let all = Tensor::<3>::from_data(numbers([5, 7, 16]), &device);
    let swapped = all.clone().swap_dims(0, 1);
    let part = all.clone().narrow(2, 3, 9).narrow(0, 1, 3);
    let across = all.swap_dims(1, 2);
    for view in [swapped, part, across] {
        let copy = Tensor::<3>::from_data(view.to_data(), &device);
        let n = view.dims()[2];
        let weight = Tensor::<1>::from_data(numbers([2 * n]), &device);
        let weight = weight.reshape([n, 2]).narrow(1, 1, 1).reshape([n]);
        let results = |x: Tensor<3>| {
            let w = || weight.clone();
            [
                rms_norm(x.clone(), w(), 1e-5),
                layer_norm(x.clone(), w(), w(), 1e-5),
                gated_mlp(x.clone(), x, Activation::Silu),
            ]
        };
        for (found, expected) in results(view).into_iter().zip(results(copy)) {
            assert_close("view", found.into_data(), expected.into_data(), 0.0);
        }
    }
}

#[test]
fn activations_far_out_stay_finite() {
    let device = device();
    let far = [-1e4, -90.0, 0.0, 90.0, 1e4];
    for act in ACTIVATIONS {
        let gate = Tensor::<1>::from_data(far, &device).require_grad();
        let y = gated_mlp(gate.clone(), Tensor::ones([5], &device), act);
        let name = format!("{act:?}");
        let expected = TensorData::from([0.0f32, 0.0, 0.0, 90.0, 1e4]);
        assert_close(&name, read(y.clone()), expected, 1e-6);
        let at_zero = if act == Activation::Relu { 0.0 } else { 0.5 };
        let slopes = gradient(&gate, &y.sum().backward());
        let expected = TensorData::from([0.0f32, 0.0, at_zero, 1.0, 1.0]);
        assert_close(&name, slopes, expected, 0.0);
    }
}

/// A broken number must be seen, not become a 0.
#[test]
fn activations_do_not_hide_what_is_not_a_number() {
    if !on_the_cpu("comparisons with NaN are the driver's") {
        return;
    }
    for act in ACTIVATIONS {
        let gate = Tensor::<1>::from_data([f32::NAN, 1.0], &cpu()).require_grad();
        let y = gated_mlp(gate.clone(), Tensor::ones([2], &cpu()), act);
        let first = |data: TensorData| values(&data)[0];
        assert!(first(read(y.clone())).is_nan(), "{act:?}");
    }
}

/// The activations without a product, as GPT-2 has them.
#[test]
fn an_activation_alone_is_its_product_with_one() {
    let x = Tensor::<1>::from_data(numbers([101]), &device());
    for act in ACTIVATIONS {
        let found = act.forward(x.clone()).into_data();
        let ones = Tensor::ones([101], &x.device());
        let expected = gated_mlp(x.clone(), ones, act).into_data();
        assert_close(&format!("{act:?}"), found, expected, 1e-6);
    }
}

/// Not even by rounding: the sums over rows are cut by size, not by threads.
#[test]
fn threads_change_nothing() {
    if !on_the_cpu("it has no threads to choose") {
        return;
    }
    let shape = [13, 331, 11];
    for operation in [rms_norm_of(shape), layer_norm_of(shape)] {
        let inputs = operation.numbers();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let tracked = vec![true; inputs.len()];
            pool.expect("a pool")
                .install(|| operation.run(Twin::Fused, &cpu(), &inputs, &tracked))
        };
        let (one, three) = (run(1), run(3));
        assert_close(&operation.name, three.output, one.output, 0.0);
        for (three, one) in three.gradients.into_iter().zip(one.gradients) {
            let (three, one) = (three.expect("a gradient"), one.expect("a gradient"));
            assert_close(&operation.name, three, one, 0.0);
        }
    }
}
