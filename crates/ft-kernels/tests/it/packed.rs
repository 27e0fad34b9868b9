//! The block formats against ggml, from `golden/packed.py`, which says what is in the file.

use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use ft_kernels::{
    LogitOptions, LossOptions, LowRank, Packed, PackedFormat, Weight, cross_entropy_sum, linear,
    portable, score_logits, score_tokens, token_logps_and_entropy,
};
use safetensors::SafeTensors;

use crate::{assert_close, cpu, device, gradient, on_the_cpu, values, weighted_sum};

const GGML: &[u8] = include_bytes!("../golden/packed.safetensors");
const BITSANDBYTES: &[u8] = include_bytes!("../golden/nf4.safetensors");

fn bytes(name: &str) -> Vec<u8> {
    bytes_of(GGML, name)
}

fn bytes_of(file: &[u8], name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(file).expect("a file of safetensors");
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
    tensor.data().to_vec()
}

fn numbers(name: &str) -> Vec<f32> {
    numbers_of(GGML, name)
}

fn numbers_of(file: &[u8], name: &str) -> Vec<f32> {
    let bytes = bytes_of(file, name);
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

const WIDTH: usize = 512;

/// Says in which row and block the first difference is.
fn assert_same_bytes(what: &str, format: PackedFormat, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len());
    let size = format.block_bytes();
    let blocks = found.chunks_exact(size).zip(expected.chunks_exact(size));
    for (i, (found, expected)) in blocks.enumerate() {
        let first = i * format.block();
        assert!(
            found == expected,
            "{format} {what}, row {}, numbers {}..: {found:02x?}, ggml has {expected:02x?}",
            first / WIDTH,
            first % WIDTH
        );
    }
}

#[test]
fn bytes_are_those_of_ggml() {
    let x = numbers("x");
    for &format in PackedFormat::GGUF {
        let mut found = vec![0xff; format.bytes_of(x.len())];
        format.encode(&x, &mut found).expect("numbers are finite");
        assert_same_bytes("", format, &found, &bytes(&format!("{format}.bytes")));
    }
}

#[test]
fn bytes_with_the_importance_of_columns_are_those_of_ggml() {
    let (x, importance) = (numbers("x"), numbers("importance"));
    for &format in PackedFormat::GGUF {
        let size = format.bytes_of(WIDTH);
        let mut found = vec![0xff; format.bytes_of(x.len())];
        for (x, found) in x.chunks_exact(WIDTH).zip(found.chunks_exact_mut(size)) {
            let written = format.encode_weighted(x, &importance, found);
            written.expect("numbers are finite");
        }
        let expected = bytes(&format!("{format}.weighted"));
        assert_same_bytes("weighted", format, &found, &expected);
    }
}

#[test]
fn numbers_are_those_of_ggml() {
    for &format in PackedFormat::GGUF {
        let random = bytes(&format!("{format}.random"));
        let expected = numbers(&format!("{format}.numbers"));
        let mut found = vec![f32::NAN; expected.len()];
        format.decode(&random, &mut found);
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let same = found.to_bits() == expected.to_bits();
            assert!(same, "{format} at {i}: {found}, ggml has {expected}");
        }
        let shape = [3, 256];
        let packed = Packed::from_bytes(format, Bytes::from_bytes_vec(random), shape, &device());
        let whole = packed.dequantize().into_data();
        assert_eq!(values(&whole), expected, "{format}");
        let ids = Tensor::<1, Int>::from_data([2i64, 0], &device());
        let rows = values(&packed.rows(ids).into_data());
        assert_eq!(
            rows,
            [&expected[512..], &expected[..256]].concat(),
            "{format}"
        );
    }
}

#[test]
fn blocks_and_numbers_are_those_of_bitsandbytes() {
    let x = numbers_of(BITSANDBYTES, "x");
    for format in [PackedFormat::NF4, PackedFormat::FP4] {
        let mut found = vec![0xff; format.bytes_of(x.len())];
        format.encode(&x, &mut found).expect("numbers are finite");
        let packed = bytes_of(BITSANDBYTES, &format!("{format}.packed"));
        let absmax = bytes_of(BITSANDBYTES, &format!("{format}.absmax"));
        let blocks = packed.chunks_exact(32).zip(absmax.chunks_exact(4));
        let expected: Vec<u8> = blocks
            .flat_map(|(q, absmax)| [absmax, q].concat())
            .collect();
        assert_same_bytes("", format, &found, &expected);
        let mut decoded = vec![f32::NAN; x.len()];
        format.decode(&expected, &mut decoded);
        let numbers = numbers_of(BITSANDBYTES, &format!("{format}.numbers"));
        for (i, (found, expected)) in decoded.iter().zip(&numbers).enumerate() {
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{format} at {i}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn groups_of_integers_are_within_half_a_step() {
    for bits in [4, 8] {
        for group in [32, 64, 128] {
            let format = PackedFormat::integers(bits, group).expect("a format");
            let x = values(&crate::numbers([4, 256]));
            let mut bytes = vec![0; format.bytes_of(x.len())];
            format.encode(&x, &mut bytes).expect("numbers are finite");
            let mut found = vec![0.0; x.len()];
            format.decode(&bytes, &mut found);
            for (found, x) in found.chunks_exact(group).zip(x.chunks_exact(group)) {
                let (min, max) = x
                    .iter()
                    .fold((0.0f32, 0.0f32), |(a, b), x| (a.min(*x), b.max(*x)));
                let step = (max - min) / ((1 << bits) - 1) as f32;
                // The range moves by the rounding of the zero point, so its ends are cut by up to half a step more.
                let inside = |x: f32| x > min + 0.5 * step && x < max - 0.5 * step;
                for (found, x) in found.iter().zip(x) {
                    let most = if inside(*x) { 0.501 } else { 1.001 };
                    assert!((found - x).abs() <= most * step, "{format}");
                }
            }
        }
    }
    assert_eq!(PackedFormat::integers(3, 64), None);
}

/// Numbers of about 0.1 in blocks.
pub(crate) fn packed(format: PackedFormat, shape: [usize; 2], device: &Device) -> Packed {
    let weights: Vec<f32> = values(&crate::numbers(shape))
        .iter()
        .map(|w| w * 0.1)
        .collect();
    let size = format.bytes_of(shape[1]);
    let mut bytes = vec![0; size * shape[0]];
    for (row, bytes) in weights
        .chunks_exact(shape[1])
        .zip(bytes.chunks_exact_mut(size))
    {
        format.encode(row, bytes).expect("numbers are finite");
    }
    Packed::from_bytes(format, Bytes::from_bytes_vec(bytes), shape, device)
}

pub(crate) fn dense(packed: &Packed, device: &Device) -> Tensor<2> {
    Tensor::from_data(packed.dequantize().into_data(), device)
}

/// All formats whose products with a gradient are exact. For the other one see `vector_wise`.
fn exact_formats() -> impl Iterator<Item = PackedFormat> {
    let all = PackedFormat::ALL.iter().copied();
    all.filter(|format| *format != PackedFormat::INT8)
}

const SHAPES: [(usize, [usize; 2]); 7] = [
    (1, [3, 256]),
    (1, [300, 512]),
    (2, [13, 256]),
    (3, [130, 256]),
    (7, [9, 768]),
    (41, [70, 256]),
    (515, [21, 512]),
];

/// Of 32 numbers each becomes the nearest of 255 multiples of the largest, divided by 127.
fn rounded(x: &TensorData) -> TensorData {
    let mut numbers = values(x);
    for chunk in numbers.chunks_exact_mut(32) {
        let most = chunk.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for x in chunk {
            *x = (*x * (127.0 / most)).round_ties_even() * (most / 127.0);
        }
    }
    TensorData::new(numbers, x.shape().clone())
}

#[test]
fn products_without_a_gradient_are_those_of_a_rounded_input() {
    if !on_the_cpu("other devices decode the weight") {
        return;
    }
    let device = Device::flex();
    for format in exact_formats() {
        for (rows, [out, features]) in SHAPES {
            let weight = packed(format, [out, features], &device);
            let x = crate::numbers([rows, features]);
            let found = linear(
                Tensor::<2>::from_data(x.clone(), &device),
                weight.clone(),
                None,
            );
            let is_table = matches!(format, PackedFormat::NF4 | PackedFormat::FP4);
            let x = if has_int8() && !is_table {
                rounded(&x)
            } else {
                x
            };
            let x = Tensor::<2>::from_data(x, &device);
            let expected = portable::linear(x, dense(&weight, &device), None);
            let what = format!("{format}, {rows} rows, {out} × {features}");
            assert_close(&what, found.into_data(), expected.into_data(), 2e-5);
        }
    }
}

fn has_int8() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[test]
fn products_with_a_gradient_are_those_of_the_numbers() {
    let device = device();
    for format in exact_formats() {
        for (rows, [out, features]) in SHAPES {
            let weight = packed(format, [out, features], &device);
            let data = [
                crate::numbers([rows, features]),
                crate::numbers([4, features]),
                crate::numbers([out, 4]),
            ];
            for adapted in [false, true] {
                let run = |weight: Weight, device: &Device| {
                    let leaf =
                        |x: &TensorData| Tensor::<2>::from_data(x.clone(), device).require_grad();
                    let [x, a, b] = data.each_ref().map(leaf);
                    let adapter = adapted.then(|| LowRank {
                        a: a.clone(),
                        b: b.clone(),
                        scale: 0.5,
                        dropout: None,
                    });
                    let y = linear(x.clone(), weight, adapter);
                    let grads = weighted_sum(y.clone()).backward();
                    let mut all = vec![y.into_data(), gradient(&x, &grads)];
                    if adapted {
                        all.extend([gradient(&a, &grads), gradient(&b, &grads)]);
                    }
                    all
                };
                let found = run(weight.clone().into(), &device);
                let expected = run(dense(&weight, &cpu()).into(), &cpu());
                for (i, (f, e)) in found.into_iter().zip(expected).enumerate() {
                    let what = format!("{format}, {rows} rows, {out} × {features}, number {i}");
                    assert_close(&what, f, e, 1e-5);
                }
            }
        }
    }
}

#[test]
fn losses_of_a_packed_head_are_those_of_its_numbers() {
    let device = device();
    let hidden = crate::numbers([19, 256]);
    let targets: Vec<i64> = (0..19).map(|i| i * 7 % 70).collect();
    for format in exact_formats() {
        let weight = packed(format, [70, 256], &device);
        let run = |weight: Weight, device: &Device| {
            let leaf = || Tensor::<2>::from_data(hidden.clone(), device).require_grad();
            let (h, targets) = (leaf(), &targets[..]);
            let loss =
                cross_entropy_sum(h.clone(), weight.clone(), targets, LossOptions::default());
            let mut all = vec![gradient(&h, &loss.backward()), loss.into_data()];
            let h = leaf();
            let [logps, entropy] =
                token_logps_and_entropy(h.clone(), weight, targets, LogitOptions::default());
            let both = Tensor::cat(vec![logps, entropy], 0);
            let grads = weighted_sum(both.clone()).backward();
            all.extend([gradient(&h, &grads), both.into_data()]);
            all
        };
        let found = run(weight.clone().into(), &device);
        let expected = run(dense(&weight, &cpu()).into(), &cpu());
        for (f, e) in found.into_iter().zip(expected) {
            assert_close(&format.to_string(), f, e, 1e-5);
        }
        // Without a gradient the hidden states are rounded.
        let h = Tensor::<2>::from_data(hidden.clone(), &device.clone().inner());
        let scores = score_tokens(h.clone(), weight.clone(), &targets, LogitOptions::default());
        let logits = linear(h, dense(&weight, &device.clone().inner()), None);
        let expected = score_logits(logits, &targets);
        for (found, expected) in scores.iter().zip(&expected) {
            assert!((found.logp - expected.logp).abs() < 0.05, "{format}");
        }
    }
}

/// A mistake must not vanish in the rounding of the input.
#[test]
fn what_is_no_number_stays_none() {
    let device = Device::flex();
    for &format in PackedFormat::ALL {
        let weight = packed(format, [11, 256], &device);
        for rows in [1, 20] {
            let mut x = vec![1.0; rows * 256];
            x[200] = f32::NAN;
            let x = Tensor::<2>::from_data(TensorData::new(x, [rows, 256]), &device);
            let y = values(&linear(x, weight.clone(), None).into_data());
            assert!(y[..11].iter().all(|y| y.is_nan()), "{format}");
            assert!(y[11..].iter().all(|y| y.is_finite()), "{format}");
        }
    }
}
