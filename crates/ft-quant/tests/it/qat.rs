//! Fake quantization against PyTorch, from `golden/fake_quantize.py`, and what a model with it is before and after.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use ft_core::module_path::{self, PathMapper};
use ft_core::{AutoCausalLm, CausalLm, Parts, TokenBatch, Weights};
use ft_kernels::constant;
use ft_quant::{
    Algorithm, QuantizeConfig, Scheme, attach_fake_quantizers, fake_quantize, quantize_model,
    round_fake_quantized,
};
use safetensors::SafeTensors;

use crate::model::{TINY, assert_near, logits};

const FILE: &[u8] = include_bytes!("../golden/fake_quantize.safetensors");

fn golden(name: &str, device: &Device) -> Tensor<2> {
    let file = SafeTensors::deserialize(FILE).expect("a file of safetensors");
    let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no {name}"));
    let (numbers, _) = tensor.data().as_chunks::<4>();
    let numbers: Vec<f32> = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
    Tensor::from_data(TensorData::new(numbers, tensor.shape().to_vec()), device)
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let device = Device::default().autodiff();
    for bits in [3, 4] {
        let read = |name: &str| golden(name, &device);
        let [weight, scale, zero_point] =
            ["weight", "scale", "zero_point"].map(|name| read(name).require_grad());
        let output = fake_quantize(weight.clone(), scale.clone(), zero_point.clone(), bits);
        let gradients = (output.clone() * read("g")).sum().backward();
        for (name, found) in [
            ("output", Some(output.inner())),
            ("d_weight", weight.grad(&gradients)),
            ("d_scale", scale.grad(&gradients)),
            ("d_zero_point", zero_point.grad(&gradients)),
        ] {
            let expected = golden(&format!("{bits}.{name}"), &Device::default());
            let found = found.expect("has a gradient");
            assert_near(&format!("{bits} {name}"), found, expected, 1e-5);
        }
    }
}

fn tiny(device: &Device) -> AutoCausalLm {
    AutoCausalLm::from_pretrained_with(Path::new(TINY), device, Weights::F32).unwrap()
}

fn config(bits: u32) -> QuantizeConfig {
    QuantizeConfig {
        algorithm: Algorithm::Nearest,
        scheme: Scheme::grouped(bits, 64),
    }
}

#[test]
fn a_fresh_quantizer_rounds_to_nearest() {
    let device = Device::default().autodiff();
    for bits in [3, 4, 8] {
        let mut expected = tiny(&device);
        quantize_model(&mut expected, &config(bits), None, &mut |_, _| {}).unwrap();
        let model = attach_fake_quantizers(tiny(&device), &config(bits).scheme).unwrap();
        let (found, expected) = (logits(&model), logits(&expected));
        assert_near(&format!("{bits} bits"), found, expected, 1e-4);
    }
}

/// Moves every parameter that trains by what depends on its place.
struct Moved;

impl PathMapper for Moved {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|x| {
            let shape = x.dims();
            let count = shape.iter().product::<usize>() as i64;
            let place = Tensor::<1, Int>::arange(0..count, &x.device()).float();
            let moved = x.clone().inner() + (place.inner() * 1.7).sin().reshape(shape) * 0.02;
            constant(moved, &x).require_grad()
        })
    }
}

#[test]
fn trained_quantizers_become_integers_with_the_same_logits() {
    let device = Device::default().autodiff();
    for symmetric in [false, true] {
        let scheme = Scheme {
            symmetric,
            ..Scheme::grouped(4, 64)
        };
        let model = attach_fake_quantizers(tiny(&device), &scheme).unwrap();
        let mut model = module_path::map_params(model, &mut Moved);
        let expected = logits(&model);
        assert_eq!(round_fake_quantized(&mut model).unwrap(), 35);
        assert_near("logits", logits(&model), expected, 1e-4);
        model.for_each_linear(&mut |path, linear| {
            assert!(
                linear.weight.packed().is_some() && linear.adapters.is_empty(),
                "{path}"
            );
        });
    }
}

#[test]
fn weights_scales_and_zero_points_get_gradients() {
    let device = Device::default().autodiff();
    let model = attach_fake_quantizers(tiny(&device), &config(3).scheme).unwrap();
    // At first no number is beyond the bounds of its grid, and zero points have no gradient.
    let model = module_path::map_params(model, &mut Moved);
    let ids = Tensor::<2, Int>::from_data([[5i64, 9, 300, 41]], &device);
    let loss = model
        .logits(&TokenBatch::new(ids), None)
        .powi_scalar(2)
        .sum();
    let gradients = loss.backward();
    let mut count = 0;
    model.for_each_linear(&mut |path, linear| {
        let mut sizes = Vec::new();
        for tensor in linear.adapters.iter().flat_map(|adapter| &adapter.tensors) {
            if tensor.trains() {
                let gradient = tensor.val2().grad(&gradients);
                let gradient = gradient.unwrap_or_else(|| panic!("{path}.{}", tensor.name()));
                let size = gradient.powi_scalar(2).sum().into_scalar::<f32>().sqrt();
                assert!(size.is_finite() && size > 0.0, "{path}.{}", tensor.name());
                sizes.push(size);
                count += 1;
            }
        }
        // The weight's is the largest, so that clipping by the norm is about weights.
        assert!(
            sizes[1..].iter().all(|size| *size < sizes[0]),
            "{path}: {sizes:?}"
        );
        assert!(!linear.weight.is_require_grad());
    });
    assert_eq!(count, 35 * 3);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let device = Device::default();
    let refused = |scheme| {
        attach_fake_quantizers(tiny(&device), &scheme)
            .unwrap_err()
            .to_string()
    };
    let error = refused(Scheme::grouped(4, 100));
    assert!(
        error.contains("groups of 100 do not divide the 256 columns"),
        "{error}"
    );
    for size in [0, 1024] {
        let error = refused(Scheme::grouped(4, size));
        let expected = format!("groups of {size} do not divide the 256 columns");
        assert!(error.contains(&expected), "{error}");
    }
    assert!(refused(Scheme::grouped(9, 64)).contains("give 2 to 8"));
    let model = attach_fake_quantizers(tiny(&device), &Scheme::grouped(4, 64)).unwrap();
    let error = attach_fake_quantizers(model, &Scheme::grouped(4, 64)).unwrap_err();
    assert!(error.to_string().contains("carries an adapter"), "{error}");
}
