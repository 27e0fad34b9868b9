//! Adapters on a base of few bits: their gradients are those on the base's decoded numbers.

use std::collections::BTreeMap;
use std::path::Path;

use ft::burn::module::Param;
use ft::burn::tensor::{Device, Gradients, Int, Tensor};
use ft::core::module_path::{PathMapper, PathVisitor, map_params, visit_params};
use ft::core::{AutoCausalLm, CausalLm, TokenBatch, Weights, causal_lm_loss, dequantize};
use ft::kernels::{PackedFormat, constant};
use ft::peft::{attach, method};
use ft::quant::{Target, pack_model, quantize_model};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny-llama");

/// Moves what trains, so that no factor is zero.
struct Moved;

impl PathMapper for Moved {
    fn map<const D: usize>(&mut self, _: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.is_require_grad() {
            return param;
        }
        param.map(|x| {
            let shape = x.dims();
            let count = shape.iter().product::<usize>() as i64;
            let place = Tensor::<1, Int>::arange(0..count, &x.device()).float();
            let moved = x.clone().inner() + (place.inner() * 1.3).sin().reshape(shape) * 0.01;
            constant(moved, &x).require_grad()
        })
    }
}

/// The gradient of every parameter that trains.
struct Read<'a>(&'a Gradients, BTreeMap<String, Vec<f32>>);

impl PathVisitor for Read<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            let gradient = param.val().grad(self.0);
            let gradient = gradient.unwrap_or_else(|| panic!("{path} has no gradient"));
            let gradient = gradient.into_data().convert::<f32>();
            let numbers = gradient.try_into_vec::<f32>().expect("f32");
            self.1.insert(path.to_string(), numbers);
        }
    }
}

/// Loss, and gradients of an adapter.
fn gradients(base: AutoCausalLm, name: &str, device: &Device) -> (f32, BTreeMap<String, Vec<f32>>) {
    let adapter = method(name, &serde_json::Map::new()).expect("a method");
    let model = attach(base, &*adapter, "default", 3).expect("attaches");
    let model = map_params(model, &mut Moved);
    let ids: Vec<i64> = (0..48).map(|i| (i * 37 + 5) % 3000).collect();
    let input = Tensor::<1, Int>::from_data(&ids[..], device).reshape([2, 24]);
    let hidden = model.hidden_states(&TokenBatch::new(input), None);
    let loss = causal_lm_loss(hidden, model.head(), &ids).sum;
    let value = loss.clone().into_scalar::<f32>();
    let gradients = loss.backward();
    let mut read = Read(&gradients, BTreeMap::new());
    visit_params(&model, &mut read);
    (value, read.1)
}

fn compare(base: &AutoCausalLm, method: &str, label: &str, device: &Device) {
    let mut dense = base.clone();
    assert_eq!(dequantize(&mut dense), 35);
    let (loss, found) = gradients(base.clone(), method, device);
    let (expected_loss, expected) = gradients(dense, method, device);
    assert!(
        (loss / expected_loss - 1.0).abs() < 1e-5,
        "{label}: {loss} {expected_loss}"
    );
    assert!(
        found.len() >= 70 && found.len() == expected.len(),
        "{label}: {}",
        found.len()
    );
    for (path, expected) in expected {
        let found = &found[&path];
        let size = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert!(size > 0.0, "{label} {path}: no gradient");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-4 * size,
                "{label} {path}: {found} {expected}"
            );
        }
    }
}

#[test]
fn gradients_are_those_on_the_decoded_base() {
    for checkpointing in [false, true] {
        let mut device = ft::device("cpu").expect("cpu").autodiff();
        if checkpointing {
            device = device.gradient_checkpointing();
        }
        let load = || {
            let folder = Path::new(TINY);
            AutoCausalLm::from_pretrained_with(folder, &device, Weights::Stored).expect("loads")
        };
        for format in [
            PackedFormat::NF4,
            PackedFormat::Q4_K,
            PackedFormat::INT8_G64,
        ] {
            let mut base = load();
            pack_model(&mut base, format).expect("packs");
            for method in ["lora", "dora"] {
                let label = format!("{method} on {format}, checkpointing {checkpointing}");
                compare(&base, method, &label, &device);
            }
        }
        let Ok(Target::Groups(config)) = "hqq-w3g64".parse() else {
            panic!("groups")
        };
        let mut base = load();
        quantize_model(&mut base, &config, None, &mut |_, _| {}).expect("quantizes");
        compare(&base, "lora", "lora on hqq-w3g64", &device);
    }
}
