use burn::tensor::{Device, Distribution, Tensor};
use ft_kernels::{LowRank, linear, portable};

use crate::{assert_close, device, gradient, leaf, weighted_sum};

#[test]
fn with_and_without_adapter_all_gradients() {
    let device = device();
    for (rows, features, out, rank) in [
        (1, 1, 1, 1),
        (7, 5, 3, 2),
        (1, 64, 31, 8),
        (131, 97, 211, 16),
    ] {
        for transposed in [false, true] {
            let x = leaf([rows, features], &device);
            let shape = if transposed {
                [features, out]
            } else {
                [out, features]
            };
            let w = leaf(shape, &device);
            let (a, b) = (leaf([rank, features], &device), leaf([out, rank], &device));
            type Operation = fn(Tensor<2>, Tensor<2>, Option<LowRank>) -> Tensor<2>;
            let run = |f: Operation, adapted: bool| {
                let adapter = adapted.then(|| LowRank {
                    a: a.clone(),
                    b: b.clone(),
                    scale: 0.7,
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
                let found = run(linear, adapted);
                for (i, (f, e)) in found
                    .into_iter()
                    .zip(run(portable::linear, adapted))
                    .enumerate()
                {
                    assert_close(&format!("number {i}"), f, e, 1e-5);
                }
            }
        }
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_the_factors_do() {
    let device = device();
    let w = Tensor::<2>::random([4, 6], Distribution::Default, &device);
    let x = Tensor::<2>::random([3, 6], Distribution::Default, &device);
    let (a, b) = (leaf([2, 6], &device), leaf([4, 2], &device));
    let adapter = LowRank {
        a: a.clone(),
        b: b.clone(),
        scale: 2.0,
    };
    let grads = weighted_sum(linear(x.clone(), w.clone(), Some(adapter))).backward();
    assert!(w.grad(&grads).is_none() && x.grad(&grads).is_none());
    assert!(a.grad(&grads).is_some() && b.grad(&grads).is_some());
}

#[test]
fn an_embedding_of_all_rows_and_a_part_of_a_larger_tensor() {
    let device = Device::default();
    let all = Tensor::<2>::random([9, 20], Distribution::Default, &device);
    let w = Tensor::<2>::random([5, 8], Distribution::Default, &device);
    let part = all.narrow(1, 4, 8).narrow(0, 2, 6);
    let copy = Tensor::<2>::from_data(part.to_data(), &device);
    let found = linear(part, w.clone(), None).into_data();
    assert_close("part", found, linear(copy, w, None).into_data(), 0.0);
}
