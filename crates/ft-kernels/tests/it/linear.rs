use burn::tensor::{Device, Tensor, TensorData};
use ft_kernels::{LowRank, linear, portable};

use crate::{assert_close, cpu, device, gradient, leaf, numbers, weighted_sum};

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
