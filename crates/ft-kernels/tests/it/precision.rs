//! Products in `bf16`, in a process of their own, since the precision is that of a process.

use std::process::Command;

use burn::tensor::{DType, Tensor, TensorData};
use ft_kernels::{
    LossOptions, LowRank, PackedFormat, Precision, cross_entropy_sum, linear, portable,
    set_precision,
};

use crate::packed::{dense, packed};
use crate::{assert_close, cpu, gradient, numbers, on_the_cpu, values};

const CHILD: &str = "FT_TEST_PRECISION";

#[test]
fn products_in_bf16() {
    if !on_the_cpu("precision is for the CPU") {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let on = set_precision(Precision::Bf16);
        all_factors_of_bf16_give_what_f32_gives();
        other_factors_are_rounded(on);
        blocks_are_multiplied_too();
        losses_of_a_head_are_near();
        return;
    }
    let test = std::env::current_exe().expect("this program");
    let mut child = Command::new(test);
    child.args(["precision::products_in_bf16", "--exact", "--nocapture"]);
    let output = child.env(CHILD, "1").output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

/// Integers of few bits, whose sums of products are numbers of `bf16` too.
fn integers<const D: usize>(shape: [usize; D]) -> TensorData {
    let numbers: Vec<f32> = values(&numbers(shape))
        .iter()
        .map(|x| x.round().clamp(-1.0, 1.0))
        .collect();
    TensorData::new(numbers, shape)
}

fn all_factors_of_bf16_give_what_f32_gives() {
    let device = cpu();
    // One row, few, some, and many; whole tiles and parts.
    for rows in [1, 3, 16, 33, 48, 49, 131, 600] {
        for (features, out, rank) in [(97, 50, 16), (64, 211, 4), (192, 160, 32)] {
            let x = integers([rows, features]);
            let (a, b) = (integers([rank, features]), integers([out, rank]));
            let t = Tensor::<2>::from_data(integers([rows, out]), &device);
            for transposed in [false, true] {
                let shape = if transposed {
                    [features, out]
                } else {
                    [out, features]
                };
                let w = integers(shape);
                for dtype in [DType::F32, DType::F16, DType::BF16] {
                    type Operation = fn(Tensor<2>, Tensor<2>, Option<LowRank>) -> Tensor<2>;
                    let run = |f: Operation, dtype: DType| {
                        let leaf = |data: &TensorData| {
                            Tensor::<2>::from_data(data.clone(), &device).require_grad()
                        };
                        let [x, a, b] = [&x, &a, &b].map(leaf);
                        let w = match dtype {
                            DType::F32 => leaf(&w),
                            _ => Tensor::<2>::from_data(w.clone(), &device).cast(dtype),
                        };
                        let weight = if transposed {
                            w.clone().transpose()
                        } else {
                            w.clone()
                        };
                        let adapter = LowRank {
                            a: a.clone(),
                            b: b.clone(),
                            scale: 0.5,
                            dropout: None,
                        };
                        let y = f(x.clone(), weight, Some(adapter));
                        let grads = (y.clone() * t.clone()).sum().backward();
                        let mut all = vec![y.into_data()];
                        all.extend([&x, &a, &b].map(|x| gradient(x, &grads)));
                        if dtype == DType::F32 {
                            all.push(gradient(&w, &grads));
                        }
                        all
                    };
                    let found = run(linear, dtype);
                    let expected = run(portable::linear, DType::F32);
                    for (i, (f, e)) in found.into_iter().zip(expected).enumerate() {
                        let what = format!(
                            "number {i}, {rows} × {out} × {features}, {dtype:?}, {transposed}"
                        );
                        assert_close(&what, f, e, 1e-6);
                    }
                }
            }
        }
    }
}

fn other_factors_are_rounded(on: bool) {
    let device = cpu().inner();
    for rows in [20, 80, 300] {
        let (x, w) = (numbers([rows, 128]), numbers([96, 128]));
        let tensor = |data: &TensorData| Tensor::<2>::from_data(data.clone(), &device);
        let found = linear(tensor(&x), tensor(&w), None);
        let error = |x: Tensor<2>, w: Tensor<2>| {
            let expected = x.matmul(w.transpose());
            let largest = (found.clone() - expected).abs().max();
            values(&largest.into_data())[0]
        };
        let round = |data: &TensorData| tensor(data).cast(DType::BF16).cast(DType::F32);
        let exact = error(tensor(&x), tensor(&w));
        let rounded = error(round(&x), round(&w));
        match on {
            true => assert!(
                rounded < 1e-4 && exact > 1e-3 && exact < 0.3,
                "{rounded} {exact}"
            ),
            false => assert!(exact < 1e-4, "{exact}"),
        }
    }
}

fn blocks_are_multiplied_too() {
    let (device, shape) = (cpu(), [96, 128]);
    let packed = packed(PackedFormat::NF4, shape, &device);
    for rows in [20, 300] {
        let x = Tensor::<2>::from_data(numbers([rows, shape[1]]), &device).require_grad();
        let t = Tensor::<2>::from_data(integers([rows, shape[0]]), &device);
        let both = [false, true].map(|dense_twin| {
            let y = match dense_twin {
                true => portable::linear(x.clone(), dense(&packed, &device), None),
                false => linear(x.clone(), packed.clone(), None),
            };
            let grads = (y.clone() * t.clone()).sum().backward();
            [y.into_data(), gradient(&x, &grads)]
        });
        let [found, expected] = both;
        for (f, e) in found.into_iter().zip(expected) {
            assert_close("blocks", f, e, 5e-3);
        }
    }
}

fn losses_of_a_head_are_near() {
    let device = cpu();
    let (h, w) = (numbers([70, 64]), numbers([500, 64]));
    let targets: Vec<i64> = (0..70).map(|i| i * 7).collect();
    type Operation = fn(Tensor<2>, Tensor<2>, &[i64], LossOptions) -> Tensor<1>;
    let run = |f: Operation| {
        let [h, w] = [&h, &w].map(|x| Tensor::<2>::from_data(x.clone(), &device).require_grad());
        let loss = f(h.clone(), w.clone(), &targets, LossOptions::default());
        let grads = loss.clone().backward();
        [values(&loss.into_data())[0] / 70.0]
            .into_iter()
            .chain(values(&gradient(&h, &grads)))
            .chain(values(&gradient(&w, &grads)))
            .collect::<Vec<f32>>()
    };
    let found = run(cross_entropy_sum);
    let expected = run(portable::cross_entropy_sum);
    let largest = |x: &[f32]| x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!((found[0] - expected[0]).abs() < 5e-3 * expected[0]);
    let errors: Vec<f32> = found[1..]
        .iter()
        .zip(&expected[1..])
        .map(|(f, e)| f - e)
        .collect();
    assert!(
        largest(&errors) < 2e-2 * largest(&expected[1..]),
        "{}",
        largest(&errors)
    );
}
