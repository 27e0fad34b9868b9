use burn::tensor::{DType, Device, Tensor, TensorData};
use ft_kernels::{Activation, Dropout, Input, LowRank, linear, portable};

use crate::{assert_close, cpu, device, gradient, has, leaf, numbers, weighted_sum};

#[test]
fn with_and_without_adapter_all_gradients() {
    for (rows, features, out, rank) in [
        (1, 1, 1, 1),
        (7, 5, 3, 2),
        (1, 64, 31, 8),
        (131, 97, 211, 16),
    ] {
        for transposed in [false, true] {
            let x = numbers([rows, features]);
            let shape = if transposed {
                [features, out]
            } else {
                [out, features]
            };
            let w = numbers(shape);
            let (a, b) = (numbers([rank, features]), numbers([out, rank]));
            type Operation = fn(Tensor<2>, Tensor<2>, Option<LowRank>) -> Tensor<2>;
            let run = |f: Operation, adapted: bool, device: &Device| {
                let leaf =
                    |data: &TensorData| Tensor::<2>::from_data(data.clone(), device).require_grad();
                let [x, w, a, b] = [&x, &w, &a, &b].map(leaf);
                let adapter = adapted.then(|| LowRank {
                    a: a.clone(),
                    b: b.clone(),
                    scale: 0.7,
                    dropout: None,
                });
                let weight = if transposed {
                    w.clone().transpose()
                } else {
                    w.clone()
                };
                let y = f(x.clone(), weight, adapter);
                let grads = weighted_sum(y.clone()).backward();
                let mut all = vec![y.into_data(), gradient(&x, &grads), gradient(&w, &grads)];
                if adapted {
                    all.extend([gradient(&a, &grads), gradient(&b, &grads)]);
                }
                all
            };
            for adapted in [false, true] {
                let found = run(linear, adapted, &device());
                let expected = run(portable::linear, adapted, &cpu());
                for (i, (f, e)) in found.into_iter().zip(expected).enumerate() {
                    assert_close(&format!("number {i}"), f, e, 1e-5);
                }
            }
        }
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_the_factors_do() {
    let device = device();
    let w = Tensor::<2>::from_data(numbers([4, 6]), &device);
    let x = Tensor::<2>::from_data(numbers([3, 6]), &device);
    let (a, b) = (leaf([2, 6], &device), leaf([4, 2], &device));
    let adapter = LowRank {
        a: a.clone(),
        b: b.clone(),
        scale: 2.0,
        dropout: None,
    };
    let grads = weighted_sum(linear(x.clone(), w.clone(), Some(adapter))).backward();
    assert!(w.grad(&grads).is_none() && x.grad(&grads).is_none());
    assert!(a.grad(&grads).is_some() && b.grad(&grads).is_some());
}

#[test]
fn an_embedding_of_all_rows_and_a_part_of_a_larger_tensor() {
    let device = device();
    let all = Tensor::<2>::from_data(numbers([9, 20]), &device);
    let w = Tensor::<2>::from_data(numbers([5, 8]), &device);
    let part = all.narrow(1, 4, 8).narrow(0, 2, 6);
    let copy = Tensor::<2>::from_data(part.to_data(), &device);
    let found = linear(part, w.clone(), None).into_data();
    assert_close("part", found, linear(copy, w, None).into_data(), 0.0);
}

#[test]
fn reversed_inputs_and_weights() {
    let (x, w) = (numbers([5, 7]), numbers([3, 7]));
    let run = |f: fn(Tensor<2>, Tensor<2>) -> Tensor<2>, device: &Device| {
        let [x, w] = [&x, &w].map(|x| Tensor::<2>::from_data(x.clone(), device).require_grad());
        let y = f(x.clone().flip([0, 1]), w.clone().flip([1]));
        let grads = weighted_sum(y.clone()).backward();
        [crate::read(y), gradient(&x, &grads), gradient(&w, &grads)]
    };
    let found = run(|x, w| linear(x, w, None), &device());
    let expected = run(|x, w| portable::linear(x, w, None), &cpu());
    for (found, expected) in found.into_iter().zip(expected) {
        assert_close("reversed", found, expected, 1e-6);
    }
}

#[test]
fn no_features_give_zeros() {
    if !crate::on_the_cpu("CubeCL's backends have no empty tensors") {
        return;
    }
    for rows in [1, 3, 9] {
        let x = Tensor::<2>::zeros([rows, 0], &device());
        let y = linear(x, Tensor::zeros([4, 0], &device()), None);
        assert_eq!(crate::values(&y.into_data()), vec![0.0; rows * 4]);
    }
}

/// A frozen weight of 16 bits gives what the same numbers in `f32` give, in both directions, for one row
/// (read in one pass), a few, and many (widened panel by panel), stored as it is or transposed.
#[test]
fn a_weight_of_16_bits_is_widened_exactly() {
    let device = device();
    let (features, out, rank) = (259, 1031, 3);
    for dtype in [DType::F16, DType::BF16] {
        if !has(dtype) {
            continue;
        }
        for transposed in [false, true] {
            let shape = if transposed {
                [features, out]
            } else {
                [out, features]
            };
            let narrow = Tensor::<2>::from_data(numbers(shape), &device).cast(dtype);
            let wide = narrow.clone().cast(DType::F32);
            let turned = |w: &Tensor<2>| match transposed {
                true => w.clone().transpose(),
                false => w.clone(),
            };
            let (a, b) = (leaf([rank, features], &device), leaf([out, rank], &device));
            for rows in [1, 3, 4, 5, 67] {
                let x = leaf([rows, features], &device);
                let run = |weight: Tensor<2>, adapted: bool| {
                    let adapter = adapted.then(|| LowRank {
                        a: a.clone(),
                        b: b.clone(),
                        scale: 0.7,
                        dropout: None,
                    });
                    let y = linear(x.clone(), weight, adapter);
                    let grads = weighted_sum(y.clone()).backward();
                    [y.into_data(), gradient(&x, &grads)]
                };
                for adapted in [false, true] {
                    let found = run(turned(&narrow), adapted);
                    let expected = run(turned(&wide), adapted);
                    for (found, expected) in found.into_iter().zip(expected) {
                        let what = format!("{dtype:?} {rows} {transposed} {adapted}");
                        assert_close(&what, found, expected, 1e-6);
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "cannot train")]
fn a_weight_of_16_bits_that_is_to_train_is_refused() {
    let device = device();
    let w = Tensor::<2>::ones([4, 6], &device).cast(DType::BF16);
    linear(leaf([2, 6], &device), w.require_grad(), None);
}

/// What a layer makes again in its backward pass is what it was applied to.
#[test]
fn an_input_with_a_recipe_gives_the_gradients_of_a_tensor() {
    let device = device();
    let (x, scale) = (leaf([2, 7, 12], &device), leaf([12], &device));
    let (gate, up) = (leaf([2, 7, 12], &device), leaf([2, 7, 12], &device));
    let w = leaf([5, 12], &device);
    let (a, b) = (leaf([3, 12], &device), leaf([5, 3], &device));
    let norm = || Input::rms_norm(x.clone(), scale.clone(), 1e-5);
    let product = || Input::gated_mlp(gate.clone(), up.clone(), Activation::Silu);
    let run = |input: Input<3>, sources: [&Tensor<3>; 2]| {
        let adapter = LowRank {
            a: a.clone(),
            b: b.clone(),
            scale: 0.7,
            dropout: None,
        };
        let y = linear(input.into_rows(), w.clone(), Some(adapter));
        let grads = weighted_sum(y).backward();
        let [first, second] = sources;
        [
            gradient(&w, &grads),
            gradient(&a, &grads),
            gradient(&b, &grads),
            gradient(first, &grads),
            gradient(second, &grads),
        ]
    };
    let plain = |input: Input<3>| Input::from(input.value().clone());
    let pairs = [
        (run(norm(), [&x, &x]), run(plain(norm()), [&x, &x])),
        (
            run(product(), [&gate, &up]),
            run(plain(product()), [&gate, &up]),
        ),
    ];
    for (found, expected) in pairs {
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close("made again", found, expected, 1e-6);
        }
    }
}

/// The mask is that of Burn's operations, in shapes of several pieces and of input that is a view.
#[test]
fn a_dropped_out_input_gives_the_gradients_of_burn_operations() {
    for (rows, features, out, rank) in [(1, 1, 1, 1), (7, 5, 3, 2), (131, 641, 11, 4)] {
        for transposed in [false, true] {
            let shape = if transposed {
                [features, rows]
            } else {
                [rows, features]
            };
            let (x, w) = (numbers(shape), numbers([out, features]));
            let (a, b) = (numbers([rank, features]), numbers([out, rank]));
            type Operation = fn(Tensor<2>, Tensor<2>, Option<LowRank>) -> Tensor<2>;
            let run = |f: Operation, device: &Device| {
                let leaf =
                    |data: &TensorData| Tensor::<2>::from_data(data.clone(), device).require_grad();
                let [x, w, a, b] = [&x, &w, &a, &b].map(leaf);
                let adapter = LowRank {
                    a: a.clone(),
                    b: b.clone(),
                    scale: 0.7,
                    dropout: Some(Dropout {
                        probability: 0.3,
                        seed: 11,
                    }),
                };
                let input = if transposed {
                    x.clone().transpose()
                } else {
                    x.clone()
                };
                let y = f(input, w.clone(), Some(adapter));
                let grads = weighted_sum(y.clone()).backward();
                let mut all = vec![y.into_data()];
                all.extend([&x, &w, &a, &b].map(|x| gradient(x, &grads)));
                all
            };
            let found = run(linear, &device());
            let expected = run(portable::linear, &cpu());
            for (i, (f, e)) in found.into_iter().zip(expected).enumerate() {
                assert_close(&format!("number {i} of {rows}x{features}"), f, e, 1e-5);
            }
        }
    }
}

/// With `A` and `B` the identity the adapter's product is the dropped-out input: zero, or `1 / (1 − p)` times as much.
#[test]
fn dropout_drops_a_part_and_scales_the_rest() {
    let (rows, features) = (64, 128);
    let x = Tensor::<2>::ones([rows, features], &device());
    let eye = Tensor::<2>::eye(features, &device());
    let run = |seed| {
        let adapter = LowRank {
            a: eye.clone(),
            b: eye.clone(),
            scale: 1.0,
            dropout: Some(Dropout {
                probability: 0.2,
                seed,
            }),
        };
        let y = linear(
            x.clone(),
            Tensor::zeros([features, features], &device()),
            Some(adapter),
        );
        crate::values(&y.into_data())
    };
    let numbers = run(1);
    assert!(numbers.iter().all(|x| *x == 0.0 || (x - 1.25).abs() < 1e-6));
    let dropped = numbers.iter().filter(|x| **x == 0.0).count() as f64;
    // Deviation √(0.2·0.8/8192) = 0.0044.
    assert!((dropped / 8192.0 - 0.2).abs() < 0.02, "{dropped}");
    assert_eq!(run(1), numbers);
    assert_ne!(run(2), numbers);
}
