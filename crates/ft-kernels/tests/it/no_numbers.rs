//! Empty inputs: no rows give no rows, and what has no sense is refused by name.

use burn::tensor::Tensor;
use ft_kernels::{LowRank, apply_rotary, gated_mlp, layer_norm, linear, rms_norm, scale_features};

use crate::operations::ACTIVATIONS;
use crate::{device, gradient, leaf, on_the_cpu};

/// Its check for overlaps takes 1 from a length of 0.
const NO_EMPTY_TENSORS: &str = "CubeCL takes no empty tensors in Burn 0.22.1";

fn assert_no_numbers<const D: usize>(y: Tensor<D>, shape: [usize; D], inputs: &[&Tensor<D>]) {
    assert_eq!(y.dims(), shape);
    let grads = y.sum().backward();
    for x in inputs {
        assert_eq!(gradient(x, &grads).shape().to_vec(), x.dims().to_vec());
    }
}

#[test]
fn norms_of_no_rows() {
    if !on_the_cpu(NO_EMPTY_TENSORS) {
        return;
    }
    let device = device();
    for shape in [[0, 3, 5], [3, 0, 5]] {
        let x: Tensor<3> = leaf(shape, &device);
        let [weight, bias] = [leaf([5], &device), leaf([5], &device)];
        let of_root_mean_square = rms_norm(x.clone(), weight.clone(), 1e-5);
        let of_layer = layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
        for (y, parameters) in [
            (of_root_mean_square, vec![&weight]),
            (of_layer, vec![&weight, &bias]),
        ] {
            assert_eq!(y.dims(), shape);
            let grads = y.sum().backward();
            assert_eq!(gradient(&x, &grads).shape().to_vec(), shape);
            for parameter in parameters {
                let zeros = Tensor::<1>::zeros([5], &device).into_data();
                assert_eq!(gradient(parameter, &grads), zeros);
            }
        }
    }
}

#[test]
fn scaled_features_of_no_rows() {
    if !on_the_cpu(NO_EMPTY_TENSORS) {
        return;
    }
    let device = device();
    for shape in [[0, 3, 5], [3, 0, 5]] {
        let (x, factors): (Tensor<3>, _) = (leaf(shape, &device), leaf([5], &device));
        let y = scale_features(x.clone(), factors.clone());
        assert_eq!(y.dims(), shape);
        let grads = y.sum().backward();
        assert_eq!(gradient(&x, &grads).shape().to_vec(), shape);
        let zeros = Tensor::<1>::zeros([5], &device).into_data();
        assert_eq!(gradient(&factors, &grads), zeros);
    }
}

#[test]
fn gated_products_of_no_rows() {
    if !on_the_cpu(NO_EMPTY_TENSORS) {
        return;
    }
    let device = device();
    for (act, shape) in ACTIVATIONS
        .into_iter()
        .zip([[0, 5], [5, 0], [0, 1], [0, 0]])
    {
        let [gate, up] = [leaf(shape, &device), leaf(shape, &device)];
        let y = gated_mlp(gate.clone(), up.clone(), act);
        assert_no_numbers(y, shape, &[&gate, &up]);
    }
}

#[test]
fn rotary_embedding_of_no_heads() {
    if !on_the_cpu(NO_EMPTY_TENSORS) {
        return;
    }
    let device = device();
    for [batch, heads, seq, width] in [[0, 3, 5, 4], [2, 0, 5, 4], [2, 3, 0, 4], [2, 3, 5, 0]] {
        let x = leaf([batch, heads, seq, width], &device);
        let angles = Tensor::ones([1, 1, seq, width / 2], &device);
        let y = apply_rotary(x.clone(), &angles, &angles);
        assert_no_numbers(y, [batch, heads, seq, width], &[&x]);
    }
}

#[test]
fn linear_of_no_rows() {
    if !on_the_cpu(NO_EMPTY_TENSORS) {
        return;
    }
    let device = device();
    let [x, weight] = [leaf([0, 7], &device), leaf([3, 7], &device)];
    let [a, b] = [leaf([2, 7], &device), leaf([3, 2], &device)];
    let y = linear(x.clone(), weight.clone(), None);
    assert_no_numbers(y, [0, 3], &[&x, &weight]);
    let adapter = LowRank {
        a: a.clone(),
        b: b.clone(),
        scale: 0.7,
        dropout: None,
    };
    let y = linear(x.clone(), weight.clone(), Some(adapter));
    assert_no_numbers(y, [0, 3], &[&x, &weight, &a, &b]);
}

#[test]
#[should_panic(expected = "a norm over no features")]
fn rms_norm_of_no_features() {
    let device = device();
    rms_norm(leaf([2, 0], &device), leaf([0], &device), 1e-5);
}

#[test]
#[should_panic(expected = "a norm over no features")]
fn layer_norm_of_no_features() {
    let device = device();
    let parameter = || leaf([0], &device);
    layer_norm(leaf([2, 0], &device), parameter(), parameter(), 1e-5);
}

/// 6 numbers a row are also two rows of 3, which must not pass for it.
#[test]
#[should_panic(expected = "a number for every feature")]
fn a_norms_weight_of_another_size() {
    let device = device();
    rms_norm(leaf([2, 6], &device), leaf([3], &device), 1e-5);
}

#[test]
#[should_panic(expected = "a number for every feature")]
fn a_norms_bias_of_another_size() {
    let device = device();
    let x: Tensor<2> = leaf([2, 6], &device);
    layer_norm(x, leaf([6], &device), leaf([1], &device), 1e-5);
}

#[test]
#[should_panic(expected = "gate and up have the same shape")]
fn gate_and_up_of_other_shapes() {
    let device = device();
    gated_mlp(leaf([2, 6], &device), leaf([1, 6], &device), ACTIVATIONS[0]);
}

#[test]
#[should_panic(expected = "half as many angles as a head is wide")]
fn angles_of_another_width() {
    let device = device();
    let angles = leaf([1, 1, 2, 3], &device);
    apply_rotary(leaf([1, 1, 2, 4], &device), &angles, &angles);
}
