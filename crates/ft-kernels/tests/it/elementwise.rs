use burn::tensor::{Device, Distribution, Tensor, activation};
use ft_kernels::{Activation, apply_rotary, gated_mlp, portable, rms_norm};

use crate::{assert_close, device, gradient, leaf, weighted_sum};

#[test]
fn rms_norm_and_its_gradients() {
    let device = device();
    for shape in [[1, 1, 1], [1, 1, 17], [2, 3, 64], [3, 37, 33], [2, 61, 576]] {
        let x = leaf(shape, &device);
        let w = leaf([shape[2]], &device);
        let run = |f: fn(Tensor<3>, Tensor<1>, f64) -> Tensor<3>| {
            let y = f(x.clone(), w.clone(), 1e-5);
            let grads = weighted_sum(y.clone()).backward();
            (y.into_data(), gradient(&x, &grads), gradient(&w, &grads))
        };
        let (y, dx, dw) = run(rms_norm);
        let (y2, dx2, dw2) = run(portable::rms_norm);
        assert_close("y", y, y2, 1e-5);
        assert_close("dx", dx, dx2, 1e-5);
        assert_close("dw", dw, dw2, 1e-5);
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient() {
    let device = device();
    let x = leaf([2, 3, 8], &device);
    let w = Tensor::<1>::ones([8], &device);
    let grads = weighted_sum(rms_norm(x.clone(), w.clone(), 1e-5)).backward();
    assert!(x.grad(&grads).is_some());
    assert!(w.grad(&grads).is_none());
}

#[test]
fn strided_inputs_are_read_as_they_are() {
    let device = Device::default();
    let x = Tensor::<3>::random([5, 7, 16], Distribution::Default, &device);
    let view = x.clone().swap_dims(0, 1);
    let copy = Tensor::<3>::from_data(view.to_data(), &device);
    let w = Tensor::<1>::random([16], Distribution::Default, &device);
    let found = rms_norm(view.clone(), w.clone(), 1e-5).into_data();
    assert_close(
        "norm",
        found,
        rms_norm(copy.clone(), w, 1e-5).into_data(),
        0.0,
    );
    let part = view.clone().narrow(2, 3, 9);
    let part_copy = Tensor::<3>::from_data(part.to_data(), &device);
    let found = gated_mlp(part.clone(), part, Activation::Silu).into_data();
    let expected = gated_mlp(part_copy.clone(), part_copy, Activation::Silu).into_data();
    assert_close("gated", found, expected, 0.0);
}

#[test]
fn rotary_embedding_and_its_gradient() {
    let device = device();
    // Angles of one row for all, and of every row for itself.
    for (batch, heads, seq, width, angles) in [
        (1, 1, 1, 2, 1),
        (2, 3, 5, 8, 1),
        (3, 2, 13, 6, 3),
        (2, 9, 31, 64, 2),
    ] {
        // `[batch, seq, heads, width]` in memory, as models have it.
        let x = leaf([batch, seq, heads, width], &device);
        let angle = Tensor::<4>::random(
            [angles, 1, seq, width / 2],
            Distribution::Uniform(0.0, 6.3),
            &device,
        );
        let (cos, sin) = (angle.clone().cos(), angle.sin());
        let run = |f: fn(Tensor<4>, &Tensor<4>, &Tensor<4>) -> Tensor<4>| {
            let y = f(x.clone().swap_dims(1, 2), &cos, &sin);
            let grads = weighted_sum(y.clone()).backward();
            (y.into_data(), gradient(&x, &grads))
        };
        let (y, dx) = run(apply_rotary);
        let (y2, dx2) = run(portable::apply_rotary);
        assert_close("y", y, y2, 1e-6);
        assert_close("dx", dx, dx2, 1e-6);
    }
}

#[test]
fn gated_products_and_their_gradients() {
    let device = device();
    let all = [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::Gelu,
        Activation::Relu,
    ];
    for act in all {
        for shape in [[1, 1], [3, 17], [101, 331]] {
            let gate = leaf(shape, &device);
            let up = leaf(shape, &device);
            let run = |f: fn(Tensor<2>, Tensor<2>, Activation) -> Tensor<2>| {
                let y = f(gate.clone() * 3.0, up.clone(), act);
                let grads = weighted_sum(y.clone()).backward();
                (
                    y.into_data(),
                    gradient(&gate, &grads),
                    gradient(&up, &grads),
                )
            };
            let (y, dg, du) = run(gated_mlp);
            let (y2, dg2, du2) = run(portable::gated_mlp);
            assert_close("y", y, y2, 1e-5);
            assert_close("d gate", dg, dg2, 1e-5);
            assert_close("d up", du, du2, 1e-5);
        }
    }
}

#[test]
fn activations_far_out_stay_finite() {
    let device = device();
    let gate = Tensor::<1>::from_data([-1e4, -90.0, 0.0, 90.0, 1e4], &device).require_grad();
    let up = Tensor::<1>::ones([5], &device);
    let y = gated_mlp(gate.clone(), up, Activation::Silu);
    let grads = y.clone().sum().backward();
    assert_close(
        "silu",
        y.into_data(),
        activation::silu(gate.clone()).into_data(),
        1e-6,
    );
    let slopes = gradient(&gate, &grads).try_to_vec::<f32>().expect("f32");
    assert_eq!(slopes, [0.0, 0.0, 0.5, 1.0, 1.0]);
}
