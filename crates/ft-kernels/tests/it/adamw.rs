use burn::backend::Flex;
use burn::optim::{AdamWConfig, Optimizer};
use burn::tensor::{DType, Distribution, Int, Tensor};
use ft_kernels::{AdamWStep, BLOCK, Blockwise, DynamicMap, adamw, adamw_8bit, portable};

use crate::{assert_close, device, on_the_cpu};

/// One, a prime, a block and its neighbours, more than a piece.
const SIZES: [usize; 7] = [1, 7, 255, 256, 257, 8191, 40_009];

fn random(numbers: usize) -> Tensor<1> {
    Tensor::random([numbers], Distribution::Normal(0.0, 1.0), &device().inner())
}

fn zeros(numbers: usize) -> Tensor<1> {
    Tensor::zeros([numbers], &device().inner())
}

fn step(number: usize) -> AdamWStep {
    AdamWStep {
        number,
        learning_rate: 0.01,
        betas: (0.9, 0.99),
        eps: 1e-8,
        weight_decay: 0.1,
        scale: 0.25,
    }
}

fn floats(x: Tensor<1>) -> Vec<f32> {
    x.into_data().try_to_vec().expect("f32")
}

fn bytes(x: Tensor<1, Int>) -> Vec<u8> {
    x.into_data().try_to_vec().expect("u8")
}

type Step = fn(Tensor<1>, Tensor<1>, [Tensor<1>; 2], &AdamWStep) -> (Tensor<1>, [Tensor<1>; 2]);

/// Parameter and moments after a step a gradient.
fn walk(f: Step, param: &Tensor<1>, gradients: &[Tensor<1>]) -> [Tensor<1>; 3] {
    let [numbers] = param.dims();
    let (mut param, mut moments) = (param.clone(), [zeros(numbers), zeros(numbers)]);
    for (place, gradient) in gradients.iter().enumerate() {
        (param, moments) = f(param, gradient.clone(), moments, &step(place + 1));
    }
    let [first, second] = moments;
    [param, first, second]
}

#[test]
fn steps_are_those_of_burns_operations() {
    for numbers in SIZES {
        let param = random(numbers);
        let gradients: Vec<_> = (0..5).map(|_| random(numbers)).collect();
        let found = walk(adamw, &param, &gradients);
        let expected = walk(portable::adamw, &param, &gradients);
        for (f, e) in found.into_iter().zip(expected) {
            assert_close("parameter or moment", f.into_data(), e.into_data(), 1e-6);
        }
    }
}

/// Burn computes `1 − βᵗ` in `f32`, which costs it the last digits of the learning rate.
#[test]
fn steps_are_those_of_burns_adamw() {
    let optimizer = AdamWConfig::new()
        .with_beta_1(0.9)
        .with_beta_2(0.99)
        .with_epsilon(1e-8)
        .with_weight_decay(0.1)
        .build();
    for numbers in SIZES {
        let param = random(numbers);
        let gradients: Vec<_> = (0..5).map(|_| random(numbers)).collect();
        let [found, ..] = walk(adamw, &param, &gradients);
        let (mut expected, mut state) = (param, None);
        for gradient in gradients {
            (expected, state) = optimizer.step(0.01, expected, gradient * 0.25, state);
        }
        assert_close("parameter", found.into_data(), expected.into_data(), 1e-6);
    }
}

/// g = 2·½: m = 0.1, v = 0.001, m̂ = v̂ = 1; p = 3 − 0.1·0.5·3 − 0.1·1/(1 + 1) = 2.8.
#[test]
fn a_step_by_hand() {
    let number = |x: f32| Tensor::<1>::from_data([x], &device().inner());
    let step = AdamWStep {
        number: 1,
        learning_rate: 0.1,
        betas: (0.9, 0.999),
        eps: 1.0,
        weight_decay: 0.5,
        scale: 0.5,
    };
    let (param, [first, second]) = adamw(number(3.0), number(2.0), [zeros(1), zeros(1)], &step);
    assert!((floats(param)[0] - 2.8).abs() < 1e-6);
    assert!((floats(first)[0] - 0.1).abs() < 1e-8);
    assert!((floats(second)[0] - 0.001).abs() < 1e-10);
}

#[test]
fn views_are_read_as_they_lie() {
    let grid = random(35).reshape([5, 7]);
    let turned = |x: &Tensor<2>| x.clone().transpose();
    let copied = |x: &Tensor<2>| Tensor::<2>::from_data(turned(x).to_data(), &x.device());
    let zeros = || [(); 2].map(|()| Tensor::<2>::zeros([7, 5], &grid.device()));
    let (found, _) = adamw(turned(&grid), turned(&grid), zeros(), &step(1));
    let (expected, _) = adamw(copied(&grid), copied(&grid), zeros(), &step(1));
    assert_close("view", found.into_data(), expected.into_data(), 0.0);
    // A part of a storage that others see.
    let part = grid.clone().narrow(0, 1, 2);
    let zeros = || [(); 2].map(|()| Tensor::<2>::zeros([2, 7], &grid.device()));
    let (found, _) = adamw(part.clone(), part.clone(), zeros(), &step(1));
    let (expected, _) = portable::adamw(part.clone(), part, zeros(), &step(1));
    assert_close("part", found.into_data(), expected.into_data(), 1e-6);
}

fn place(x: &Tensor<1>) -> *const f32 {
    let primitive = x.clone().try_into_primitive::<Flex>().expect("on Flex");
    primitive.storage::<f32>().as_ptr()
}

#[test]
fn what_nobody_else_holds_is_changed_where_it_lies() {
    if !on_the_cpu("it looks at the storage of Flex") {
        return;
    }
    let (param, first, second) = (random(1000), zeros(1000), zeros(1000));
    let before = [&param, &first, &second].map(place);
    let (param, [first, second]) = adamw(param, random(1000), [first, second], &step(1));
    assert_eq!([&param, &first, &second].map(place), before);
}

#[test]
fn what_others_hold_stays_as_it_is() {
    let (param, gradient, zero) = (random(1000), random(1000), zeros(1000));
    let before = [&param, &gradient, &zero].map(|x| floats(x.clone()));
    let moments = [zero.clone(), zero.clone()];
    let (after, [first, second]) = adamw(param.clone(), gradient.clone(), moments, &step(1));
    assert_eq!(
        [&param, &gradient, &zero].map(|x| floats(x.clone())),
        before
    );
    assert_ne!(floats(after), before[0]);
    assert_ne!(floats(first), floats(second));
}

#[test]
fn a_parameter_in_16_bits_has_moments_in_32() {
    let param = random(100).cast(DType::BF16);
    let gradient = random(100).cast(DType::BF16);
    let (param, [_, second]) = adamw(param, gradient, [zeros(100), zeros(100)], &step(1));
    assert_eq!((param.dtype(), second.dtype()), (DType::BF16, DType::F32));
}

struct Walked8bit {
    param: Vec<f32>,
    codes: [Vec<u8>; 2],
    absmax: [Vec<f32>; 2],
}

type Step8bit = fn(Tensor<1>, Tensor<1>, [Blockwise; 2], &AdamWStep) -> (Tensor<1>, [Blockwise; 2]);

fn walk_8bit(f: Step8bit, param: &Tensor<1>, gradients: &[Tensor<1>]) -> Walked8bit {
    let [numbers] = param.dims();
    let mut param = param.clone();
    let mut moments = [(); 2].map(|()| Blockwise::zeros(numbers, &param.device()));
    for (place, gradient) in gradients.iter().enumerate() {
        (param, moments) = f(param, gradient.clone(), moments, &step(place + 1));
    }
    let [first, second] = moments;
    Walked8bit {
        param: floats(param),
        codes: [bytes(first.codes), bytes(second.codes)],
        absmax: [floats(first.absmax), floats(second.absmax)],
    }
}

/// The same numbers but for rounding; a number on a bound may take either code.
#[test]
fn steps_in_8_bits_are_those_of_burns_operations() {
    if !on_the_cpu("8-bit states need a device with u8") {
        return;
    }
    for numbers in SIZES {
        let param = random(numbers);
        // Of very different sizes, so that some second moments round to zero.
        let gradient = || random(numbers).powi_scalar(9);
        let gradients = [gradient(), gradient(), gradient()];
        let found = walk_8bit(adamw_8bit, &param, &gradients);
        let expected = walk_8bit(portable::adamw_8bit, &param, &gradients);
        let mut others = 0;
        for (found, expected) in found.codes.iter().zip(&expected.codes) {
            assert_eq!(found.len(), numbers);
            for (f, e) in found.iter().zip(expected) {
                assert!(f.abs_diff(*e) <= 1, "code {f}, expected {e}");
                others += usize::from(f != e);
            }
        }
        assert!(
            others <= numbers / 1000,
            "{others} other codes of {numbers}"
        );
        for (found, expected) in found.absmax.iter().zip(&expected.absmax) {
            assert_eq!(found.len(), numbers.div_ceil(BLOCK));
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() <= 1e-5 * e, "{f}, expected {e}");
            }
        }
        // A code that differs moves a parameter by a part of the learning rate of 0.01.
        let far = |tolerance: f32| {
            let pairs = found.param.iter().zip(&expected.param);
            pairs.filter(|(f, e)| (**f - **e).abs() > tolerance).count()
        };
        assert!(far(1e-6) <= others && far(1e-2) == 0);
    }
}

#[test]
fn threads_change_nothing() {
    if !on_the_cpu("it is about the threads of Flex") {
        return;
    }
    let param = random(100_003);
    let gradients = [random(100_003), random(100_003)];
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("a pool").install(|| {
            let whole = walk(adamw, &param, &gradients).map(floats);
            let small = walk_8bit(adamw_8bit, &param, &gradients);
            (whole, small.param, small.codes, small.absmax)
        })
    };
    assert!(run(1) == run(3));
}

/// Neighbours in the highest decade, [0.1, 1], lie 0.9/64 (signed) or 0.9/128 apart, all others nearer.
#[test]
fn what_is_dequantized_is_the_nearest_number_of_the_map() {
    if !on_the_cpu("8-bit states need a device with u8") {
        return;
    }
    for (map, parts) in [(DynamicMap::Signed, 64.0), (DynamicMap::Unsigned, 128.0)] {
        let x = match map {
            DynamicMap::Signed => random(5000),
            DynamicMap::Unsigned => random(5000).abs(),
        };
        let held = Blockwise::quantize(x.clone(), map);
        let absmax = floats(held.absmax.clone());
        let found = floats(held.dequantize(map));
        for (place, (x, found)) in floats(x).into_iter().zip(found).enumerate() {
            let most = absmax[place / BLOCK];
            let errors = map.values().iter().map(|value| (value * most - x).abs());
            let least = errors.fold(f32::INFINITY, f32::min);
            let error = (x - found).abs();
            assert!(error <= least + 1e-6 * x.abs(), "{x} became {found}");
            assert!(error <= 0.5001 * 0.9 / parts * most, "{x} became {found}");
        }
    }
}

#[test]
fn the_maximum_of_a_block_is_held_as_it_is() {
    if !on_the_cpu("8-bit states need a device with u8") {
        return;
    }
    let x = random(3 * BLOCK).abs();
    let held = Blockwise::quantize(x.clone(), DynamicMap::Unsigned);
    let absmax = floats(held.absmax.clone());
    let found = floats(held.dequantize(DynamicMap::Unsigned));
    for (block, most) in absmax.into_iter().enumerate() {
        let range = block * BLOCK..(block + 1) * BLOCK;
        let largest = found[range].iter().copied().fold(0.0, f32::max);
        assert_eq!(largest, most);
    }
}

#[test]
fn zeros_stay_zeros() {
    if !on_the_cpu("8-bit states need a device with u8") {
        return;
    }
    let param = random(300);
    let walked = walk_8bit(adamw_8bit, &param, &[zeros(300), zeros(300)]);
    let kept: Vec<f32> = floats(param)
        .into_iter()
        .map(|p| p * 0.999 * 0.999)
        .collect();
    for (found, expected) in walked.param.iter().zip(kept) {
        assert!((found - expected).abs() < 1e-6);
    }
    assert_eq!(walked.absmax, [vec![0.0; 2], vec![0.0; 2]]);
}

/// A gradient of 10⁻⁴ of its block's largest: its square is below the least number of the map.
/// Once it is gone, its first moment over nothing but ε would be 10⁻⁵·0.9 / 10⁻⁸, 900 learning rates.
#[test]
fn a_small_gradient_beside_a_large_one_does_not_blow_up() {
    if !on_the_cpu("8-bit states need a device with u8") {
        return;
    }
    let mut gradient = [0.0; 256];
    gradient[0] = 1.0;
    gradient[1] = 1e-4;
    let gradient = Tensor::<1>::from_data(gradient, &device().inner());
    for f in [adamw_8bit as Step8bit, portable::adamw_8bit] {
        let walked = walk_8bit(f, &zeros(256), &[gradient.clone() * 4.0, zeros(256)]);
        let moved = walked.param[1].abs();
        assert!(
            moved < 3.0 * step(1).learning_rate as f32,
            "moved by {moved}"
        );
        assert!(walked.codes[1][1] > 0);
    }
}
