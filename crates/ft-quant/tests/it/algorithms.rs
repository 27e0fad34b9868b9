//! Rounding to nearest, GPTQ, AWQ, HQQ, SmoothQuant and ranges against numpy, from `golden/algorithms.py`, and what must hold for any weight.

use ft_quant::{
    Error, GptqConfig, Granularity, HqqConfig, Levels, Rounded, Scheme, awq_clip, awq_scales, gptq,
    hqq, output_error, ranges, round_to_nearest, smooth_scales,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("../golden/algorithms.safetensors");
const SHAPE: [usize; 2] = [24, 160];

fn golden(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(FILE).expect("a file of safetensors");
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
    let (numbers, _) = tensor.data().as_chunks::<4>();
    numbers.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

fn scheme(symmetric: bool) -> Scheme {
    Scheme {
        symmetric,
        ..Scheme::grouped(4, 64)
    }
}

/// Every number, within the rounding of `f32`: another level would be a difference of a hundredth.
fn assert_same(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() < 1e-4 * (1.0 + expected.abs());
        assert!(close, "{name}: {found} at {i}, expected {expected}");
    }
}

#[test]
fn rounding_to_nearest() {
    let weight = golden("weight");
    for (name, symmetric) in [("rtn", false), ("rtn_symmetric", true)] {
        let rounded = round_to_nearest(&weight, SHAPE, &scheme(symmetric)).unwrap();
        assert_same(
            name,
            &rounded.dequantize(),
            &golden(&format!("{name}.numbers")),
        );
    }
}

#[test]
fn gptq_in_every_order() {
    let (weight, hessian) = (golden("weight"), golden("hessian"));
    let default = GptqConfig::default();
    for (name, symmetric, act_order, static_groups) in [
        ("gptq", false, false, false),
        ("gptq_symmetric", true, false, false),
        ("gptq_static", false, false, true),
        ("gptq_act_order", false, true, true),
        ("gptq_g_idx", false, true, false),
    ] {
        let config = GptqConfig {
            act_order,
            static_groups,
            ..default
        };
        let found = gptq(&weight, &hessian, SHAPE, &scheme(symmetric), &config).expect("a factor");
        assert_same(
            name,
            &found.dequantize(),
            &golden(&format!("{name}.numbers")),
        );
        if name == "gptq_g_idx" {
            let groups: Vec<f32> = found.group_of.iter().map(|group| *group as f32).collect();
            assert_eq!(groups, golden("gptq_g_idx.groups"));
        }
    }
}

#[test]
fn awq_scales_and_clipping() {
    let (weight, hessian) = (golden("weight"), golden("hessian"));
    let scales = awq_scales(
        &weight,
        &hessian,
        &golden("mean_abs"),
        SHAPE,
        &scheme(false),
    )
    .unwrap();
    assert_same("scales", &scales, &golden("awq.scales"));
    let clipped = awq_clip(&weight, &hessian, SHAPE, &scheme(false)).unwrap();
    assert_same("clipped", &clipped, &golden("awq.clipped"));
}

#[test]
fn hqq_fits_zero_points() {
    let found = hqq(
        &golden("weight"),
        SHAPE,
        &scheme(false),
        &HqqConfig::default(),
    )
    .unwrap();
    assert_same("hqq", &found.dequantize(), &golden("hqq.numbers"));
}

#[test]
fn smoothquant_has_less_error_with_weight_and_inputs_in_8_bits() {
    let (weight, inputs) = (golden("weight"), golden("smooth.inputs"));
    let [rows, cols] = SHAPE;
    let tokens = inputs.len() / cols;
    let scales = smooth_scales(&weight, &golden("max_abs"), SHAPE, 0.5).unwrap();
    assert_same("scales", &scales, &golden("smooth.scales"));
    // The inverse of so small a weight is infinite.
    assert_eq!(smooth_scales(&[1e-45], &[1.0], [1, 1], 0.0).unwrap(), [1.0]);
    let by_column = |x: &[f32], change: fn(f32, f32) -> f32| -> Vec<f32> {
        let scales = golden("smooth.scales");
        let pairs = x.iter().zip(scales.iter().cycle());
        pairs.map(|(x, scale)| change(*x, *scale)).collect()
    };
    let scaled = by_column(&weight, |w, scale| w * scale);
    let smooth = by_column(&inputs, |x, scale| x / scale);
    let rounded = |x: &[f32], rows| {
        let rounded = round_to_nearest(x, [rows, cols], &Scheme::rows(8));
        rounded.unwrap().dequantize()
    };
    let product = |x: &[f32], w: &[f32]| -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(x, w)| x * w).sum();
        let of_token = |x: &[f32]| -> Vec<f32> { w.chunks(cols).map(|w| dot(x, w)).collect() };
        x.chunks(cols).flat_map(of_token).collect()
    };
    let exact = product(&inputs, &weight);
    assert_same("the same product", &product(&smooth, &scaled), &exact);
    let found = product(&rounded(&smooth, tokens), &rounded(&scaled, rows));
    assert_same("smooth", &found, &golden("smooth.outputs"));
    let plain = product(&rounded(&inputs, tokens), &rounded(&weight, rows));
    assert_same("plain", &plain, &golden("plain.outputs"));
    let error = |found: &[f32]| -> f32 {
        let pairs = found.iter().zip(&exact);
        pairs.map(|(a, b)| (a - b).powi(2)).sum()
    };
    // Two columns of the inputs are six times as large as the others.
    assert!(
        error(&found) < 0.3 * error(&plain),
        "{} {}",
        error(&found),
        error(&plain)
    );
}

#[test]
fn ranges_of_numbers_with_few_large_ones() {
    let x = golden("ranges.x");
    let levels = Levels::unsigned(4);
    let (a, b) = ranges::percentile(&x, 0.99);
    let (c, d) = ranges::mean_squared_error(&x, levels, false);
    let (e, f) = ranges::mean_squared_error(&x, levels, true);
    let found = [a, b, c, d, e, f, ranges::entropy(&x, 128)];
    assert_same("ranges", &found, &golden("ranges.found"));
}

/// Numbers of about a normal distribution.
fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        // Steele, Lea and Flood's SplitMix64 (2014)
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    };
    (0..count)
        .map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0)
        .collect()
}

/// `mean x·xᵀ` of inputs that are mixtures of a few directions.
fn second_moments(cols: usize, seed: u64) -> Vec<f32> {
    let mix = normal(cols * 8, seed);
    let noise = normal(cols, seed + 1);
    let mut moments = vec![0.0; cols * cols];
    for i in 0..cols {
        for j in 0..cols {
            let dot: f32 = (0..8).map(|k| mix[i * 8 + k] * mix[j * 8 + k]).sum();
            moments[i * cols + j] = dot + if i == j { 0.1 + noise[i].abs() } else { 0.0 };
        }
    }
    moments
}

#[test]
fn outputs_of_gptq_and_awq_are_nearer_than_those_of_rounding() {
    for (bits, seed) in [(2, 1), (3, 2), (4, 3), (8, 4)] {
        for granularity in [
            Granularity::Tensor,
            Granularity::Channel,
            Granularity::Group(32),
        ] {
            let shape = [40, 96];
            let (weight, hessian) = (normal(40 * 96, seed), second_moments(96, seed + 10));
            let scheme = Scheme {
                bits,
                granularity,
                symmetric: false,
            };
            let error =
                |found: &Rounded| output_error(&weight, &found.dequantize(), &hessian, shape);
            let rounding = error(&round_to_nearest(&weight, shape, &scheme).unwrap());
            let found = gptq(&weight, &hessian, shape, &scheme, &GptqConfig::default());
            let found = error(&found.expect("a factor"));
            assert!(
                found < 0.8 * rounding,
                "{scheme:?}: {found}, rounding {rounding}"
            );
            if granularity != Granularity::Tensor {
                let clipped = awq_clip(&weight, &hessian, shape, &scheme).unwrap();
                let clipped = error(&round_to_nearest(&clipped, shape, &scheme).unwrap());
                assert!(
                    clipped < 1.05 * rounding,
                    "{scheme:?}: {clipped}, rounding {rounding}"
                );
            }
        }
    }
}

#[test]
fn blocks_have_the_numbers_of_the_matrix() {
    let device = burn::tensor::Device::default();
    for (bits, size, cols, block) in [
        (4, 64, 192, 64),
        (3, 128, 256, 128),
        (8, 32, 96, 32),
        (4, 96, 192, 32),
    ] {
        let shape = [5, cols];
        let rounded =
            round_to_nearest(&normal(5 * cols, 3), shape, &Scheme::grouped(bits, size)).unwrap();
        let packed = rounded.packed(&device).expect("whole blocks");
        assert_eq!(packed.format().block(), block);
        let numbers = packed
            .dequantize()
            .into_data()
            .try_to_vec::<f32>()
            .expect("f32");
        assert_eq!(numbers, rounded.dequantize());
    }
    let rounded = round_to_nearest(&normal(160, 4), [1, 160], &Scheme::grouped(4, 80)).unwrap();
    assert_eq!(rounded.format(), None);
}

#[test]
fn second_moments_that_have_no_factor_are_refused_or_damped() {
    let weight = normal(4 * 32, 9);
    let scheme = Scheme::grouped(4, 32);
    let run = |moments: &[f32]| gptq(&weight, moments, [4, 32], &scheme, &GptqConfig::default());
    // Rank 1: only the damping makes it positive definite.
    assert!(run(&vec![1.0; 32 * 32]).is_ok());
    let mut moments = second_moments(32, 10);
    moments[5] = f32::NAN;
    assert!(matches!(run(&moments), Err(Error::NotFinite)));
    moments[5] = 1e9;
    moments[5 * 32] = 1e9;
    assert!(matches!(
        run(&moments),
        Err(Error::NotPositiveDefinite { cols: 32 })
    ));
}

#[test]
fn numbers_that_are_not_finite_are_refused_with_their_place() {
    let (shape, scheme) = ([2, 8], Scheme::grouped(4, 8));
    let hessian: Vec<f32> = (0..64).map(|i| f32::from(i % 9 == 0)).collect();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut weight = normal(16, 5);
        weight[11] = bad;
        let errors = [
            round_to_nearest(&weight, shape, &scheme).err(),
            hqq(&weight, shape, &scheme, &HqqConfig::default()).err(),
            gptq(&weight, &hessian, shape, &scheme, &GptqConfig::default()).err(),
            awq_scales(&weight, &hessian, &[1.0; 8], shape, &scheme).err(),
            awq_clip(&weight, &hessian, shape, &scheme).err(),
            smooth_scales(&weight, &[1.0; 8], shape, 0.5).err(),
        ];
        for error in errors {
            let message = error.expect("refused").to_string();
            assert!(message.contains("row 1, column 3"), "{message}");
        }
    }
}

#[test]
fn outputs_of_zeros_have_no_relative_error() {
    let hessian = second_moments(32, 7);
    let shape = [2, 32];
    assert_eq!(output_error(&[0.0; 64], &[0.0; 64], &hessian, shape), 0.0);
    assert!(output_error(&[0.0; 64], &[0.5; 64], &hessian, shape) > 0.0);
}

/// Columns whose inputs are all alike need no scales.
#[test]
fn scales_are_ones_where_none_are_better() {
    // Every number is on the grid already.
    let weight: Vec<f32> = (0..128).map(|i| (i * 5 % 16) as f32 - 8.0).collect();
    let mut hessian = vec![0.0; 32 * 32];
    for i in 0..32 {
        hessian[i * 33] = 1.0;
    }
    let scheme = Scheme::grouped(4, 32);
    let scales = awq_scales(&weight, &hessian, &[1.0; 32], [4, 32], &scheme).unwrap();
    assert_eq!(scales, [1.0; 32]);
}
