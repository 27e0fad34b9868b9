//! Products of `INT8` weights, whose inputs and gradients are rounded to 8 bits, against the decoded numbers.

use burn::tensor::{Bytes, Device, Tensor, TensorData};
use ft_kernels::{
    LossOptions, LowRank, Packed, PackedFormat, Weight, cross_entropy_sum, exact, linear,
};

use crate::packed::{dense, packed};
use crate::{assert_close, cpu, device, gradient, on_the_cpu, read, values, weighted_sum, weights};

const SHAPES: [(usize, [usize; 2]); 6] = [
    (1, [3, 70]),
    (2, [300, 64]),
    (9, [33, 131]),
    (41, [70, 256]),
    (150, [64, 96]),
    (515, [21, 50]),
];

/// The scale of each row.
fn scales(weight: &Packed) -> Vec<f32> {
    let size = PackedFormat::INT8.bytes_of(weight.dims()[1]);
    weight.with_bytes(|bytes| {
        let rows = bytes.chunks_exact(size);
        rows.map(|row| f32::from_le_bytes([row[0], row[1], row[2], row[3]]))
            .collect()
    })
}

/// Half of a step of the levels of a row. Outliers, more than six times the root mean square, have none.
fn half_step(row: &[f32]) -> f32 {
    let square = row.iter().map(|x| x * x).sum::<f32>() / row.len() as f32;
    let limit = 6.0 * square.sqrt();
    let rest = row.iter().map(|x| x.abs()).filter(|x| *x <= limit);
    rest.fold(0.0, f32::max) / 127.0 / 2.0
}

/// Every number of `found` is within the sum of half steps times magnitudes, `|found − expected|[i, j] ≤ half[i]·Σ |w[k, j]|`,
/// apart from the rounding of sums in `f32`.
fn assert_within(what: &str, found: &[f32], expected: &[f32], halves: &[f32], sums: &[f32]) {
    let most = expected.iter().fold(0.0f32, |most, y| most.max(y.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = halves[i / sums.len()] * sums[i % sums.len()] * 1.001 + 2e-6 * most;
        let error = (found - expected).abs();
        assert!(
            error <= bound,
            "{what} at {i}: {found}, {expected}, which is more than {bound} apart"
        );
    }
}

/// Some numbers of about 1, and some of about 40.
fn inputs(shape: [usize; 2]) -> TensorData {
    let mut x = values(&crate::numbers(shape));
    for (i, x) in x.iter_mut().enumerate() {
        if i % 211 == 3 {
            *x = 40.0 * x.signum();
        }
    }
    TensorData::new(x, shape)
}

#[test]
fn outputs_and_gradients_are_within_the_steps_of_rounding() {
    if !on_the_cpu("other devices decode the weight") {
        return;
    }
    let device = Device::flex().autodiff();
    for (rows, [out, features]) in SHAPES {
        let weight = packed(PackedFormat::INT8, [out, features], &device);
        let numbers = values(&weight.dequantize().into_data());
        let data = [
            inputs([rows, features]),
            crate::numbers([4, features]),
            crate::numbers([out, 4]),
        ];
        let run = |weight: Weight, device: &Device| {
            let leaf = |x: &TensorData| Tensor::<2>::from_data(x.clone(), device).require_grad();
            let [x, a, b] = data.each_ref().map(leaf);
            let adapter = LowRank {
                a: a.clone(),
                b: b.clone(),
                scale: 0.5,
                dropout: None,
            };
            let y = linear(x.clone(), weight, Some(adapter));
            let grads = weighted_sum(y.clone()).backward();
            [
                read(y),
                gradient(&x, &grads),
                gradient(&a, &grads),
                gradient(&b, &grads),
            ]
        };
        let found = run(weight.clone().into(), &device);
        let expected = run(dense(&weight, &cpu()).into(), &cpu());
        let what = format!("{rows} rows, {out} × {features}");
        // The adapter is not rounded.
        for i in [2, 3] {
            assert_close(&what, found[i].clone(), expected[i].clone(), 1e-5);
        }
        let [y, dx] = [0, 1].map(|i| (values(&found[i]), values(&expected[i])));
        let x = values(&data[0]);
        let halves: Vec<f32> = x.chunks_exact(features).map(half_step).collect();
        let sums: Vec<f32> = (numbers.chunks_exact(features))
            .map(|row| row.iter().map(|w| w.abs()).sum())
            .collect();
        assert_within(&what, &y.0, &y.1, &halves, &sums);
        // The gradient is multiplied by the scales of rows before it is rounded, so what is left of the weight are integers.
        let scales = scales(&weight);
        let dy = values(&weights(rows * out));
        let halves: Vec<f32> = (dy.chunks_exact(out))
            .map(|dy| {
                let scaled: Vec<f32> = dy
                    .iter()
                    .zip(&scales)
                    .map(|(dy, scale)| dy * scale)
                    .collect();
                half_step(&scaled)
            })
            .collect();
        let mut sums = vec![0.0; features];
        for (row, scale) in numbers.chunks_exact(features).zip(&scales) {
            for (sum, w) in sums.iter_mut().zip(row) {
                *sum += (w / scale).abs();
            }
        }
        assert_within(&what, &dx.0, &dx.1, &halves, &sums);
    }
}

/// An input of which one number is all there is.
#[test]
fn an_outlier_is_multiplied_as_it_is() {
    let device = device();
    let weight = packed(PackedFormat::INT8, [37, 100], &device);
    let mut x = vec![0.0; 2 * 100];
    (x[13], x[100 + 99]) = (0.123_456_79, -7.654_321);
    let x = Tensor::<2>::from_data(TensorData::new(x, [2, 100]), &device);
    let found = read(linear(x.clone(), weight.clone(), None));
    let expected = read(linear(x, dense(&weight, &device), None));
    for (found, expected) in values(&found).iter().zip(values(&expected)) {
        assert!(
            (found - expected).abs() <= 1e-6 * expected.abs(),
            "{found} {expected}"
        );
    }
}

/// What a model computes while it trains is what it computes afterwards.
#[test]
fn outputs_with_and_without_a_gradient_are_equal() {
    let plain = Device::flex();
    let x = inputs([19, 77]);
    let weight = packed(PackedFormat::INT8, [50, 77], &plain);
    let run = |device: &Device| {
        let bytes = Bytes::from_bytes_vec(weight.with_bytes(<[u8]>::to_vec));
        let weight = Packed::from_bytes(PackedFormat::INT8, bytes, [50, 77], device);
        let x = Tensor::<2>::from_data(x.clone(), device);
        let x = match device.is_autodiff() {
            true => x.require_grad(),
            false => x,
        };
        let exact = exact(|| read(linear(x.clone(), weight.clone(), None)));
        let y = read(linear(x, weight, None));
        assert_eq!(exact, y);
        y
    };
    assert_eq!(run(&plain), run(&plain.clone().autodiff()));
}

#[test]
fn the_loss_of_a_head_is_near_that_of_its_numbers() {
    let device = device();
    let weight = packed(PackedFormat::INT8, [90, 64], &device);
    let hidden = crate::numbers([23, 64]);
    let targets: Vec<i64> = (0..23).map(|i| i * 7 % 90).collect();
    let run = |weight: Weight, device: &Device| {
        let h = Tensor::<2>::from_data(hidden.clone(), device).require_grad();
        let loss = cross_entropy_sum(h.clone(), weight, &targets, LossOptions::default());
        let gradient = gradient(&h, &loss.backward());
        (values(&loss.into_data())[0], values(&gradient))
    };
    let (found, found_gradient) = run(weight.clone().into(), &device);
    let (expected, expected_gradient) = run(dense(&weight, &cpu()).into(), &cpu());
    assert!((found / expected - 1.0).abs() < 2e-3, "{found} {expected}");
    let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let difference: Vec<f32> = (found_gradient.iter().zip(&expected_gradient))
        .map(|(a, b)| a - b)
        .collect();
    assert!(norm(&difference) < 0.02 * norm(&expected_gradient));
}
